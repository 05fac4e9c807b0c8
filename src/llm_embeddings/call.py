"""One call of the encoder: texts made into jobs, windows of them in flight, rows into a result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .arithmetic.precision import quantize
from .batching import once, units_of, windows
from .engine.job import Job
from .inputs import EncodeOptions, check_finite
from .vectors import Vectors, finish

if TYPE_CHECKING:
    from .engine.scheduler import Scheduler
    from .model import Model
    from .tokens import Tokens
    from .vector_cache.lookup import Lookup

OnTexts = Callable[[int], object] | None
Begun = Generator[tuple[list[str], Job], None, None]


class Call:
    """One call: its options, and the steps that take its texts through the scheduler."""

    def __init__(
        self,
        model: Model,
        scheduler: Scheduler,
        roles: Mapping[str, str | None],
        options: EncodeOptions,
        *,
        ranges: Vectors | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        """Keep what the methods need; nothing runs yet.

        Args:
            model: What texts are embedded by.
            scheduler: What runs it.
            roles: Instruction by role or prompt; two give two vectors from one pass over a text.
            options: As in `Encoder.encode`, checked.
            ranges: `[2, dim]`: lowest and highest value per dimension, for int8 and uint8.
            lookup: Finds vectors in the cache and keeps new ones there; None = no cache.
        """
        self.model, self.scheduler, self._options = model, scheduler, options
        self.roles = roles
        self._normalize = model.recipe.normalize if options.normalize is None else options.normalize
        self._ranges, self.lookup = ranges, lookup
        self._kept: dict[str, list[Tokens]] = {}

    def run(self, strings: Sequence[str]) -> NDArray[Any]:
        """Vectors of texts, in order: `[n, roles, dim]`.

        Raises:
            ValueError: an instruction that does not fit, or a vector that is not finite.
        """
        result = Result(self, strings)
        with self.progress(len(result.texts)) as on_texts:
            begun = self.begun(windows(result.texts), partial(self.job, on_texts))
            with closing(in_flight(begun)) as flight:
                for window, job in flight:
                    result.take(window, job.future.result())
        return result.vectors()

    def check(self) -> None:
        """Raise what a bad instruction or limit raises, without any text."""
        self.rows([])

    def finish(
        self, texts: Sequence[str], pooled: Vectors, index_of: Callable[[int], int]
    ) -> NDArray[Any]:
        """Pooled states `[n, dim]` of texts, checked and kept, as the caller wants them.

        `index_of` gives for `i` the index of `texts[i]` among all texts of the call.
        """
        check_finite(pooled, texts, index_of)
        if self.lookup is not None and len(texts):
            self.lookup.keep(pooled)
        options = self._options
        vectors = finish(pooled, normalize=self._normalize, truncate_dim=options.truncate_dim)
        if options.precision == "float32":
            return vectors
        return quantize(vectors, options.precision, self._ranges)

    def begun(
        self,
        all_windows: Iterable[list[str]],
        job_of: Callable[[list[str]], Job],
        begin: Callable[[Job], None] | None = None,
    ) -> Begun:
        """Each window and its job, once `begin` has taken that on (None = `Scheduler.start`).

        What is raised while a job is made becomes a failed job: earlier results come first.
        """
        source = iter(all_windows)
        begin = begin or self.scheduler.start
        while True:
            try:
                window = next(source)
                job = job_of(window)
            except StopIteration:
                return
            except Exception as error:
                failed = Job(())
                failed.fail(error)
                yield [], failed
                return
            begin(job)
            yield window, job

    def job(self, on_texts: OnTexts, texts: list[str]) -> Job:
        """A job for the texts; vectors that are in the cache are not computed."""
        known: dict[int, Vectors] = {}
        if self.lookup is not None:
            given, (texts, known) = len(texts), self.lookup.look_up(texts)
            if on_texts is not None:
                on_texts(given - len(texts))
        return self.job_of(self.rows(texts), on_texts, pooled=True, known=known)

    def job_of(
        self,
        rows: Sequence[Tokens],
        on_texts: OnTexts,
        *,
        pooled: bool,
        known: Mapping[int, Vectors] | None = None,
    ) -> Job:
        """Rows as a job; `known` as for `Job`."""
        runner = self.scheduler.runner
        units = units_of(
            rows,
            self.model.recipe,
            share=runner.packed and pooled,
            alone_above=runner.alone_above,
            siblings=len(self.roles),
        )
        limit = self._options.max_batch_tokens
        return Job(units, pooled=pooled, limit=limit, on_texts=on_texts, known=known)

    def tokenized(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of all texts, which are not made again when the call runs."""
        different, places = once(texts)
        rows, roles = self.rows(different), len(self.roles)
        by_text = [rows[first : first + roles] for first in range(0, len(rows), roles)]
        self._kept = dict(zip(different, by_text, strict=True))
        return [row for place in places for row in by_text[place]]

    def rows(self, texts: Sequence[str], *, with_offsets: bool = False) -> list[Tokens]:
        """Token ids; the rows of one text follow each other."""
        if self._kept and not with_offsets:
            return [row for text in texts for row in self._kept[text]]
        limit = self._options.max_length
        by_role = [
            self.model.rows(texts, role, instruction, limit, with_offsets=with_offsets)
            for role, instruction in self.roles.items()
        ]
        return [row for rows in zip(*by_role, strict=True) for row in rows]

    @contextmanager
    def progress(self, total: int | None) -> Iterator[OnTexts]:
        """What jobs call with the number of finished texts."""
        if not self._options.show_progress:
            yield None
            return
        from tqdm.auto import tqdm

        with tqdm(total=total, unit="text") as bar:
            yield bar.update


class Result:
    """The array of a call, filled window by window; equal texts are computed once."""

    def __init__(self, call: Call, strings: Sequence[str]) -> None:
        """Make room for the vectors of these texts."""
        self.texts, self._places = once(strings)
        self._call, self._filled = call, 0
        self._found = np.empty((0, 0))
        if not self.texts:
            call.check()
            nothing = np.empty((0, call.model.dimension), np.float32)
            self._found = call.finish((), nothing, int)

    def take(self, texts: Sequence[str], pooled: Vectors) -> None:
        """Put in the pooled states of the next window."""
        roles = len(self._call.roles)
        first = self._filled // roles
        vectors = self._call.finish(texts, pooled, lambda text: self._places.index(first + text))
        if not self._filled:
            self._found = np.empty((len(self.texts) * roles, vectors.shape[1]), vectors.dtype)
        self._found[self._filled : self._filled + len(vectors)] = vectors
        self._filled += len(vectors)

    def vectors(self) -> NDArray[Any]:
        """`[n, roles, dim]`, in the order of the texts given."""
        found = self._found.reshape(-1, len(self._call.roles), self._found.shape[1])
        return found if len(self._places) == len(found) else found[self._places]


def in_flight(begun: Begun) -> Begun:
    """Each window and its job, given once the next one has been tokenised and begun.

    If the caller stops early, the jobs that are left are cancelled.
    """
    waiting: deque[tuple[list[str], Job]] = deque()
    try:
        for item in begun:
            waiting.append(item)
            if len(waiting) > 1:
                yield waiting[0]
                waiting.popleft()
        while waiting:
            yield waiting[0]
            waiting.popleft()
    finally:
        for _, job in waiting:
            job.future.cancel()
