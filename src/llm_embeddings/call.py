"""One call of the encoder: options checked, texts made into jobs, rows into a result."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .batching import once, units_of, windows
from .calibration import ranges_of
from .engine.job import Job
from .inputs import check_finite, check_options
from .model import rows_of
from .recipe import Role
from .vector_cache.lookup import Remembered
from .vectors import NEEDS_RANGES, Precision, TokenVectors, Vectors, finish, quantize

if TYPE_CHECKING:
    from .encoder import Encoder
    from .tokens import Tokens


OnTexts = Callable[[int], object] | None


class Call:
    """The options of a call, and the way of its texts through the scheduler."""

    def __init__(
        self,
        encoder: Encoder,
        roles: Mapping[Role, str | None],
        *,
        normalize: bool | None = None,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        show_progress: bool = False,
        as_tensor: bool = False,
    ) -> None:
        """Check all but the texts; options as in `Encoder.encode`.

        Args:
            encoder: The encoder that is called.
            roles: Instruction by role; two roles give two vectors from one pass over a text.
            normalize: Unit L2 length.
            truncate_dim: Dimensions to keep.
            precision: Type of the result.
            max_length: Limit in tokens.
            max_batch_tokens: Tokens per pass.
            show_progress: Show a progress bar.
            as_tensor: Return tensors on the encoder's device.

        Raises:
            ValueError: a bad option, or an instruction that does not fit.
        """
        check_options(encoder.dimension, truncate_dim, precision, max_batch_tokens)
        self._encoder, self.roles, self.dimension = encoder, roles, encoder.dimension
        self._normalize = encoder.recipe.normalize if normalize is None else normalize
        self._truncate_dim, self._precision = truncate_dim, precision
        self._max_length, self._limit = max_length, max_batch_tokens
        self._show_progress, self._as_tensor = show_progress, as_tensor
        self._ranges: Vectors | None = None
        if precision in NEEDS_RANGES:
            dim = truncate_dim or encoder.dimension
            self._ranges = ranges_of(encoder, dim, self._normalize)
        self._remembered: Remembered | None = None
        if encoder.vector_cache is not None:
            self._remembered = Remembered(encoder.vector_cache, encoder, roles, max_length)

    def run(self, strings: Sequence[str]) -> NDArray[Any]:
        """Vectors of texts, in order: `[n, roles, dim]`."""
        result = _Result(self, strings)
        with self._progress(len(result.texts)) as on_texts:
            job_of = partial(self._job, on_texts=on_texts)
            for texts, pooled in self._encoder.scheduler.run(windows(result.texts), job_of):
                result.take(texts, pooled)
                self._keep(pooled)
        return result.vectors()

    async def arun(self, strings: Sequence[str]) -> NDArray[Any]:
        """`run` for coroutines; cancelling it frees what has not run."""
        result = _Result(self, strings)
        with self._progress(len(result.texts)) as on_texts:
            job_of = partial(self._job, on_texts=on_texts)
            async for texts, pooled in self._encoder.scheduler.arun(windows(result.texts), job_of):
                result.take(texts, pooled)
                if self._remembered is not None:
                    await asyncio.to_thread(self._keep, pooled)
        return result.vectors()

    def stream(self, strings: Iterable[str], window: int) -> Iterator[NDArray[Any]]:
        """Vectors one by one; while a window runs the next one is read."""
        self.check()
        return self._streamed(strings, window)

    def _streamed(self, strings: Iterable[str], window: int) -> Iterator[NDArray[Any]]:
        first = 0
        with self._progress(None) as on_texts:
            job_of = partial(self._job, on_texts=on_texts)
            for texts, pooled in self._encoder.scheduler.run(windows(strings, window), job_of):
                check_finite(pooled, texts, first.__add__)
                self._keep(pooled)
                yield from self.finish(pooled)
                first += len(texts)

    def run_tokens(self, strings: Sequence[str]) -> list[TokenVectors]:
        """Vectors of the tokens of each text."""
        if not strings:
            self.check()
        found: list[TokenVectors] = []
        rows: deque[Tokens] = deque()

        def job_of(texts: list[str]) -> Job:
            new = self._rows(texts, with_offsets=True)
            rows.extend(new)
            return self._job_of(new, on_texts, pooled=False)

        with self._progress(len(strings)) as on_texts:
            for texts, states in self._encoder.scheduler.run(windows(strings), job_of):
                for text, hidden in zip(texts, states, strict=True):
                    row = rows.popleft()
                    vectors = hidden[row.text_start : row.text_start + len(row.offsets)].copy()
                    check_finite(vectors, [text] * len(vectors), len(found).__add__)
                    offsets = np.array(row.offsets, np.int64).reshape(-1, 2)
                    found.append(TokenVectors(vectors, offsets))
        return found

    def given(self, vectors: NDArray[Any], *, single: bool) -> Any:
        """What the caller gets: one vector or all, an array or a tensor."""
        result = np.ascontiguousarray(vectors[0] if single else vectors)
        if not self._as_tensor:
            return result
        import torch

        return torch.from_numpy(result).to(self._encoder.device)

    def finish(self, pooled: Vectors) -> NDArray[Any]:
        """Pooled states `[n, dim]` as the caller wants them."""
        vectors = finish(pooled, normalize=self._normalize, truncate_dim=self._truncate_dim)
        return quantize(vectors, self._precision, self._ranges)

    def check(self) -> None:
        """Raise what the first text would, before there is one."""
        self._rows([])

    def _job(self, texts: list[str], on_texts: OnTexts) -> Job:
        known: dict[int, Vectors] = {}
        if self._remembered is not None:
            given, (texts, known) = len(texts), self._remembered.look_up(texts)
            if on_texts is not None:
                on_texts(given - len(texts))
        return self._job_of(self._rows(texts), on_texts, pooled=True, known=known)

    def _keep(self, pooled: Vectors) -> None:
        if self._remembered is not None:
            self._remembered.keep(pooled)

    def _job_of(
        self,
        rows: Sequence[Tokens],
        on_texts: OnTexts,
        *,
        pooled: bool,
        known: Mapping[int, Vectors] | None = None,
    ) -> Job:
        runner = self._encoder.scheduler.runner
        units = units_of(
            rows,
            self._encoder.recipe,
            share=runner.packed and pooled,
            alone_above=runner.alone_above,
            siblings=len(self.roles),
        )
        return Job(units, pooled=pooled, limit=self._limit, on_texts=on_texts, known=known)

    def _rows(self, texts: Sequence[str], *, with_offsets: bool = False) -> list[Tokens]:
        """Token ids; the rows of one text follow each other."""
        encoder = self._encoder
        parts = encoder.backbone, encoder.tokenizer, encoder.recipe
        by_role = [
            rows_of(*parts, texts, role, text, self._max_length, with_offsets=with_offsets)
            for role, text in self.roles.items()
        ]
        return [row for rows in zip(*by_role, strict=True) for row in rows]

    @contextmanager
    def _progress(self, total: int | None) -> Iterator[OnTexts]:
        """What jobs call with the number of finished texts."""
        if not self._show_progress:
            yield None
            return
        from tqdm.auto import tqdm

        with tqdm(total=total, unit="text") as bar:
            yield bar.update


class _Result:
    """The array of a call, filled window by window; equal texts are computed once."""

    def __init__(self, call: Call, strings: Sequence[str]) -> None:
        self.texts, self._where = once(strings)
        self._call, self._filled = call, 0
        self._found = np.empty((0, 0))
        if not self.texts:
            call.check()
            self._found = call.finish(np.empty((0, call.dimension), np.float32))

    def take(self, texts: Sequence[str], pooled: Vectors) -> None:
        roles = len(self._call.roles)
        first = self._filled // roles
        check_finite(pooled, texts, lambda text: self._where.index(first + text))
        vectors = self._call.finish(pooled)
        if not self._filled:
            self._found = np.empty((len(self.texts) * roles, vectors.shape[1]), vectors.dtype)
        self._found[self._filled : self._filled + len(vectors)] = vectors
        self._filled += len(vectors)

    def vectors(self) -> NDArray[Any]:
        found = self._found.reshape(-1, len(self._call.roles), self._found.shape[1])
        return found if len(self._where) == len(found) else found[self._where]
