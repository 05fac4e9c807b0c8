"""LLMEmbedding: an `llm_embeddings.Encoder` behind LlamaIndex's `BaseEmbedding`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, Self, Unpack

from llama_index.core.bridge.pydantic import BaseModel, Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager

from llm_embeddings import Encoder
from llm_embeddings.checkpoint.options import tame_forked_torch
from llm_embeddings.inputs import EncodeKeywords, EncodeOptions

from ._cache import OwnCollection
from ._handle import Handle
from ._hooks import Hooks, Role
from ._options import (
    EmbeddingKeywords,
    FloatPrecision,
    PathText,
    check_encoder,
    check_options,
    load_options,
    plain_options,
    to_lists,
)

if TYPE_CHECKING:
    from llama_index.core.rate_limiter import BaseRateLimiter
    from llama_index.core.storage.kvstore.types import BaseKVStore

UNNAMED, BUNDLED = "<encoder>", "<llm-embeddings-small>"


class LLMEmbedding(Hooks):
    """Embeddings from a decoder LLM, for LlamaIndex.

    The model is loaded when the object is made, so that errors come early; an unpickled one loads
    it when it first embeds. What decides a vector is a public field and cannot be assigned: for
    other options over the same weights make `LLMEmbedding(encoder=embed_model.encoder, ...)`.

    Example:
        >>> from llama_index.core import Settings
        >>> Settings.embed_model = LLMEmbedding(  # doctest: +SKIP
        ...     "intfloat/e5-mistral-7b-instruct",
        ...     query_instruction="Given a question, retrieve passages that answer it",
        ... )

    Attributes:
        model_name: Hub id or local directory; "<llm-embeddings-small>" = the small model that comes
            with `llm-embeddings`, "<encoder>" = a given `encoder` without a name.
        recipe: How the checkpoint is used: a name from `list_recipes()`, or a recipe's `to_dict()`.
            None = recognised from the checkpoint.
        adapters: LoRA adapters to apply on top, in order.
        device: "cuda", "cuda:1", "mps", "cpu"; None = the best there is.
        devices: Several instead: a process with the model for each but the first shares the work.
        dtype: "auto", "float32", "bfloat16" or "float16".
        attn_implementation: As in transformers.
        quantization: "int8" (CPU, CUDA) or "fp8" (CUDA): computes in 8 bits. Or a transformers
            quantization config; its `to_dict()` is what is kept.
        device_map: As in transformers; overrides `device`.
        revision: Branch, tag or commit of `model_name`.
        cache_folder: Hub cache.
        local_files_only: Never ask the network.
        trust_remote_code: Run code from the repository; no listed checkpoint needs it.
        vector_cache: File that keeps vectors for the next call, run or process, each role's apart.
        query_instruction: None = the recipe's default; "" = none.
        text_instruction: None and "" = none.
        query_prompt_name, text_prompt_name: Named prompts of the checkpoint, for the templates.
        normalize: Unit L2 length; None = as the recipe says.
        truncate_dim: Keep this many dimensions.
        precision: "float32"; "float16" rounds to half precision; "int8" and "uint8" give whole
            numbers (still Python floats) for stores with a byte type.
        max_length: Limit in tokens; None = the recipe's.
        max_batch_tokens: Padded tokens per forward pass; None = by device.
        embed_batch_size: Texts per event; the forward passes are sized by `max_batch_tokens`.
    """

    model_name: str = Field(default="", frozen=True)
    recipe: str | dict[str, Any] | None = Field(default=None, frozen=True)
    adapters: list[str] | None = Field(default=None, frozen=True)
    device: str | None = Field(default=None, frozen=True)
    devices: list[str] | None = Field(default=None, frozen=True)
    dtype: str = Field(default="auto", frozen=True)
    attn_implementation: str | None = Field(default=None, frozen=True)
    quantization: str | dict[str, Any] | None = Field(default=None, frozen=True)
    device_map: str | dict[str, Any] | None = Field(default=None, frozen=True)
    revision: str | None = Field(default=None, frozen=True)
    cache_folder: str | None = Field(default=None, frozen=True)
    local_files_only: bool = Field(default=False, frozen=True)
    trust_remote_code: bool = Field(default=False, frozen=True)
    vector_cache: str | None = Field(default=None, frozen=True)
    query_instruction: str | None = Field(default=None, frozen=True)
    text_instruction: str | None = Field(default=None, frozen=True)
    query_prompt_name: str | None = Field(default=None, frozen=True)
    text_prompt_name: str | None = Field(default=None, frozen=True)
    normalize: bool | None = Field(default=None, frozen=True)
    truncate_dim: int | None = Field(default=None, frozen=True)
    precision: FloatPrecision = Field(default="float32", frozen=True)
    max_length: int | None = Field(default=None, frozen=True)
    max_batch_tokens: int | None = Field(default=None, frozen=True)
    embeddings_cache: Any | None = Field(default=None, frozen=True, exclude=True)

    _handle: Handle = PrivateAttr()
    _token: str | bool | None = PrivateAttr()

    def __init__(
        self,
        model_name: PathText | None = None,
        *,
        encoder: Encoder | None = None,
        embed_batch_size: int = 512,
        num_workers: int | None = None,
        callback_manager: CallbackManager | None = None,
        embeddings_cache: BaseKVStore | None = None,
        rate_limiter: BaseRateLimiter | None = None,
        **options: Unpack[EmbeddingKeywords],
    ) -> None:
        """Load the model, or take a loaded one, and try the options on no text.

        Args not among the attributes:
            encoder: A loaded `Encoder` to share. Give the name and options it was loaded with too
                if the object is to be pickled (pipelines with `num_workers`) or written as a dict.
            token: Hub token. It is in no dict, event or repr; a pickle carries it.
            num_workers, callback_manager, rate_limiter: As in `BaseEmbedding`.
            embeddings_cache: As in `BaseEmbedding`, a collection for each model and options;
                refused where queries and texts differ.
            **options: The other attributes; paths, torch's objects and `Recipe`s are taken too.

        Raises:
            FileNotFoundError: a directory, repository, base or weight file is missing.
            TypeError: an unknown option, or one of a wrong type.
            ValueError: anything else that does not fit; the message names it and the remedy.
        """
        check_encoder(encoder)
        if encoder is not None and not model_name:
            model_name = UNNAMED
        check_options(options, EmbeddingKeywords.__annotations__, LLMEmbedding.__init__)
        fields = plain_options(options)
        token = fields.pop("token", None)
        super().__init__(
            model_name=os.fspath(model_name or BUNDLED),
            embed_batch_size=embed_batch_size,
            num_workers=num_workers,
            callback_manager=callback_manager or CallbackManager([]),
            embeddings_cache=None
            if embeddings_cache is None
            else OwnCollection(embeddings_cache, self._collection),
            rate_limiter=rate_limiter,
            **fields,
        )
        self._token = token
        self._handle = Handle(self._load() if encoder is None else encoder)
        self._check()

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex writes into dicts and events."""
        return "LLMEmbedding"

    @property
    def encoder(self) -> Encoder:
        """The encoder; an unpickled object loads it here, once.

        Raises:
            ValueError: the checkpoint's vectors are not those of the object that was pickled.
        """
        with (handle := self._handle).lock:
            if handle.encoder is None:
                tame_forked_torch()
                encoder = self._load()
                if encoder.fingerprint("document", "") != handle.fingerprint:
                    raise ValueError(
                        f"{self.model_name!r} does not give the vectors of the object that was "
                        "pickled: when you give encoder=, give the model_name, recipe, adapters, "
                        "revision and dtype it was loaded with too; with dtype='auto' both "
                        "machines must choose the same"
                    )
                handle.encoder = encoder
        return handle.encoder

    @property
    def dimension(self) -> int:
        """Length of the vectors: what a vector store asks for."""
        return self.truncate_dim or self.encoder.dimension

    @property
    def fingerprint(self) -> str:
        """32 hex digits that differ whenever weights, tokenizer, dtype or recipe do."""
        return self._handle.fingerprint

    def to_payload(self) -> dict[str, Any]:
        """What events say of the model: the effective options, and no secret."""
        recipe = self.encoder.recipe
        return {
            **super().to_payload(),
            "family": recipe.family,
            "recipe": recipe.name,
            "device": str(self.encoder.device),
            "dimension": self.dimension,
            **self.model_dump(include={"query_prompt_name", "text_prompt_name"}),
            "query_instruction": recipe.resolve_instruction("query", self.query_instruction),
            "text_instruction": recipe.resolve_instruction("document", self.text_instruction),
            "normalize": recipe.normalize if self.normalize is None else self.normalize,
            "max_length": self.max_length or self.encoder.max_length,
        }

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """The fields, and the fingerprint: an `IngestionPipeline` makes its cache keys of it."""
        return {**super().to_dict(**kwargs), "fingerprint": self.fingerprint}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """An object with `to_dict`'s fields; `kwargs` replace some, or add `token` or `encoder`.

        Raises:
            ValueError: it was made over an `encoder` without a name, and none is given here.
        """
        data = {key: value for key, value in data.items() if key != "fingerprint"}
        return super().from_dict(data, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        if self.model_name == UNNAMED:
            raise ValueError(
                "an LLMEmbedding over an encoder without a name does not pickle: give model_name= "
                "(and recipe, adapters, dtype as loaded) beside encoder="
            )
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        fields = type(self).model_fields.items()
        defaults = {name: field.get_default(call_default_factory=True) for name, field in fields}
        BaseModel.__setstate__(self, {**state, "__dict__": {**defaults, **state["__dict__"]}})

    def _load(self) -> Encoder:
        if self.model_name == UNNAMED:
            raise ValueError(
                f"model_name={UNNAMED!r} stands for an encoder without a name: pass encoder=, or "
                "give model_name= where the object is first made"
            )
        options = load_options({**dict(self), "token": self._token})
        bundled = self.model_name in ("", BUNDLED)
        return Encoder.open(None if bundled else self.model_name, options)

    def _check(self) -> None:
        """Try every option on no text, and refuse a cache that would mix queries and texts."""
        self._embed([], "query")
        self._embed([], "document")
        if self.embeddings_cache is None:
            return
        if self._named("query") != self._named("document"):
            raise ValueError(
                "embeddings_cache has one entry per string, for query and text alike, and this "
                "model embeds the two differently: leave it out, and run an IngestionPipeline, "
                "whose own cache keeps texts apart by model and options"
            )

    def _side(self, role: Role) -> tuple[str | None, str | None]:
        """Instruction and prompt of a role."""
        if role == "query":
            return self.query_instruction, self.query_prompt_name
        return self.text_instruction, self.text_prompt_name

    def _named(self, role: Role) -> str:
        instruction, prompt = self._side(role)
        return self.encoder.fingerprint(role if prompt is None else prompt, instruction)

    def _collection(self) -> str:
        """Names all that decides a vector, for an `embeddings_cache`."""
        encoder = self.encoder
        normalize = encoder.recipe.normalize if self.normalize is None else self.normalize
        limit = self.max_length or encoder.max_length
        facts = [self._named("document"), normalize, self.dimension, self.precision, limit]
        if self.precision in ("int8", "uint8"):
            facts.append(encoder.ranges_of(self.dimension, normalize).tolist())
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def _options(self, prompt: str | None) -> EncodeKeywords:
        own = type(self).model_fields
        names = [field.name for field in dataclasses.fields(EncodeOptions) if field.name in own]
        options: Any = {"prompt_name": prompt, **{name: getattr(self, name) for name in names}}
        found: EncodeKeywords = options
        return found

    def _embed(self, texts: list[str], role: Role) -> list[list[float]]:
        instruction, prompt = self._side(role)
        return to_lists(self.encoder.encode(texts, role, instruction, **self._options(prompt)))

    async def _aembed(self, texts: list[str], role: Role) -> list[list[float]]:
        instruction, prompt = self._side(role)
        options = self._options(prompt)
        return to_lists(await self.encoder.aencode(texts, role, instruction, **options))
