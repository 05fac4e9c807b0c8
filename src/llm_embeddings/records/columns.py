"""Which columns of a file are query, positives and negatives: the conventions that are in use."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from .lines import Row
from .sources import Source


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of a file of pairs or triplets.

    Attributes:
        query: Holds the query.
        positive: Holds one positive or a list.
        negative: Each holds one negative or a list.
        instruction: Holds the instruction of the row.
        label: Says whether the pair is one.
    """

    query: str
    positive: str
    negative: tuple[str, ...] = ()
    instruction: str | None = None
    label: str | None = None


# What may follow a name in `negative`: sentence-transformers numbers several.
_NUMBERED = r"(?:_\d+)?"
CONVENTIONS = (
    Columns("query", "pos", ("neg",)),  # FlagEmbedding, LLaRA, GritLM
    Columns("query", "positive", ("negative",)),  # the E5 data of LLM2Vec
    Columns("anchor", "positive", ("negative",)),  # sentence-transformers
    Columns("sentence1", "sentence2", label="label"),
    Columns("premise", "hypothesis", label="label"),
    # The JSON keys of E5's synthetic data (arXiv 2401.00368, appendix C).
    Columns("user_query", "positive_document", ("hard_negative_document",)),
    Columns("input_text", "label", ("misleading_label",)),
    Columns("input", "positive_document"),
    Columns("S1", "S2", ("S3",)),
)
_INSTRUCTIONS = ("instruction", "prompt")
_SCORES = ("score", "similarity_score")
_POSITIVE = (1, "1", "entailment", "positive", "duplicate")
_OTHER = (0, -1, "0", "-1", "neutral", "contradiction", "negative", "not_duplicate")


def columns_of(row: Row, source: Source) -> Columns:
    """The columns of a file of pairs or triplets, by those of its first row.

    Raises:
        ValueError: no convention fits, or several do; the message lists the columns.
    """
    names, given = row.values.keys(), source.columns
    listed = f"{row.path} has the columns {', '.join(names)}"
    remedy = (
        'Name them: Source(columns={"query": ..., "positive": ..., "negative": ...}), or '
        '"columns" in a .json file that lists the sources'
    )
    if {"query", "positive"} & set(given):
        if not {"query", "positive"} <= set(given):
            raise ValueError(f'{row.path}: columns name one of "query", "positive": name both')
        found = Columns(_one(given["query"]), _one(given["positive"]))
    else:
        fitting = [known for known in CONVENTIONS if {known.query, known.positive} <= set(names)]
        if len(fitting) != 1:
            pairs = " or ".join(f"{known.query}/{known.positive}" for known in fitting)
            problem = f"which are ambiguous ({pairs})" if fitting else "none of which is known"
            raise ValueError(f"{listed}, {problem}. {remedy}")
        found = _present(fitting[0], names)
        scores = [name for name in _SCORES if name in names]
        if found.query == "sentence1" and found.label is None and scores:
            raise ValueError(
                f"{listed}: a {scores[0]} does not say which pairs are positive. Keep those that "
                f"are, without it; evaluation takes scores"
            )
    if "negative" in given:
        found = replace(found, negative=_several(given["negative"]))
    found = replace(found, instruction=_instruction(row, source, remedy))
    return found


def _present(convention: Columns, names: Collection[str]) -> Columns:
    """A convention with those of its optional columns that are there."""
    negative = [
        name
        for known in convention.negative
        for name in names
        if re.fullmatch(re.escape(known) + _NUMBERED, name)
    ]
    label = convention.label if convention.label in names else None
    return replace(convention, negative=tuple(sorted(negative, key=_number)), label=label)


def _number(name: str) -> int:
    """What a column's name ends in."""
    match = re.search(r"_(\d+)$", name)
    return int(match[1]) if match else 0


def _instruction(row: Row, source: Source, remedy: str) -> str | None:
    if "instruction" in source.columns:
        return _one(source.columns["instruction"])
    found = [name for name in _INSTRUCTIONS if name in row.values]
    if len(found) > 1:
        raise ValueError(f"{row.path} has the columns {' and '.join(found)}. {remedy}")
    return found[0] if found else None


def _one(name: str | tuple[str, ...]) -> str:
    return name if isinstance(name, str) else name[0]


def _several(name: str | tuple[str, ...]) -> tuple[str, ...]:
    return (name,) if isinstance(name, str) else name


def is_positive(row: Row, column: str) -> bool:
    """What a label says of its pair.

    Raises:
        ValueError: a label that data sets do not agree about.
    """
    label = row.values.get(column)
    label = label.strip().lower() if isinstance(label, str) else label
    if label in _POSITIVE:
        return True
    if label in _OTHER:
        return False
    raise ValueError(
        f"{row.place}: {column} {label!r} is neither 1 nor 0, and not a known name such as "
        '"entailment". Write 1 for the pairs that are positive'
    )
