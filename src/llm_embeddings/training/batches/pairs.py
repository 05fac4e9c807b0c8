"""What one contrastive update embeds: queries, each with its positive and hard negatives."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ...model import Model
from ...recipe import Role
from ...records.examples import Example
from ...tokens import Tokens

Text = tuple[str, str | None]  # and its instruction
Share = Callable[[Sequence[Text], Callable[[Sequence[Text]], list[Tokens]]], list[Tokens]]


def alone(texts: Sequence[Text], work: Callable[[Sequence[Text]], list[Tokens]]) -> list[Tokens]:
    """The `Share` of a process that has no others."""
    return work(texts)


def choose(
    examples: Sequence[Example], negatives: int, instruction: str | None, rng: random.Random
) -> list[Pair]:
    """Draw one positive of each example, and `negatives` of its hard negatives.

    Negatives are drawn without replacement; a list with too few is drawn from again, as in the
    data sets of LLARA and gritlm.

    Args:
        examples: The examples of one batch.
        negatives: Hard negatives per query.
        instruction: What queries without an instruction of their own get.
        rng: Source of randomness.

    Returns:
        A pair for each example.
    """
    pairs = []
    for example in examples:
        count, drawn = len(example.positives), list[int]()
        while example.negatives and len(drawn) < negatives:
            missing = min(negatives - len(drawn), len(example.negatives))
            drawn += rng.sample(range(len(example.negatives)), missing)
        positive = rng.choice(range(count))
        scores = (
            [example.scores[place] for place in (positive, *(count + n for n in drawn))]
            if example.scores
            else []
        )
        pairs.append(
            Pair(
                example.query,
                (example.positives[positive], *(example.negatives[place] for place in drawn)),
                instruction if example.instruction is None else example.instruction,
                example.document_instruction or "",
                example.positives,
                tuple(scores),
            )
        )
    return pairs


def tokenize_pairs(
    trained: Model, pairs: Sequence[Pair], lengths: Lengths, share: Share = alone
) -> list[Tokens]:
    """Token ids of all queries, then of all passages, pair after pair.

    Args:
        trained: Tokenizer and recipe are used.
        pairs: The pairs of a batch.
        lengths: Limits on their texts.
        share: How processes share the work.

    Raises:
        ValueError: an instruction has no place in the recipe's template, or rows are longer than
            the model's positions.
    """
    queries: list[Text] = [(pair.query, pair.instruction) for pair in pairs]
    passages: list[Text] = [
        (text, pair.document_instruction) for pair in pairs for text in pair.passages
    ]
    return [
        *share(queries, lambda texts: _rows(trained, texts, "query", lengths.query)),
        *share(passages, lambda texts: _rows(trained, texts, "document", lengths.passage)),
    ]


def targets_of(pairs: Sequence[Pair]) -> list[int]:
    """For each query, the place of its positive among the passages of all pairs, from 0."""
    found, first = [], 0
    for pair in pairs:
        found.append(first)
        first += len(pair.passages)
    return found


def known_answers(pairs: Sequence[Pair]) -> torch.Tensor:
    """Which passages are known to answer which queries, by their texts alone.

    A query is answered by all positives of its row of data, and by those of all rows of the batch
    with the same query and instruction. Its own positive is among them.

    Returns:
        `[queries, passages]`, bool, on the CPU.
    """
    answers: dict[tuple[str, str | None], set[str]] = {}
    for pair in pairs:
        found = answers.setdefault((pair.query, pair.instruction), set())
        found.update(pair.positives, pair.passages[:1])
    places: dict[str, list[int]] = {}
    for place, text in enumerate(text for pair in pairs for text in pair.passages):
        places.setdefault(text, []).append(place)
    known = torch.zeros(len(pairs), sum(len(pair.passages) for pair in pairs), dtype=torch.bool)
    for row, pair in enumerate(pairs):
        for text in answers[pair.query, pair.instruction]:
            known[row, places.get(text, [])] = True
    return known


def _rows(
    trained: Model,
    texts: Sequence[Text],
    role: Role,
    limit: int | None,
) -> list[Tokens]:
    """Token ids of (text, instruction) pairs; texts with one instruction are tokenised together."""
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
        query: The query's text.
        passages: Texts: the positive, then the hard negatives.
        instruction: Instruction of the query; None = the recipe's default, "" = none.
        document_instruction: Instruction of the passages; "" = none.
        positives: All texts that the data have as answers to the query.
        scores: What a teacher gives each of the passages; () = there is none.
    """

    query: str
    passages: tuple[str, ...]
    instruction: str | None
    document_instruction: str
    positives: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Lengths:
    """Most tokens of a query and of a passage, counted as the recipe counts; None = its limit."""

    query: int | None = None
    passage: int | None = None


class FalseNegatives:
    """Measures negatives that are answers, for runs that train them as their source did."""

    def __init__(self) -> None:
        """Nothing is measured yet."""
        self._warned = False

    def share(self, pairs: Sequence[Pair], *, warn: bool = True) -> float:
        """The share of a batch's negatives that answer the query they are set against.

        The first time that there are any, it is warned of, unless `warn` is off.
        """
        known = known_answers(pairs)
        found = int(known.sum() - len(known)) / max(known.numel() - len(known), 1)
        if found and warn and not self._warned:
            self._warned = True
            warnings.warn(
                f"{found:.2%} of the negatives of a batch answer the query that they are set "
                "against (equal queries or positives), and are trained as negatives as the "
                "preset's source did: skip_duplicates=True leaves them out",
                stacklevel=2,
            )
        return found
