"""Encoder: the map from text to vector. Each line of `encode` calls one leaf file and comes back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from .batching import plan
from .recipe import Recipe, Role
from .tokens import Tokens, tokenize
from .vectors import NEEDS_RANGES, Precision, Vectors, check_precision, cosine, finish, quantize

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

BUNDLED_MODEL = Path(__file__).parent / "data" / "small"


class EncodeOptions(TypedDict, total=False):
    """The keyword options of `Encoder.encode`, for the methods that pass them on."""

    normalize: bool | None
    truncate_dim: int | None
    precision: Precision
    max_length: int | None
    max_batch_tokens: int | None
    show_progress: bool
    as_tensor: bool


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """Vectors of the tokens of one text.

    Attributes:
        vectors: `[tokens, dim]`, float32: hidden states after the final norm, not normalised.
        offsets: `[tokens, 2]`, int64: character range of each token in the text.
    """

    vectors: Vectors
    offsets: NDArray[np.int64]


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
    """

    def __init__(
        self, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, recipe: Recipe
    ) -> None:
        """Wrap a loaded backbone: sets its attention direction, checks it, and keeps it.

        Raises:
            ValueError: backbone, tokenizer and recipe do not go together.
        """
        from .loading import prepare

        prepare(backbone, tokenizer, recipe)
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.recipe = recipe
        self.ranges: dict[tuple[int, bool], Vectors] = {}

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        recipe: Recipe | str | None = None,
        adapters: Sequence[str | Path] | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        attn_implementation: str | None = None,
        quantization: Any = None,
        device_map: str | Mapping[str, Any] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
    ) -> Encoder:
        """Load a checkpoint.

        Args:
            model: Hub id or local directory; None is the small model in this package.
            recipe: A `Recipe`, or a name from `list_recipes()`. None = the one saved beside the
                weights, listed under the hub id, or recognised from the files.
            adapters: LoRA adapters to apply on top, in order. An adapter repository named as
                `model` brings its own base and the stages before it.
            device: None = CUDA, Apple's GPU or the CPU, whichever there is.
            dtype: "auto" = the checkpoint's; on a CPU bfloat16 where it is native, else float32.
            attn_implementation: As in transformers.
            quantization: A transformers quantization config.
            device_map: As in transformers; overrides `device`.
            revision: Branch, tag or commit of `model`.
            token: Hub token.
            cache_dir: Hub cache.
            local_files_only: Never ask the network.
            trust_remote_code: Run code from the repository; no listed checkpoint needs it.

        Raises:
            FileNotFoundError: a directory, repository, base or weight file is missing.
            ValueError: anything else that does not fit; the message names it and the remedy.
        """
        from .files import Source
        from .loading import LoadOptions, load

        loaded = load(
            str(BUNDLED_MODEL if model is None else model),
            recipe,
            adapters or (),
            Source(revision, token, cache_dir, local_files_only),
            LoadOptions(
                device, dtype, attn_implementation, quantization, device_map, trust_remote_code
            ),
        )
        encoder = cls(loaded.backbone, loaded.tokenizer, loaded.recipe)
        encoder.ranges = loaded.ranges
        return encoder

    @property
    def dimension(self) -> int:
        """Length of a full vector."""
        return int(self.backbone.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Default limit in tokens, in the recipe's meaning, within the backbone's positions."""
        return min(self.recipe.max_length, self._positions)

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
        normalize: bool | None = None,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        show_progress: bool = False,
        as_tensor: Literal[False] = False,
    ) -> NDArray[Any]: ...

    @overload
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
        as_tensor: Literal[True],
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
            max_batch_tokens: Padded tokens per forward pass; None = 2048 on a CPU, else 16384.
            show_progress: Show a progress bar.
            as_tensor: Return a torch tensor on `self.device` instead of a NumPy array.

        Returns:
            `[dim]` for one string, `[n, dim]` for many (`[0, dim]` for none); float32 unless
            `precision` says otherwise.

        Raises:
            TypeError: a text is not a string (the message gives its index).
            ValueError: a bad option, an instruction that does not fit, or a vector that is not
                finite (the message names the text).
        """
        strings, single = check_texts(texts)
        normalize = self._check_options(normalize, truncate_dim, precision, max_batch_tokens)
        rows = self._rows(strings, role, instruction, max_length)
        pooled = np.empty((len(rows), self.dimension), np.float32)
        for batch in self._batches(rows, max_batch_tokens, show_progress):
            pooled[batch] = self._embed([rows[index] for index in batch])
            _check_finite(pooled[batch], batch, strings)
        vectors = finish(pooled, normalize=normalize, truncate_dim=truncate_dim)
        ranges = self._ranges(vectors.shape[1], normalize) if precision in NEEDS_RANGES else None
        result = quantize(vectors, precision, ranges)
        if not as_tensor:
            return result[0] if single else result
        import torch

        return torch.from_numpy(result[0] if single else result).to(self.device)

    def encode_query(
        self,
        texts: str | Iterable[str],
        instruction: str | None = None,
        **options: Unpack[EncodeOptions],
    ) -> Any:
        """`encode` with role "query": what to call for search queries."""
        return self.encode(texts, "query", instruction, **options)  # type: ignore[call-overload]

    def encode_document(
        self,
        texts: str | Iterable[str],
        instruction: str | None = None,
        **options: Unpack[EncodeOptions],
    ) -> Any:
        """`encode` with role "document": what to call for the passages to be found."""
        return self.encode(texts, "document", instruction, **options)  # type: ignore[call-overload]

    async def aencode(
        self,
        texts: str | Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        **options: Unpack[EncodeOptions],
    ) -> Any:
        """`encode` in a thread, so that an event loop goes on meanwhile."""
        import asyncio

        call: Any = self.encode
        return await asyncio.to_thread(call, texts, role, instruction, **options)

    def iter_encode(
        self,
        texts: Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        window: int = 1024,
        **options: Unpack[EncodeOptions],
    ) -> Iterator[Any]:
        """Vectors of a stream, one by one and in order, in bounded memory.

        Args:
            texts: Any iterable; `window` of its texts are read ahead and run together.
            role: As in `encode`.
            instruction: As in `encode`.
            window: Texts per round.
            **options: As in `encode`.

        Raises:
            TypeError: `texts` is one string, an unknown option, or a text that is not a string.
            ValueError: as in `encode`, before the stream is touched.
        """
        if isinstance(texts, str | bytes):
            raise TypeError("iter_encode takes an iterable of strings; encode takes a single one")
        if not isinstance(window, int) or window < 1:
            raise ValueError(f"window={window!r} must be 1 or more")
        call: Any = self.encode
        call([], role, instruction, **options)

        def stream() -> Iterator[Any]:
            source = enumerate(texts)
            while chunk := list(itertools.islice(source, window)):
                first = chunk[0][0]
                yield from call(
                    check_texts([text for _, text in chunk], first)[0], role, instruction, **options
                )

        return stream()

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

        For late chunking (embed a whole document, pool each chunk's tokens) and word-level tasks.
        The text stands in its role's template; only its own tokens are returned. It is only ever cut
        at its end: LLM2Vec's word limit and separator play no part here.

        Returns:
            A `TokenVectors` for one string, a list of them for many.
        """
        strings, single = check_texts(texts)
        self._check_options(None, None, "float32", max_batch_tokens)
        rows = self._rows(strings, role, instruction, max_length, with_offsets=True)
        found: dict[int, TokenVectors] = {}
        for batch in self._batches(rows, max_batch_tokens, show_progress):
            for index, hidden in zip(batch, self._hidden([rows[i] for i in batch]), strict=True):
                row = rows[index]
                vectors = hidden[row.text_start : row.text_start + len(row.offsets)]
                _check_finite(vectors, [index] * len(vectors), strings)
                offsets = np.array(row.offsets, np.int64).reshape(-1, 2)
                found[index] = TokenVectors(vectors, offsets)
        return found[0] if single else [found[index] for index in range(len(rows))]

    def similarity(self, a: Any, b: Any) -> Vectors:
        """Cosine similarity of every row of `a` with every row of `b`: `[n, m]`, float32.

        Takes arrays and tensors; a single vector counts as one row.
        """
        return cosine(a, b)

    def tokenize(
        self, texts: str | Iterable[str], role: Role = "document", instruction: str | None = None
    ) -> list[list[int]]:
        """Exactly the token ids the backbone is fed, one list per text."""
        strings, _ = check_texts(texts)
        return [row.ids for row in self._rows(strings, role, instruction, None)]

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
        vectors = self.encode(
            texts, role, instruction, normalize=normalize, truncate_dim=truncate_dim
        )
        self._keep_ranges(np.atleast_2d(vectors), normalize, margin=0.0)

    def fingerprint(self, role: Role = "document", instruction: str | None = None) -> str:
        """32 hex digits that differ whenever vectors would: part of any cache key.

        Covers weights (sampled), tokenizer, dtype, recipe, role and instruction; not the options
        of a call (`normalize`, `truncate_dim`, `precision`, `max_length`).
        """
        from .fingerprint import fingerprint

        return fingerprint(self.backbone, self.tokenizer, self.recipe, role, instruction)

    def save_pretrained(self, path: str | Path) -> None:
        """Write weights, tokenizer and recipe; `from_pretrained(path)` reads them back.

        Adapters are part of the weights by now. Written last, the recipe marks a whole directory.

        Raises:
            ValueError: adapters lie unmerged on quantised weights.
        """
        from .saving import save

        save(self, Path(path))

    def export_sentence_transformers(self, path: str | Path) -> None:
        """Write a model that plain sentence-transformers loads, without any code of ours.

        Raises:
            ValueError: the recipe needs what native modules cannot do; the message says what.
        """
        from .export import export_sentence_transformers

        export_sentence_transformers(self, Path(path))

    @property
    def _positions(self) -> int:
        return int(getattr(self.backbone.config, "max_position_embeddings", None) or 2**31)

    def _check_options(
        self,
        normalize: bool | None,
        truncate_dim: int | None,
        precision: str,
        max_batch_tokens: int | None,
    ) -> bool:
        """Check what can be checked before work starts; returns the effective `normalize`."""
        check_precision(precision)
        if truncate_dim is not None and not 1 <= truncate_dim <= self.dimension:
            raise ValueError(
                f"truncate_dim={truncate_dim} is not between 1 and the dimension {self.dimension}"
            )
        if max_batch_tokens is not None and max_batch_tokens < 1:
            raise ValueError(f"max_batch_tokens={max_batch_tokens} must be 1 or more")
        return self.recipe.normalize if normalize is None else bool(normalize)

    def _rows(
        self,
        texts: Sequence[str],
        role: Role,
        instruction: str | None,
        max_length: int | None,
        *,
        with_offsets: bool = False,
    ) -> list[Tokens]:
        if max_length is not None and not 1 <= max_length <= self._positions:
            raise ValueError(
                f"max_length={max_length} is not between 1 and the {self._positions} positions of "
                "this model"
            )
        rows = tokenize(
            self.tokenizer,
            self.recipe,
            texts,
            role,
            instruction,
            self.max_length if max_length is None else max_length,
            with_offsets=with_offsets,
        )
        longest = max((len(row.ids) for row in rows), default=0)
        if longest > self._positions:
            raise ValueError(
                f"text and prompt take {longest} tokens, this model has {self._positions} "
                "positions: lower max_length"
            )
        return rows

    def _batches(
        self, rows: Sequence[Tokens], max_batch_tokens: int | None, show_progress: bool
    ) -> Iterator[list[int]]:
        from tqdm.auto import tqdm

        budget = max_batch_tokens or (2048 if self.device.type == "cpu" else 16384)
        with tqdm(total=len(rows), unit="text", disable=not show_progress) as bar:
            for batch in plan([len(row.ids) for row in rows], budget):
                yield batch
                bar.update(len(batch))

    def _embed(self, rows: Sequence[Tokens]) -> Vectors:
        """Pooled vectors `[n, dim]` of one batch."""
        import torch

        from .pooling import embed, pad

        with torch.inference_mode():
            ids, lengths = pad([row.ids for row in rows], self.device)
            starts = torch.tensor([row.start for row in rows], device=self.device)
            return embed(self.backbone, self.recipe, ids, starts, lengths).cpu().numpy()

    def _hidden(self, rows: Sequence[Tokens]) -> Vectors:
        """Hidden states `[n, longest, dim]` of one batch."""
        import torch

        from .pooling import forward, pad

        with torch.inference_mode():
            ids, lengths = pad([row.ids for row in rows], self.device)
            return forward(self.backbone, self.recipe, ids, lengths).float().cpu().numpy()

    def _ranges(self, dim: int, normalize: bool) -> Vectors:
        """Stored ranges, measured on this package's passages the first time they are needed."""
        if (dim, normalize) not in self.ranges:
            from .corpus import calibration_texts

            queries, documents = calibration_texts()
            options: EncodeOptions = {"normalize": normalize, "truncate_dim": dim}
            vectors = [self.encode_query(queries, **options), self.encode(documents, **options)]
            self._keep_ranges(np.concatenate(vectors), normalize, margin=0.25)
        return self.ranges[dim, normalize]

    def _keep_ranges(self, vectors: Vectors, normalize: bool | None, *, margin: float) -> None:
        from .vectors import measure_ranges

        effective = self.recipe.normalize if normalize is None else normalize
        self.ranges[vectors.shape[1], effective] = measure_ranges(vectors, margin)


def check_texts(texts: Any, first: int = 0) -> tuple[list[str], bool]:
    """A list of strings, and whether one string was given.

    Raises:
        TypeError: not a string or an iterable of strings; `first` is the index of the first.
    """
    if isinstance(texts, str):
        return [texts], True
    if texts is None or isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise TypeError(f"texts must be a string or strings, not {type(texts).__name__}")
    strings = list(texts)
    for index, text in enumerate(strings, first):
        if not isinstance(text, str):
            raise TypeError(f"texts[{index}] is {type(text).__name__}, not a string: {text!r:.80}")
    return strings, False


def _check_finite(vectors: Vectors, indices: Sequence[int], texts: Sequence[str]) -> None:
    finite = np.isfinite(vectors).all(1)
    if not finite.all():
        index = indices[int(np.argmin(finite))]
        raise ValueError(
            f"the model gave a vector that is not finite for texts[{index}] ({texts[index]!r:.80}): "
            "try dtype='float32' or 'bfloat16'"
        )
