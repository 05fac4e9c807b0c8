"""What one contrastive update embeds: queries, each with its positive and hard negatives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ...model import Model
from ...recipe import Role
from ...records.examples import Example
from ...tokens import Tokens


def choose(
    examples: Sequence[Example], negatives: int, instruction: str | None, rng: random.Random
) -> list[Pair]:
    """One positive of each example, and `negatives` of its hard negatives.

    Drawn without replacement; a list that is too short comes again, as in the data sets of LLARA
    and gritlm.

    Args:
        examples: Of one batch.
        negatives: Hard negatives per query.
        instruction: Of queries that have none of their own.
        rng: Source of randomness.
    """
    pairs = []
    for example in examples:
        drawn: list[str] = []
        while example.negatives and len(drawn) < negatives:
            missing = min(negatives - len(drawn), len(example.negatives))
            drawn += rng.sample(example.negatives, missing)
        pairs.append(
            Pair(
                example.query,
                (rng.choice(example.positives), *drawn),
                instruction if example.instruction is None else example.instruction,
                example.document_instruction or "",
            )
        )
    return pairs


def tokenize_pairs(trained: Model, pairs: Sequence[Pair], lengths: Lengths) -> list[Tokens]:
    """Rows of all queries, then of all passages, group after group.

    Raises:
        ValueError: an instruction has no place in the recipe's template, or rows are longer than
            the model's positions.
    """
    queries = [(pair.query, pair.instruction) for pair in pairs]
    passages = [(text, pair.document_instruction) for pair in pairs for text in pair.passages]
    return [
        *_rows(trained, queries, "query", lengths.query),
        *_rows(trained, passages, "document", lengths.passage),
    ]


def targets_of(pairs: Sequence[Pair]) -> list[int]:
    """Which passage is each query's positive, counted over the passages of all."""
    found, first = [], 0
    for pair in pairs:
        found.append(first)
        first += len(pair.passages)
    return found


def text_numbers(pairs: Sequence[Pair]) -> list[int]:
    """A number for each passage, the same where the text is the same."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(text, len(numbers)) for pair in pairs for text in pair.passages]


def _rows(
    trained: Model,
    texts: Sequence[tuple[str, str | None]],
    role: Role,
    limit: int | None,
) -> list[Tokens]:
    """Texts with their instructions as rows; each instruction's texts are tokenised together."""
    places: dict[str | None, list[int]] = {}
    for place, (_, instruction) in enumerate(texts):
        places.setdefault(instruction, []).append(place)
    found: dict[int, Tokens] = {}
    for instruction, where in places.items():
        strings = [texts[place][0] for place in where]
        rows = trained.rows(strings, role, instruction, limit)
        found.update(zip(where, rows, strict=True))
    return [found[place] for place in range(len(texts))]


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and its group of passages.

    Attributes:
        query: Its text.
        passages: The positive, then the hard negatives.
        instruction: The query's; None = the recipe's default, "" = none.
        document_instruction: The passages'; "" = none.
    """

    query: str
    passages: tuple[str, ...]
    instruction: str | None
    document_instruction: str


@dataclass(frozen=True, slots=True)
class Lengths:
    """Limits in tokens, in the recipe's own meaning; None = the recipe's."""

    query: int | None = None
    passage: int | None = None
