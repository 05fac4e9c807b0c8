"""Encoder: what users call. Loads and saves models; what it does with texts is `BaseEncoder`'s."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from .arithmetic.kinds import Quantization
from .base_encoder import BaseEncoder
from .checkpoint.options import LoadOptions
from .faces import check_names
from .inputs import (
    AllKeywords,
    EncodeOptions,
    TokenKeywords,
    check_texts,
    checked,
    names_checked,
    without_as_tensor,
)
from .recipe import Recipe, Role
from .streams import arun, stream, token_vectors
from .vectors import Vectors, cosine

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from .vector_cache.store import VectorCache

BUNDLED_MODEL = Path(__file__).parent / "data" / "small"


class Encoder(BaseEncoder):
    """Turns texts into vectors exactly as the checkpoint's authors do.

    Example:
        >>> encoder = Encoder.from_pretrained()  # doctest: +SKIP
        >>> documents = encoder.encode_document(["Paris is in France.", "Cats purr."])
        >>> scores = encoder.similarity(encoder.encode_query("capital of France"), documents)
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        recipe: Recipe,
        head: nn.Module | None = None,
    ) -> None:
        """Wrap a loaded backbone, and the head (`packed.heads.build`) of a recipe with heads.

        Raises:
            ValueError: they do not go together, the attention direction included.
        """
        from .checkpoint.checks import prepare
        from .model import Model

        model = Model(backbone, tokenizer, recipe, head)
        prepare(model)
        super().__init__(model)

    @classmethod
    @names_checked
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        recipe: Recipe | str | None = None,
        adapters: Sequence[str | Path] | None = None,
        device: str | torch.device | None = None,
        devices: Sequence[str] | None = None,
        dtype: str | torch.dtype = "auto",
        attn_implementation: str | None = None,
        quantization: Quantization | Any = None,
        device_map: str | Mapping[str, Any] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        vector_cache: VectorCache | str | Path | None = None,
    ) -> Encoder:
        """Load a checkpoint.

        Args:
            model: Hub id, local directory or GGUF file; None is the small model in this package.
            recipe: How the model embeds, if its files do not say. `LoadOptions` has more on all.
            adapters: LoRA adapters to apply on top, in order.
            device: None = the best there is.
            devices: Several instead of one.
            dtype: "auto" = the checkpoint's, where the device computes in it.
            attn_implementation: As in transformers.
            quantization: "int8", "fp8" or a transformers quantization config.
            device_map: As in transformers.
            revision: Branch, tag or commit of `model`.
            token: Hub token.
            cache_dir: Hub cache.
            local_files_only: Never ask the network.
            trust_remote_code: Run code from the repository.
            vector_cache: File that keeps vectors for the next call, run or process.

        Raises:
            FileNotFoundError: a directory, repository, base or weight file is missing.
            ValueError: anything else that does not fit; the message names it and the remedy.
        """
        options = LoadOptions(
            recipe=recipe,
            adapters=adapters,
            device=device,
            devices=devices,
            dtype=dtype,
            attn_implementation=attn_implementation,
            quantization=quantization,
            device_map=device_map,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
            vector_cache=vector_cache,
        )
        return cls.open(model, options)

    @classmethod
    def open(cls, model: str | Path | None, options: LoadOptions) -> Self:
        """`from_pretrained` for those who hold its options in one object."""
        from .opening import open_encoder

        return open_encoder(cls, model or BUNDLED_MODEL, options)

    @property
    def backbone(self) -> PreTrainedModel:
        """The decoder without a head, its weights in the dtype that it computes in."""
        return self.model.converted()

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Its tokenizer; asked for ids only, never for special tokens."""
        return self.model.tokenizer

    @property
    def recipe(self) -> Recipe:
        """How the two are used."""
        return self.model.recipe

    @property
    def dimension(self) -> int:
        """Length of a full vector."""
        return self.model.dimension

    @property
    def max_length(self) -> int:
        """Default limit in tokens, in the recipe's meaning, within the backbone's positions."""
        return self.model.max_length

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return self.model.device

    @property
    def packing(self) -> str:
        """How texts share a pass: packed without padding, or padded and why."""
        return self.scheduler.runner.packing

    async def aencode(
        self,
        texts: str | Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        **options: Unpack[AllKeywords],
    ) -> Any:
        """`encode` while the event loop goes on.

        Calls that wait at the same time share forward passes; a cancelled call frees its place.
        """
        strings, single = check_texts(texts)
        keywords, as_tensor = without_as_tensor(options)
        call = self._call({role: instruction}, EncodeOptions(**keywords))
        return self._given((await arun(call, strings))[:, 0], single, as_tensor)

    def iter_encode(
        self,
        texts: Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        window: int = 1024,
        **options: Unpack[AllKeywords],
    ) -> Iterator[Any]:
        """Vectors of a stream, one by one and in order, in bounded memory.

        Args:
            texts: Any iterable; the next `window` texts are read while those before them run.
            role: As in `encode`.
            instruction: As in `encode`.
            window: Texts read at once.
            **options: As in `encode`.

        Raises:
            TypeError: `texts` is one string, an unknown option, or a text that is not a string.
            ValueError: as in `encode`; what can be checked is, before the stream is touched.
        """
        if isinstance(texts, str | bytes):
            raise TypeError("iter_encode takes an iterable of strings; encode takes a single one")
        if window < 1:
            raise ValueError(f"window={window} must be 1 or more")
        keywords, as_tensor = without_as_tensor(options)
        call = self._call({role: instruction}, EncodeOptions(**keywords))
        vectors = stream(call, checked(texts), window)
        return (self._given(vector, False, as_tensor) for vector in vectors)

    def encode_both(
        self,
        texts: str | Iterable[str],
        instruction: str | None = None,
        **options: Unpack[AllKeywords],
    ) -> tuple[Any, Any]:
        """The vectors of texts as queries and as documents, `(queries, documents)`.

        A causal backbone reads what both prompts have in common once: with LLaRA the whole text, so
        this costs little more than one of the two. The instruction is the queries'.
        """
        strings, single = check_texts(texts)
        keywords, as_tensor = without_as_tensor(options)
        call = self._call({"query": instruction, "document": None}, EncodeOptions(**keywords))
        found = call.run(strings)
        queries, documents = (self._given(found[:, i], single, as_tensor) for i in (0, 1))
        return queries, documents

    def encode_tokens(
        self,
        texts: str | Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        **options: Unpack[TokenKeywords],
    ) -> Any:
        """One vector per token of the text, with character offsets.

        The text stands in its role's template; only its own tokens are returned, as a
        `TokenVectors` for one string, a list of them for many. It is only ever cut at its end.
        """
        check_names(options, list(TokenKeywords.__annotations__))
        strings, single = check_texts(texts)
        call = self._call({role: instruction}, EncodeOptions(**options))
        found = token_vectors(call, strings)
        return found[0] if single else found

    def similarity(self, a: Any, b: Any) -> Vectors:
        """Cosine similarity `[n, m]`, float32, of the rows of two arrays or tensors."""
        return cosine(a, b)

    def tokenize(
        self, texts: str | Iterable[str], role: Role = "document", instruction: str | None = None
    ) -> list[list[int]]:
        """Exactly the token ids the backbone is fed, one list per text."""
        rows = self.model.rows(check_texts(texts)[0], role, instruction)
        return [row.ids for row in rows]

    def save_pretrained(self, path: str | Path) -> None:
        """Write weights, tokenizer and recipe; `from_pretrained(path)` reads them back.

        Adapters are part of the weights by now. Weights in int8 on a CPU are written as they are,
        and read back so. Written last, the recipe marks a whole directory.

        Raises:
            ValueError: weights that are quantised otherwise, or a directory that holds weights in
                another form.
        """
        from .checkpoint.saving import save

        save(self.model, Path(path), self.ranges, self.quantization_cosine)

    def export_sentence_transformers(self, path: str | Path) -> None:
        """Write a model that plain sentence-transformers loads, without any code of ours.

        Raises:
            ValueError: the recipe needs what native modules cannot do; the message says what.
        """
        from .export.modules import export_sentence_transformers

        export_sentence_transformers(self.model, Path(path), self.ranges)

    def close(self) -> None:
        """Stop all workers now: calls that wait are cancelled, later ones refused."""
        self.scheduler.close()
