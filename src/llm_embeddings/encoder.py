"""Encoder: the map from text to vector. Each line of `encode` calls a leaf file and comes back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from numpy.typing import NDArray

from .call import Call
from .inputs import AllOptions, EncodeOptions, Quantization, check_texts, checked
from .model import default_limit, rows_of
from .recipe import Recipe, Role
from .vectors import Precision, Vectors, cosine, measure_ranges

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from .vector_cache.store import VectorCache

BUNDLED_MODEL = Path(__file__).parent / "data" / "small"


class Encoder:
    """Turns texts into vectors exactly as the checkpoint's authors do.

    Example:
        >>> encoder = Encoder.from_pretrained()  # doctest: +SKIP
        >>> documents = encoder.encode_document(["Paris is in France.", "Cats purr."])
        >>> scores = encoder.similarity(encoder.encode_query("capital of France"), documents)

    Attributes:
        backbone: The decoder without a head.
        tokenizer: Its tokenizer; asked for ids only, never for special tokens.
        recipe: How the two are used.
        ranges: Calibrated ranges `[2, dim]` of int8 and uint8, by (dim, normalize).
        quantization_cosine: Lowest cosine between vectors of a sample before and after quantising
            with "int8" or "fp8"; None without.
        scheduler: The one worker per device that runs the backbone, for all threads and coroutines.
        vector_cache: Where vectors are kept and looked for, or None; may be set.
    """

    def __init__(
        self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, recipe: Recipe
    ) -> None:
        """Wrap a loaded backbone: sets its attention direction, checks it, and keeps it.

        Raises:
            ValueError: backbone, tokenizer and recipe do not go together.
        """
        from .checkpoint.loading import prepare
        from .engine.scheduler import Scheduler
        from .forward import Runner
        from .vector_cache.fingerprint import Fingerprints

        prepare(backbone, tokenizer, recipe)
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.ranges: dict[tuple[int, bool], Vectors] = {}
        self.quantization_cosine: float | None = None
        self.vector_cache: VectorCache | None = None
        self._fingerprints = Fingerprints()
        self.scheduler = Scheduler(Runner(backbone, recipe))

    @classmethod
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
            model: Hub id or local directory; None is the small model in this package.
            recipe: A `Recipe`, or a name from `list_recipes()`. None = the one saved beside the
                weights, listed under the hub id, or recognised from the files.
            adapters: LoRA adapters to apply on top, in order. An adapter repository named as
                `model` brings its own base and the stages before it.
            device: None = CUDA, Apple's GPU or the CPU, whichever there is.
            devices: Several instead, such as `["cuda:0", "cuda:1"]`: a process with the model for
                each but the first shares the work. `["cpu", "cpu"]` divides the cores.
            dtype: "auto" = the checkpoint's; on a CPU bfloat16 where it is native, else float32.
            attn_implementation: As in transformers.
            quantization: "int8" (CPU, CUDA) or "fp8" (CUDA): linear layers in 8 bits, weights and
                activations; `quantization_cosine` says how close the vectors stay. Or a
                transformers quantization config.
            device_map: As in transformers; overrides `device`.
            revision: Branch, tag or commit of `model`.
            token: Hub token.
            cache_dir: Hub cache.
            local_files_only: Never ask the network.
            trust_remote_code: Run code from the repository; no listed checkpoint needs it.
            vector_cache: File that keeps vectors for the next call, run or process.

        Raises:
            FileNotFoundError: a directory, repository, base or weight file is missing.
            ValueError: anything else that does not fit; the message names it and the remedy.
        """
        from .checkpoint.files import Source
        from .checkpoint.loading import LoadOptions
        from .checkpoint.opening import Checkpoint, open_encoder

        checkpoint = Checkpoint(
            str(BUNDLED_MODEL if model is None else model),
            recipe,
            adapters or (),
            quantization,
            Source(revision, token, cache_dir, local_files_only),
            LoadOptions(device, dtype, attn_implementation, None, device_map, trust_remote_code),
        )
        return open_encoder(cls, checkpoint, devices, vector_cache)

    @property
    def dimension(self) -> int:
        """Length of a full vector."""
        return int(self.backbone.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Default limit in tokens, in the recipe's meaning, within the backbone's positions."""
        return default_limit(self.backbone, self.recipe)

    @property
    def packing(self) -> str:
        """How texts share a pass: packed without padding, or padded and why."""
        return self.scheduler.runner.packing

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return self.backbone.device

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        as_tensor: Literal[False] = False,
        **options: Unpack[EncodeOptions],
    ) -> NDArray[Any]: ...

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        as_tensor: Literal[True],
        **options: Unpack[EncodeOptions],
    ) -> torch.Tensor: ...

    def encode(
        self,
        texts: str | Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        normalize: bool | None = None,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        show_progress: bool = False,
        as_tensor: bool = False,
    ) -> NDArray[Any] | torch.Tensor:
        """Vectors of texts, in the order given.

        Args:
            texts: One string or many. An empty one has a finite vector; lone surrogates count as
                U+FFFD; what is over the limit is cut (and counted in the debug log).
            role: "query" or "document": which of the recipe's templates stands around the text.
            instruction: None = the recipe's default for queries, none for documents; "" = none.
            normalize: Unit L2 length; None = as the recipe says.
            truncate_dim: Keep this many dimensions, then normalise if wanted.
            precision: "float32", "float16", "int8", "uint8", "binary" or "ubinary".
            max_length: Limit in tokens in the recipe's meaning; None = `self.max_length`.
            max_batch_tokens: Tokens per forward pass; None = 2048 on a CPU, else by memory.
            show_progress: Show a progress bar.
            as_tensor: Return a torch tensor on `self.device` instead of a NumPy array.

        Returns:
            `[dim]` for one string, `[n, dim]` for many (`[0, dim]` for none); float32 unless
            `precision` says otherwise.

        Raises:
            TypeError: a text is not a string (the message gives its index), or an unknown option.
            ValueError: a bad option, an instruction that does not fit, or a vector that is not
                finite (the message names the text).
        """
        strings, single = check_texts(texts)
        call = Call(
            self,
            {role: instruction},
            normalize=normalize,
            truncate_dim=truncate_dim,
            precision=precision,
            max_length=max_length,
            max_batch_tokens=max_batch_tokens,
            show_progress=show_progress,
            as_tensor=as_tensor,
        )
        result: NDArray[Any] | torch.Tensor = call.given(call.run(strings)[:, 0], single=single)
        return result

    def encode_query(
        self,
        texts: str | Iterable[str],
        instruction: str | None = None,
        **options: Unpack[AllOptions],
    ) -> Any:
        """`encode` with role "query": what to call for search queries."""
        call: Any = self.encode
        return call(texts, "query", instruction, **options)

    def encode_document(
        self,
        texts: str | Iterable[str],
        instruction: str | None = None,
        **options: Unpack[AllOptions],
    ) -> Any:
        """`encode` with role "document": what to call for the passages to be found."""
        call: Any = self.encode
        return call(texts, "document", instruction, **options)

    async def aencode(
        self,
        texts: str | Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        **options: Unpack[AllOptions],
    ) -> Any:
        """`encode` while the event loop goes on.

        Calls that wait at the same time share forward passes; a cancelled call frees its place.
        """
        strings, single = check_texts(texts)
        call = Call(self, {role: instruction}, **options)
        return call.given((await call.arun(strings))[:, 0], single=single)

    def iter_encode(
        self,
        texts: Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        window: int = 1024,
        **options: Unpack[AllOptions],
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
        call = Call(self, {role: instruction}, **options)
        return (call.given(vector, single=False) for vector in call.stream(checked(texts), window))

    def encode_both(
        self,
        texts: str | Iterable[str],
        instruction: str | None = None,
        **options: Unpack[AllOptions],
    ) -> tuple[Any, Any]:
        """The vectors of texts as queries and as documents.

        A causal backbone reads what both prompts have in common once: with LLaRA the whole text, so
        this costs little more than one of the two. Elsewhere it is `encode` twice.

        Args:
            texts: One string or many.
            instruction: Of the query side; None = the recipe's default.
            **options: As in `encode`.

        Returns:
            `(queries, documents)`, each as from `encode`.
        """
        strings, single = check_texts(texts)
        call = Call(self, {"query": instruction, "document": None}, **options)
        found = call.run(strings)
        return call.given(found[:, 0], single=single), call.given(found[:, 1], single=single)

    def encode_tokens(
        self,
        texts: str | Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        show_progress: bool = False,
    ) -> Any:
        """One vector per token of the text, with character offsets.

        For late chunking (pool each chunk's tokens) and word-level tasks. The text stands in its
        role's template; only its own tokens are returned. It is only ever cut at its end.

        Returns:
            A `TokenVectors` for one string, a list of them for many.
        """
        strings, single = check_texts(texts)
        found = Call(
            self,
            {role: instruction},
            max_length=max_length,
            max_batch_tokens=max_batch_tokens,
            show_progress=show_progress,
        ).run_tokens(strings)
        return found[0] if single else found

    def similarity(self, a: Any, b: Any) -> Vectors:
        """Cosine similarity of every row of `a` with every row of `b`: `[n, m]`, float32.

        Takes arrays and tensors; a single vector counts as one row.
        """
        return cosine(a, b)

    def tokenize(
        self, texts: str | Iterable[str], role: Role = "document", instruction: str | None = None
    ) -> list[list[int]]:
        """Exactly the token ids the backbone is fed, one list per text."""
        rows = rows_of(*self._parts, check_texts(texts)[0], role, instruction, None)
        return [row.ids for row in rows]

    def calibrate(
        self,
        texts: Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        normalize: bool | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        """Measure the ranges of int8 and uint8 on texts like yours, and keep them.

        They are saved by `save_pretrained`. Without this call the ranges come from passages in this
        package: the same in every process, but wider than a calibration on your own texts.
        """
        normalize = self.recipe.normalize if normalize is None else normalize
        vectors = self.encode(
            check_texts(texts)[0], role, instruction, normalize=normalize, truncate_dim=truncate_dim
        )
        if not len(vectors):
            raise ValueError("calibrate needs at least one text")
        self.ranges[vectors.shape[1], normalize] = measure_ranges(vectors)

    def fingerprint(self, role: Role = "document", instruction: str | None = None) -> str:
        """32 hex digits that differ whenever vectors would: part of any cache key.

        Covers weights (sampled), tokenizer, dtype, recipe, role and instruction; not the options
        of a call (`normalize`, `truncate_dim`, `precision`, `max_length`).
        """
        return self._fingerprints.of(*self._parts, role, instruction)

    def save_pretrained(self, path: str | Path) -> None:
        """Write weights, tokenizer and recipe; `from_pretrained(path)` reads them back.

        Adapters are part of the weights by now. Written last, the recipe marks a whole directory.

        Raises:
            ValueError: adapters lie unmerged on quantised weights.
        """
        from .checkpoint.saving import save

        save(self, Path(path))

    def export_sentence_transformers(self, path: str | Path) -> None:
        """Write a model that plain sentence-transformers loads, without any code of ours.

        Raises:
            ValueError: the recipe needs what native modules cannot do; the message says what.
        """
        from .export.modules import export_sentence_transformers

        export_sentence_transformers(self, Path(path))

    def close(self) -> None:
        """Stop all workers now: calls that wait are cancelled, later ones refused."""
        self.scheduler.close()

    @property
    def _parts(self) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, Recipe]:
        return self.backbone, self.tokenizer, self.recipe
