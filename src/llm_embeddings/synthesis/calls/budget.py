"""Limits on tokens and money, kept exactly with any number of calls under way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimits:
    """What a run may use; None = no limit.

    Attributes:
        tokens: Most tokens of prompts and replies together.
        money: Most money, in the currency of the prices.
        price_in: Price of a million tokens of prompts.
        price_out: Price of a million tokens of replies.
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
        """The price of some tokens of prompts and of replies."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


class Spent(Exception):
    """The budget has no room for another call."""


class Budget:
    """Counts what calls use. Each call first reserves the most it can use, so the limits hold.

    A call that finds no room waits for those under way, which mostly use less than they reserved.

    Attributes:
        limits: What may be used.
        tokens_in: Tokens of prompts so far.
        tokens_out: Tokens of replies so far.
    """

    def __init__(self, limits: BudgetLimits, tokens_in: int = 0, tokens_out: int = 0) -> None:
        """Start with what earlier parts of a run have used."""
        self.limits = limits
        self.tokens_in, self.tokens_out = tokens_in, tokens_out
        self._reserved_in = self._reserved_out = 0
        self._changed = asyncio.Condition()

    @property
    def cost(self) -> float:
        """The money used so far."""
        return self.limits.cost(self.tokens_in, self.tokens_out)

    async def reserve(self, tokens_in: int, tokens_out: int) -> None:
        """Reserve tokens for a call, waiting if those are reserved by other calls.

        Raises:
            Spent: they exceed the limits, and no call is under way that could leave some.
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
        """End a call: free what it reserved and count what it used, in tokens (in, out)."""
        async with self._changed:
            self._reserved_in -= reserved[0]
            self._reserved_out -= reserved[1]
            self.tokens_in += used[0]
            self.tokens_out += used[1]
            self._changed.notify_all()

    def _fits(self, tokens_in: int, tokens_out: int) -> bool:
        """Whether the limits allow these tokens beside those used and reserved."""
        into = self.tokens_in + self._reserved_in + tokens_in
        out = self.tokens_out + self._reserved_out + tokens_out
        limits = self.limits
        enough = limits.tokens is None or into + out <= limits.tokens
        return enough and (limits.money is None or limits.cost(into, out) <= limits.money)
