"""Which texts run together and which tokens they share. Knows ids and lengths, no tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from .recipe import Recipe

if TYPE_CHECKING:
    from .tokens import Tokens

_WINDOW_TEXTS, _WINDOW_CHARACTERS = 1024, 2**20
_MIN_SHARED, _MIN_SAVED = 8, 64  # tokens: of a shared prefix, saved by a longer one


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that run in one pass: a single row, or one text's rows for both roles.

    Attributes:
        rows: Token ids.
        places: Index of each row in its call.
        shared: First ids of all its rows, run once per pass for all units that share them.
        keep: Whether the states of `shared` are worth keeping for later passes.
        alone: Nothing else may run in the same pass.
        tokens: How many are computed; without kept ones, which are there most of the time.
        longest: Tokens of the longest row, shared ones included.
    """

    rows: tuple[Tokens, ...]
    places: tuple[int, ...]
    shared: tuple[int, ...]
    keep: bool
    alone: bool
    tokens: int
    longest: int


def once(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """Each different text once, and where each given text is among them."""
    places: dict[str, int] = {}
    where = [places.setdefault(text, len(places)) for text in texts]
    return list(places), where


def windows(texts: Iterable[str], size: int = _WINDOW_TEXTS) -> Iterator[list[str]]:
    """Lists of up to `size` texts or a million characters; read as they are asked for."""
    window: list[str] = []
    characters = 0
    for text in texts:
        window.append(text)
        characters += len(text)
        if len(window) == size or characters >= _WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def units_of(
    rows: Sequence[Tokens], recipe: Recipe, *, share: bool, alone_above: int, siblings: int = 1
) -> list[Unit]:
    """Rows as units, longest first: running out of memory shows at once, and little is padded.

    A causal backbone computes the same states for the same first tokens, whatever follows, so they
    need to be computed only once. (Both ways, they depend on what follows: nothing is shared.)

    Args:
        rows: Token ids; `siblings` in a row belong to one text.
        recipe: Says whether states can be shared, and which are pooled.
        share: False if the backbone cannot, or if all states are wanted.
        alone_above: Rows longer than this run alone and share nothing.
        siblings: Rows per text.
    """
    share = share and recipe.causal
    kept = shared_prefix(rows, recipe) if rows and share and siblings == 1 else ()
    units = []
    for first in range(0, len(rows), siblings):
        own = tuple(rows[first : first + siblings])
        lengths = [len(row.ids) for row in own]
        alone, keep = max(lengths) > alone_above, siblings == 1
        shared = kept
        if alone or not share:
            shared = ()
        elif siblings > 1:
            shared = tuple(own[0].ids[: min(_common(own), *[first_used(r, recipe) for r in own])])
        places = tuple(range(first, first + siblings))
        tokens = sum(lengths) - len(shared) * (len(own) if keep else len(own) - 1)
        units.append(Unit(own, places, shared, keep, alone, tokens, max(lengths)))
    return sorted(units, key=attrgetter("tokens"), reverse=True)


def shared_prefix(rows: Sequence[Tokens], recipe: Recipe) -> tuple[int, ...]:
    """First ids that all rows of a call share, if sharing them pays.

    That is the template's part (an instruction comes back with the next call), or more where many
    rows begin alike.
    """
    template = min([row.template for row in rows])
    common = _common(rows)
    pays = (common - template) * (len(rows) - 1) >= _MIN_SAVED
    length = min(common if pays else template, *[first_used(row, recipe) for row in rows])
    return tuple(rows[0].ids[:length]) if length >= _MIN_SHARED else ()


def first_used(row: Tokens, recipe: Recipe) -> int:
    """First position whose state is pooled: states before it need not be kept apart per text."""
    firsts = {
        "last_token": len(row.ids) - 1,
        "last_k_mean": max(len(row.ids) - (recipe.last_k or 1), 0),
        "first_token": row.start if _counts_behind(row, recipe) else 0,
    }
    start = min(row.start, len(row.ids) - 1)
    return min(firsts.get(mode, start) for mode in recipe.poolings)


def _counts_behind(row: Tokens, recipe: Recipe) -> bool:
    return recipe.pool_span == "behind_prompt" and row.start < len(row.ids)


def _common(rows: Sequence[Tokens]) -> int:
    """How many first ids all rows share, at least one less than the shortest has."""
    all_ids = [row.ids for row in rows]
    low, high = min(all_ids), max(all_ids)
    most = min(len(low), len(high)) - 1
    if low[:most] == high[:most]:
        return most
    return next(i for i in range(most) if low[i] != high[i])
