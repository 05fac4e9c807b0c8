"""Filters for synthetic rows, applied one after the other, the cheap ones first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...faces import init_checked
from ..placeholders import GROUNDED
from ..rows import RETRIEVAL_GROUPS, SyntheticRow
from .contamination import Forbidden
from .duplicates import NearDuplicates, normalized
from .languages import LanguageJudge

if TYPE_CHECKING:
    from ...encoder import Encoder

RowCheck = Callable[[SyntheticRow], str]  # -> why a row is rejected; "" = it is kept
SCHEMA, LENGTH, LANGUAGE, LEAKAGE = "schema", "length", "language", "leakage"
EXACT, NEAR, CONTAMINATION = "duplicate", "near duplicate", "contamination"
ROUND_TRIP = "round trip"
_COPIED_WORDS, _COPIED_CHARACTERS, _LABEL_CHARACTERS = 5, 12, 3


@init_checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What examples must fulfil to be kept.

    Attributes:
        shortest: Fewest characters of a text, labels excepted.
        longest: Most characters of a text.
        language: Whether texts must be in the language that was asked for.
        near: Jaccard similarity from which queries are near duplicates; None = not compared.
        against: Evaluation sets whose texts must not occur.
        encoder: Encoder for the round trip: does a query find its own positive? None = no such
            filter.
        round_trip: In groups of retrieval tasks, the highest rank that the positive may have among
            the positives of all rows.
    """

    shortest: int = 3
    longest: int = 20_000
    language: bool = True
    near: float | None = 0.8
    against: tuple[Path, ...] = ()
    encoder: Encoder | None = None
    round_trip: int = 10

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: limits that keep nothing.
        """
        if not 0 < self.shortest <= self.longest:
            raise ValueError(f"shortest={self.shortest}, longest={self.longest} keep no text")
        if self.round_trip < 1:
            raise ValueError(f"round_trip={self.round_trip} must be 1 or more")


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is not kept.

    Attributes:
        row: The row.
        filter: Name of the filter that rejected it.
        reason: Why, in words.
    """

    row: SyntheticRow
    filter: str
    reason: str


@dataclass(frozen=True, slots=True)
class Filtered:
    """Rows divided by filters.

    Attributes:
        kept: Rows that passed all filters, in their order.
        rejected: The other rows, each with the first filter that rejected it.
        filters: Names of the filters that were applied, in order.
    """

    kept: list[SyntheticRow]
    rejected: list[RejectedRow]
    filters: list[str] = field(default_factory=list)


def apply_filters(rows: Iterable[SyntheticRow], filters: Filters) -> Filtered:
    """Divide rows into those that pass all filters and the others.

    Raises:
        ImportError: a library that a filter needs is missing.
        OSError: an evaluation set is missing.
        ValueError: an evaluation set that does not fit.
    """
    checks = _checks(filters)
    found = Filtered([], [], list(checks))
    for row in rows:
        for name, check in checks.items():
            if reason := check(row):
                found.rejected.append(RejectedRow(row, name, reason))
                break
        else:
            found.kept.append(row)
    if filters.encoder is None:
        return found
    return _round_trip(found, filters.encoder, filters.round_trip)


def _checks(filters: Filters) -> dict[str, RowCheck]:
    """The checks of single rows, by the name of their filter, in order."""
    checks: dict[str, RowCheck] = {SCHEMA: _schema, LENGTH: _length(filters)}
    if filters.language:
        judge = LanguageJudge()
        checks[LANGUAGE] = lambda row: judge.wrong(_with_languages(row))
    checks |= {LEAKAGE: _leakage, EXACT: _exact()}
    if filters.near is not None:
        checks[NEAR] = _near(filters.near)
    if filters.against:
        forbidden = Forbidden(filters.against, filters.near or 1.0)
        checks[CONTAMINATION] = lambda row: next(filter(None, map(forbidden.find, row.texts)), "")
    return checks


def _schema(row: SyntheticRow) -> str:
    """Whether a text is empty or stands twice in a row."""
    texts = [normalized(text) for text in row.texts]
    if not all(texts):
        return "a text is empty"
    return "" if len(set(texts)) == len(texts) else "two of its texts are the same"


def _length(filters: Filters) -> RowCheck:
    """The check for the length of texts; labels may be shorter."""

    def check(row: SyntheticRow) -> str:
        for text in (row.query,) if row.group == "long-short" else row.texts:
            if not filters.shortest <= len(text) <= filters.longest:
                return f"a text of {len(text)} characters"
        return ""

    return check


def _with_languages(row: SyntheticRow) -> list[tuple[str, str]]:
    """Texts with the language that was asked for; labels may be names, and have none."""
    if not row.languages:
        return []
    first, second = row.languages
    if row.group == "long-short":
        return [(row.query, first)]
    return [(row.query, first), (row.positive, second), *filter(all, [(row.negative, second)])]


def _leakage(row: SyntheticRow) -> str:
    """Whether a label stands in its text, or a document repeats its query."""
    if row.group == "long-short":
        for label in filter(None, (row.positive, row.negative)):
            if len(label) >= _LABEL_CHARACTERS and _stands_in(label, row.query):
                return f"the label {label!r:.60} stands in the text"
    elif row.group in RETRIEVAL_GROUPS:
        long = len(row.query.split()) >= _COPIED_WORDS or (
            not _is_cased(row.query) and len(row.query) >= _COPIED_CHARACTERS
        )
        if long and _stands_in(row.query.rstrip(" .?!"), row.positive):
            return "the query stands in its document word for word"
    return ""


def _stands_in(part: str, text: str) -> bool:
    """Whether `part` stands in a text; as whole words, unless the script has no upper case."""
    part, text = " ".join(part.casefold().split()), " ".join(text.casefold().split())
    if not _is_cased(part):
        return part in text
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def _is_cased(text: str) -> bool:
    """Whether a text's script has upper and lower case, and so spaces between words."""
    return text.lower() != text.upper()


def _exact() -> RowCheck:
    """The check for equal rows, but for case and spaces."""
    seen: dict[tuple[str, str], int] = {}

    def check(row: SyntheticRow) -> str:
        key = normalized(row.query), normalized(row.positive)
        first = seen.setdefault(key, row.number)
        return "" if first == row.number else f"as number {first}"

    return check


def _near(threshold: float) -> RowCheck:
    """The check for nearly equal rows."""
    near = NearDuplicates(threshold)

    def check(row: SyntheticRow) -> str:
        # Several queries may ask for the same passage of a user's document.
        text = row.query if row.group == GROUNDED else f"{row.query}\n{row.positive}"
        twin = near.add(text, str(row.number))
        return twin and f"as number {twin}"

    return check


def _round_trip(found: Filtered, encoder: Encoder, top: int) -> Filtered:
    """Reject rows whose query does not find its positive among the first `top`."""
    from .consistency import ranks

    rows = [row for row in found.kept if row.group in RETRIEVAL_GROUPS]
    by_number = dict(zip((row.number for row in rows), ranks(rows, encoder), strict=True))
    lost = {number: rank for number, rank in by_number.items() if rank > top}
    kept = [row for row in found.kept if row.number not in lost]
    refused: Sequence[RejectedRow] = [
        RejectedRow(row, ROUND_TRIP, f"its document is found at rank {lost[row.number]}")
        for row in found.kept
        if row.number in lost
    ]
    return Filtered(kept, [*found.rejected, *refused], [*found.filters, ROUND_TRIP])
