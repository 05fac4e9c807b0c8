"""The other ways through a call: for coroutines, for streams, and for vectors of tokens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .batching import windows
from .call import Begun, Call, OnTexts, Result, in_flight
from .engine.job import Job
from .inputs import check_finite
from .vectors import TokenVectors, Vectors

if TYPE_CHECKING:
    from .tokens import Tokens

_QUICK_CHARACTERS = 8192  # tokenised faster than a thread is woken


class Prepared:
    """Texts that are tokenised and not computed yet; made by `Encoder.prepare`.

    Attributes:
        tokens: How many tokens the model is to be fed for each text.
        cut: How many texts are over the limit.
    """

    def __init__(self, call: Call, strings: Sequence[str]) -> None:
        """Tokenise the texts of a call with one role."""
        self._call, self._strings = call, strings
        rows = call.tokenized(strings)
        self.tokens = [len(row.ids) for row in rows]
        self.cut = sum(row.cut > 0 for row in rows)

    def run(self) -> NDArray[Any]:
        """Vectors `[n, dim]`, as `Encoder.encode` gives them."""
        return np.ascontiguousarray(self._call.run(self._strings)[:, 0])

    async def arun(self) -> NDArray[Any]:
        """Vectors `[n, dim]`, as `Encoder.aencode` gives them."""
        return np.ascontiguousarray((await arun(self._call, self._strings))[:, 0])

    async def atokens(self) -> list[TokenVectors]:
        """Vectors of tokens, as `Encoder.encode_tokens` gives them."""
        result = TokenResult(self._call)
        quick = sum(map(len, self._strings)) < _QUICK_CHARACTERS
        begin = _begin(self._call, quick)
        begun = self._call.begun(windows(self._strings), partial(result.job, None), begin)
        with closing(in_flight(begun)) as flight:
            while (item := await _next(flight, quick)) is not None:
                texts, job = item
                result.take(texts, await asyncio.wrap_future(job.future))
        return result.found


async def arun(call: Call, strings: Sequence[str]) -> NDArray[Any]:
    """`Call.run` for coroutines; cancelling it frees what has not run.

    Long texts are tokenised in a thread.
    """
    result = Result(call, strings)
    quick = sum(map(len, result.texts)) < _QUICK_CHARACTERS
    with call.progress(len(result.texts)) as on_texts:
        job_of = partial(call.job, on_texts)
        begun = call.begun(windows(result.texts), job_of, _begin(call, quick))
        with closing(in_flight(begun)) as flight:
            while (item := await _next(flight, quick)) is not None:
                window, job = item
                pooled = await asyncio.wrap_future(job.future)
                if call.lookup is None:
                    result.take(window, pooled)
                else:
                    await asyncio.to_thread(result.take, window, pooled)
    return result.vectors()


def _begin(call: Call, quick: bool) -> Callable[[Job], None]:
    """Hands in a job, which never runs in the thread of the event loop.

    All coroutines that are ready get to hand in their job before the worker is woken, so that a
    burst of single queries is one pass.
    """
    loop, scheduler = asyncio.get_running_loop(), call.scheduler
    soon = loop.call_soon if quick else loop.call_soon_threadsafe

    def begin(job: Job) -> None:
        scheduler.add(job)
        soon(scheduler.wake)

    return begin


async def _next(flight: Begun, quick: bool) -> tuple[list[str], Job] | None:
    """The next window and its job, or None; unless it is quick, a thread tokenises meanwhile.

    A cancelled call waits for that thread: only a generator that stands still can be closed.
    """
    if quick:
        return next(flight, None)
    step = asyncio.ensure_future(asyncio.to_thread(next, flight, None))
    try:
        return await asyncio.shield(step)
    finally:
        if not step.done():
            while not step.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait((step,))
            step.exception()  # looked at, so that asyncio does not report it


def stream(call: Call, strings: Iterable[str], window: int) -> Iterator[NDArray[Any]]:
    """Vectors one by one; while a window of texts runs the next one is read.

    What can be checked without a text is, before this returns.
    """
    call.check()
    return _streamed(call, strings, window)


def _streamed(call: Call, strings: Iterable[str], size: int) -> Iterator[NDArray[Any]]:
    first = 0
    with call.progress(None) as on_texts:
        begun = call.begun(windows(strings, size), partial(call.job, on_texts))
        with closing(in_flight(begun)) as flight:
            for window, job in flight:
                yield from call.finish(window, job.future.result(), first.__add__)
                first += len(window)


class TokenResult:
    """The vectors of tokens of a call with one role, filled window by window."""

    def __init__(self, call: Call) -> None:
        """Start with none."""
        self.found: list[TokenVectors] = []
        self._call = call
        self._rows: deque[Tokens] = deque()

    def job(self, on_texts: OnTexts, texts: list[str]) -> Job:
        """A job for the next window of texts."""
        new = self._call.rows(texts, with_offsets=True)
        self._rows.extend(new)
        return self._call.job_of(new, on_texts, pooled=False)

    def take(self, texts: Sequence[str], states: Sequence[Vectors]) -> None:
        """Put in the states of a window, `[tokens, dim]` each."""
        for text, hidden in zip(texts, states, strict=True):
            row = self._rows.popleft()
            vectors = hidden[row.text_start : row.text_start + len(row.offsets)].copy()
            check_finite(vectors, [text] * len(vectors), len(self.found).__add__)
            offsets = np.array(row.offsets, np.int64).reshape(-1, 2)
            self.found.append(TokenVectors(vectors, offsets))


def token_vectors(call: Call, strings: Sequence[str]) -> list[TokenVectors]:
    """Vectors of the tokens of each text; the call has one role."""
    if not strings:
        call.check()
    result = TokenResult(call)
    with call.progress(len(strings)) as on_texts:
        begun = call.begun(windows(strings), partial(result.job, on_texts))
        with closing(in_flight(begun)) as flight:
            for texts, job in flight:
                result.take(texts, job.future.result())
    return result.found
