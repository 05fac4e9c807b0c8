"""Many prompts to one endpoint: concurrency, waiting, repetitions, and counting of tokens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .budget import Budget, Spent
from .generators import Prompt, Rejected, Reply, TextGenerator, Unavailable
from .journal import Journal
from .parsing import ReplyError

# Reasons for which a prompt has no usable answer, beside those in `parsing`.
TIMEOUT, RATE_LIMIT, UNREACHABLE, REJECTED = "timeout", "rate limit", "unreachable", "rejected"
_FIRST_RETRIES = 1  # of the first call of a run: a wrong address should show at once
_BYTES_PER_TOKEN = 3  # assumed if the endpoint does not count tokens; English has about 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How an endpoint is treated.

    Attributes:
        concurrency: How many calls may be under way at once.
        per_minute: How many calls may begin in a minute; None = no limit.
        timeout: Seconds after which a call counts as failed.
        retries: How often a call without an answer is repeated.
        asks: How often a prompt is asked, the first time included, until its answer can be used.
        backoff: Seconds before the first repetition; doubled before each further one.
        longest_wait: Most seconds between repetitions, unless the endpoint asks for more.
        give_up: Failures in a row after which the run stops.
    """

    concurrency: int = 16
    per_minute: float | None = None
    timeout: float = 120.0
    retries: int = 6
    asks: int = 2
    backoff: float = 1.0
    longest_wait: float = 60.0
    give_up: int = 25

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one that cannot be.
        """
        for name, least in (("concurrency", 1), ("retries", 0), ("asks", 1), ("give_up", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be {least} or more")
        for name in ("per_minute", "timeout", "backoff", "longest_wait"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value} must be above 0")


@dataclass(frozen=True, slots=True)
class PromptJob:
    """One prompt, and how its answer is read.

    Attributes:
        kind: Kind of the line that is written into the journal.
        number: Number within its kind.
        prompt: The prompt.
        parse: Reply -> value; raises `ReplyError` if the reply cannot be used.
        about: Further entries of the journal's line.
    """

    kind: str
    number: int
    prompt: Prompt
    parse: Callable[[Reply], Any]
    about: Mapping[str, Any] = field(default_factory=dict)


class Stopped(Exception):
    """The run stopped early; what it has made is kept."""


class OutOfBudget(Stopped):
    """The run stopped because its budget is spent."""


@dataclass(slots=True)
class _Outcome:
    """What came of a prompt so far: a value, or the reason why there is none, and the costs."""

    value: Any = None
    reason: str = ""
    detail: str = ""
    final: bool = True
    tokens_in: int = 0
    tokens_out: int = 0
    calls: int = 0


class Asker:
    """Asks a language model for the values of jobs, and notes them in a journal."""

    def __init__(
        self,
        generator: TextGenerator,
        journal: Journal,
        budget: Budget,
        manners: Manners,
        max_reply_tokens: int,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        """Hold the parts of a run.

        Args:
            generator: The language model.
            journal: Where outcomes are noted.
            budget: What may be used.
            manners: How the endpoint is treated.
            max_reply_tokens: The most tokens of a reply.
            watch: Called after every job.
        """
        self._generator, self._journal = generator, journal
        self._budget, self._manners, self._watch = budget, manners, watch
        self._longest = max_reply_tokens
        self._resume_at = self._next_slot = 0.0
        self._in_a_row = 0
        self._answered = False
        self._stopped: Stopped | None = None

    async def ask_all(self, jobs: Iterable[PromptJob]) -> None:
        """Ask all prompts that have no final outcome yet.

        The first call of a run is made alone, so that a wrong key or address shows before others.

        Raises:
            Stopped: the budget is spent, or the endpoint fails; the message says which.
            ValueError: the endpoint will never answer: a wrong key, model or address.
        """
        waiting = (job for job in jobs if not self._journal.is_final(job.kind, job.number))
        if not self._answered and (first := next(waiting, None)):
            await self._settle(first)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._manners.concurrency):
                    group.create_task(self._work(waiting))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        if self._stopped is not None:
            raise self._stopped

    async def _work(self, waiting: Iterator[PromptJob]) -> None:
        """Settle one job after the other, until there is none or the run stops."""
        while self._stopped is None and (job := next(waiting, None)):
            await self._settle(job)

    async def _settle(self, job: PromptJob) -> None:
        """Ask a prompt until it has a value or has failed, and note the outcome.

        Raises:
            ValueError: the endpoint does not answer the first call of the run.
        """
        outcome = _Outcome()
        try:
            await self._pursue(job, outcome)
        except Spent as spent:
            if outcome.calls:  # what was paid for is noted
                outcome.reason, outcome.final = outcome.reason or UNREACHABLE, False
                self._note(job, outcome)
            self._stopped = OutOfBudget(f"the budget has no room for another call: {spent}")
            return
        self._note(job, outcome)
        self._in_a_row = 0 if outcome.value is not None else self._in_a_row + 1
        if not self._answered and outcome.reason in (UNREACHABLE, TIMEOUT):
            raise ValueError(f"{self._generator.name} does not answer: {outcome.detail}")
        self._answered = True
        if self._in_a_row >= self._manners.give_up:
            self._stopped = Stopped(
                f"{self._in_a_row} failures in a row; the last: {outcome.reason}, {outcome.detail}"
            )

    async def _pursue(self, job: PromptJob, outcome: _Outcome) -> None:
        """Ask a prompt, repeatedly if need be, and fill in its outcome."""
        asks, failed = 0, 0
        retries = self._manners.retries if self._answered else _FIRST_RETRIES
        while asks < self._manners.asks:
            try:
                reply = await self._call(job.prompt, outcome)
            except Rejected as error:
                outcome.reason, outcome.detail = REJECTED, str(error)
                return
            except Unavailable as error:
                failed += 1
                outcome.reason = RATE_LIMIT if error.limited else UNREACHABLE
                outcome.reason = TIMEOUT if isinstance(error, _Late) else outcome.reason
                outcome.detail = str(error)
                # A rate limit shows that the endpoint works: it gets all retries.
                allowed = self._manners.retries if error.limited else retries
                if failed > allowed or self._stopped:
                    outcome.final = False
                    return
                await self._back_off(failed, error)
                continue
            asks += 1
            try:
                outcome.value = job.parse(reply)
            except ReplyError as error:
                outcome.reason, outcome.detail = error.reason, str(error)
                continue
            outcome.reason = outcome.detail = ""
            return

    async def _call(self, prompt: Prompt, outcome: _Outcome) -> Reply:
        """Make one call within the budget, and add its tokens to the outcome.

        Raises:
            Spent: the budget has no room for it.
            Unavailable: no answer now, or none in time.
            Rejected: no answer to this prompt.
        """
        size = len(prompt.text.encode("utf-8", "replace"))
        reserved = size, self._longest  # no tokenizer makes more tokens than there are bytes
        await self._budget.reserve(*reserved)
        used = 0, 0
        try:
            await self._wait_for_slot()
            outcome.calls += 1
            try:
                async with asyncio.timeout(self._manners.timeout):
                    reply = await self._generator(prompt)
            except TimeoutError as error:
                used = size // _BYTES_PER_TOKEN, self._longest  # may be billed in full
                raise _Late(f"no answer in {self._manners.timeout:g} s") from error
            used = (
                size // _BYTES_PER_TOKEN if reply.tokens_in is None else reply.tokens_in,
                len(reply.text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN
                if reply.tokens_out is None
                else reply.tokens_out,
            )
            return reply
        finally:
            outcome.tokens_in += used[0]
            outcome.tokens_out += used[1]
            await self._budget.settle(reserved, used)

    async def _wait_for_slot(self) -> None:
        """Wait until the endpoint's rate limit is over and a call may begin by `per_minute`."""
        clock = asyncio.get_running_loop()
        while (pause := self._resume_at - clock.time()) > 0:
            await asyncio.sleep(pause)
        if self._manners.per_minute is not None:
            slot = max(self._next_slot, clock.time())
            self._next_slot = slot + 60 / self._manners.per_minute
            await asyncio.sleep(slot - clock.time())

    async def _back_off(self, failed: int, error: Unavailable) -> None:
        """Wait, longer after each failure; after a rate limit, make all calls wait."""
        manners = self._manners
        wait = min(manners.backoff * 2 ** (failed - 1), manners.longest_wait)
        wait *= random.uniform(0.5, 1)  # calls that failed together do not come back together
        if not error.limited:
            await asyncio.sleep(wait)
            return
        until = asyncio.get_running_loop().time() + (wait if error.after is None else error.after)
        self._resume_at = max(self._resume_at, until)

    def _note(self, job: PromptJob, outcome: _Outcome) -> None:
        """Write an outcome into the journal."""
        line = {"kind": job.kind, "number": job.number, **job.about, "value": outcome.value}
        if outcome.value is None:
            line |= {"reason": outcome.reason, "detail": outcome.detail[:300]}
        line |= {"final": outcome.final, "calls": outcome.calls}
        self._journal.note(
            line | {"tokens_in": outcome.tokens_in, "tokens_out": outcome.tokens_out}
        )
        self._watch()


class _Late(Unavailable):
    """The endpoint did not answer in time."""


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group of workers; the others fail for the same reason."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
