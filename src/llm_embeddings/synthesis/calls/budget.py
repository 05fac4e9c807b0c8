"""Limits on tokens and money that a run stays within, however many calls are under way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run may use; None = no limit.

    Attributes:
        tokens: Of prompts and replies together.
        money: In the currency of the prices.
        price_in: Of a million tokens of prompts.
        price_out: Of a million tokens of replies.
    """

    tokens: int | None = None
    money: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a limit that leaves nothing, or money without prices.
        """
        for name in ("tokens", "money"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"a budget of {value} {name} leaves nothing to do: raise it")
        if min(self.price_in, self.price_out) < 0:
            raise ValueError(f"prices {self.price_in}, {self.price_out}: none is below 0")
        if self.money is not None and not (self.price_in or self.price_out):
            raise ValueError(
                f"a budget of {self.money} in money needs the prices of a million tokens, in and "
                "out, by your provider's list"
            )

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """The price of some tokens."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


class Spent(Exception):
    """The budget has no room for another call."""


class Budget:
    """Counts what calls use. Each reserves its worst case first, so the limits hold exactly.

    A call that finds no room waits for those under way, which mostly use less than they reserved.

    Attributes:
        tokens_in: Used by prompts so far.
        tokens_out: Used by replies so far.
    """

    def __init__(self, limits: Limits, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Start with what earlier parts of a run have used."""
        self.limits = limits
        self.tokens_in, self.tokens_out = tokens_in, tokens_out
        self._reserved_in = self._reserved_out = 0
        self._changed = asyncio.Condition()

    @property
    def cost(self) -> float:
        """Used so far, in money."""
        return self.limits.cost(self.tokens_in, self.tokens_out)

    async def reserve(self, tokens_in: int, tokens_out: int) -> None:
        """Take room for a call.

        Raises:
            Spent: there is none, and no call is under way that could leave some.
        """
        async with self._changed:
            while not self._fits(tokens_in, tokens_out):
                if not (self._reserved_in or self._reserved_out):
                    raise Spent(
                        f"{self.tokens_in + self.tokens_out:,} tokens are used, and one call may "
                        f"need {tokens_in + tokens_out:,}"
                    )
                await self._changed.wait()
            self._reserved_in += tokens_in
            self._reserved_out += tokens_out

    async def settle(self, reserved: tuple[int, int], used: tuple[int, int]) -> None:
        """Give a call's room back, and count what it used."""
        async with self._changed:
            self._reserved_in -= reserved[0]
            self._reserved_out -= reserved[1]
            self.tokens_in += used[0]
            self.tokens_out += used[1]
            self._changed.notify_all()

    def _fits(self, tokens_in: int, tokens_out: int) -> bool:
        into = self.tokens_in + self._reserved_in + tokens_in
        out = self.tokens_out + self._reserved_out + tokens_out
        limits = self.limits
        enough = limits.tokens is None or into + out <= limits.tokens
        return enough and (limits.money is None or limits.cost(into, out) <= limits.money)
