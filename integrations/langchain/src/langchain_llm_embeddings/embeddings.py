"""LLMEmbeddings: an `llm_embeddings.Encoder` behind LangChain's `Embeddings` interface."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Any, get_args

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from llm_embeddings.inputs import EncodeKeywords, EncodeOptions

from .identity import Identified
from .values import FloatPrecision, Role


class LLMEmbeddings(Identified, Embeddings):
    """Embeddings from a decoder LLM, for LangChain.

    The model is loaded when the object is made, so that errors come early. The object is frozen:
    what a cache or an index was built with cannot change under it. For other options over the same
    weights make another one: `LLMEmbeddings(encoder=embeddings.encoder, ...)`.

    Setup:
        `pip install langchain-llm-embeddings`

    Instantiate:
        >>> from langchain_llm_embeddings import LLMEmbeddings
        >>> embeddings = LLMEmbeddings(  # doctest: +SKIP
        ...     model="intfloat/e5-mistral-7b-instruct",
        ...     query_instruction="Given a question, retrieve passages that answer it",
        ... )

    Embed single text:
        >>> vector = embeddings.embed_query("What do cats do?")  # doctest: +SKIP

    Embed multiple texts:
        >>> vectors = embeddings.embed_documents(["Cats purr.", "Dogs bark."])  # doctest: +SKIP

    Async:
        >>> vector = await embeddings.aembed_query("What do cats do?")  # doctest: +SKIP

    Attributes:
        model: Hub id or local directory; `model_name` is accepted too. None = the small model that
            comes with `llm-embeddings`. Read, it says whose vectors these are: the hub id, or
            `identity()` where that says more.
        recipe: How the checkpoint is used: a name from `list_recipes()`, a `Recipe` or its
            `to_dict()` (which is what is kept). None = recognised from the checkpoint.
        adapters: LoRA adapters to apply on top, in order.
        device: "cuda", "cuda:1", "mps", "cpu"; None = the best there is.
        devices: Several instead: a process with the model for each but the first shares the work.
        dtype: "auto", "float32", "bfloat16" or "float16".
        attn_implementation: As in transformers.
        quantization: "int8" (CPU, CUDA) or "fp8" (CUDA): computes in 8 bits. Or a transformers
            quantization config; its `to_dict()` is what is kept.
        device_map: As in transformers; overrides `device`.
        revision: Branch, tag or commit of `model`.
        token: Hub token, never serialised; None = the one `huggingface_hub` finds, False = none.
        cache_folder: Hub cache.
        local_files_only: Never ask the network.
        trust_remote_code: Run code from the repository; no listed checkpoint needs it.
        vector_cache: File that keeps vectors for the next call, run or process, each role's apart.
        encoder: A loaded `Encoder` to share, instead of all of the above. It is not serialised.
        query_instruction: None = the recipe's default; "" = none.
        document_instruction: None and "" = none.
        query_prompt_name: One of the checkpoint's named prompts, in place of the query template.
        document_prompt_name: The same for documents.
        normalize: Unit L2 length; None = as the recipe says.
        truncate_dim: Keep this many dimensions.
        precision: "float32"; "float16" rounds to half precision; "int8" and "uint8" give whole
            numbers (still Python floats) for stores with a byte type.
        max_length: Limit in tokens; None = the recipe's.
        max_batch_tokens: Padded tokens per forward pass; None = by device.
        show_progress: Show a progress bar.
    """

    query_instruction: str | None = None
    document_instruction: str | None = None
    query_prompt_name: str | None = None
    document_prompt_name: str | None = None
    normalize: bool | None = None
    truncate_dim: int | None = None
    precision: FloatPrecision = "float32"
    max_length: int | None = None
    max_batch_tokens: int | None = None
    show_progress: bool = False

    def model_post_init(self, context: Any) -> None:
        """Load the model unless a loaded one is given, then try the options on no text."""
        super().model_post_init(context)
        for role in get_args(Role):
            self._try([], role)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self.truncate_dim or self.encoder.dimension

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of passages, in the order given; [] for none.

        Raises:
            TypeError: `texts` is one string, or one of them is not a string.
        """
        return self._embed(texts, "document")

    def embed_queries(self, texts: list[str]) -> list[list[float]]:
        """Vectors of many queries in few forward passes, each as from `embed_query`.

        Raises:
            TypeError: `texts` is one string, or one of them is not a string.
        """
        return self._embed(texts, "query")

    def embed_query(self, text: str) -> list[float]:
        """Vector of a query.

        Raises:
            TypeError: `text` is not a string.
        """
        return self._embed([text], "query")[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """`embed_documents` while the event loop goes on."""
        return await self._aembed(texts, "document")

    async def aembed_query(self, text: str) -> list[float]:
        """`embed_query` while the event loop goes on."""
        return (await self._aembed([text], "query"))[0]

    def cache_namespace(self, role: Role) -> str:
        """A short name for all that decides the vectors of a role: the prefix of a cache key.

        It has letters, digits and hyphens only, names the role, and is the same in every process.
        `cache_backed` uses it; use it for any other cache or index name.

        Raises:
            ValueError: `role` is neither "query" nor "document".
        """
        encoder = self.encoder
        normalize = encoder.recipe.normalize if self.normalize is None else self.normalize
        name = self._prompt_name(role)
        facts: list[Any] = [
            encoder.fingerprint(role if name is None else name, self._instruction(role)),
            normalize,
            self.dimension,
            self.precision,
            self.max_length or encoder.max_length,
        ]
        if self.precision in ("int8", "uint8"):
            self._try([""], role)
            facts.append(encoder.ranges[self.dimension, normalize].tolist())
        digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
        return f"llm-embeddings-{role}-{digest}"

    def identity(self) -> str:
        """A name for all that decides the vectors of both roles, readable at its beginning.

        `model` and `model_name` show it where no other name says as much.
        """
        names = "".join(self.cache_namespace(role) for role in get_args(Role))
        name = re.sub(r"[^\w.-]+", "-", self.encoder.recipe.name, flags=re.ASCII)
        return f"{name}-{hashlib.blake2b(names.encode(), digest_size=8).hexdigest()}"

    def _instruction(self, role: Role) -> str | None:
        return self.query_instruction if role == "query" else self.document_instruction

    def _prompt_name(self, role: Role) -> str | None:
        return self.query_prompt_name if role == "query" else self.document_prompt_name

    def _options(self, role: Role) -> EncodeKeywords:
        names = {field.name for field in dataclasses.fields(EncodeOptions)} - {"prompt_name"}
        options: Any = {name: getattr(self, name) for name in names}
        options["prompt_name"] = self._prompt_name(role)
        found: EncodeKeywords = options
        return found

    def _try(self, texts: list[str], role: Role) -> None:
        """Embed without a progress bar: raises for options that do not fit."""
        options: EncodeKeywords = {**self._options(role), "show_progress": False}
        self.encoder.encode(texts, role, self._instruction(role), **options)

    def _embed(self, texts: list[str], role: Role) -> list[list[float]]:
        _check_list(texts)
        return _to_lists(
            self.encoder.encode(texts, role, self._instruction(role), **self._options(role))
        )

    async def _aembed(self, texts: list[str], role: Role) -> list[list[float]]:
        _check_list(texts)
        return _to_lists(
            await self.encoder.aencode(texts, role, self._instruction(role), **self._options(role))
        )


def _check_list(texts: Any) -> None:
    if isinstance(texts, str):
        raise TypeError(
            f"texts is the string {texts!r:.80}, not a list of strings: put it in a list, or call "
            "embed_query"
        )


def _to_lists(vectors: NDArray[Any]) -> list[list[float]]:
    lists: list[list[float]] = vectors.astype(np.float64).tolist()
    return lists
