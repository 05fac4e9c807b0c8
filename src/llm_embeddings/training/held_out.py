"""Queries that are not trained on, and what training brought on them, with intervals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..evaluation.scores import Bootstrap, Score, ndcg, unit
from ..recipe import Role
from ..records.examples import Example
from ..records.sources import Source
from ..storage.blocks import changed_values, seal_values
from ..vectors import Vectors

Encode = Callable[[list[str], Role, str | None], Vectors]  # texts, role, instruction

FILE = "held_out.json"
_QUERIES = 1000
_RANKS = 10


class HeldOut:
    """A share of the data's queries, the same ones in every run with the seed.

    Which ones is a matter of the query's text alone, so that rows of one query stay together. Of
    large data the first queries are scored, about 1,000 in all; the others are not trained on
    either.

    Attributes:
        examples: Those that are scored, each with the instruction that its query gets.
    """

    def __init__(
        self,
        share: float,
        sources: Sequence[Source],
        read: Callable[[Source], Iterable[Example]],
        *,
        seed: int,
        instruction: str | None,
    ) -> None:
        """Read the queries that are scored.

        Args:
            share: Share of all queries, below 1; 0 = none.
            sources: The data.
            read: The rows of a source.
            seed: Seed of the choice.
            instruction: Of queries whose row has none.

        Raises:
            ValueError: there are fewer than two, or a row that does not fit.
        """
        self._share, self._seed = share, seed
        self.examples: tuple[Example, ...] = ()
        if not share:
            return
        each = -(-_QUERIES // len(sources))
        found = [row for s in sources for row in islice(filter(self.__contains__, read(s)), each)]
        self.examples = tuple(
            replace(row, instruction=instruction) if row.instruction is None else row
            for row in found
        )
        if len({row.query for row in found}) < 2:
            raise ValueError(f"held_out={share} of this data is not even two queries: raise it")

    def __contains__(self, example: Example) -> bool:
        """Whether the query of an example is held out."""
        if not self._share:
            return False
        text = f"{self._seed} {example.query}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
        return number < self._share * 2**64

    def scores(self, encode: Encode) -> list[float]:
        """nDCG@10 of each query among all passages of the scored examples.

        Every positive of the query's rows is an answer, everything else none.
        """
        answers: dict[tuple[str, str | None], set[tuple[str, str | None]]] = {}
        passages: dict[tuple[str, str | None], int] = {}
        for row in self.examples:
            prompt = row.document_instruction or ""
            for text in (*row.positives, *row.negatives):
                passages.setdefault((text, prompt), len(passages))
            wanted = answers.setdefault((row.query, row.instruction), set())
            wanted.update((text, prompt) for text in row.positives)
        cosines = (
            _vectors(encode, [*answers], "query") @ _vectors(encode, [*passages], "document").T
        )
        found = []
        for row_cosines, wanted in zip(cosines, answers.values(), strict=True):
            right = {passages[passage] for passage in wanted}
            order = np.argsort(-row_cosines, kind="stable")[:_RANKS]
            ranked = [float(place in right) for place in order.tolist()]
            found.append(ndcg(ranked, [1.0] * len(right), _RANKS))
        return found


def scores_before(
    output: Path, done: int, measure: Callable[[], list[float]], *, writes: bool
) -> list[float] | None:
    """The scores before the first update, kept in the run's folder for when it is resumed.

    Args:
        output: The run's folder.
        done: Updates that are done already.
        measure: `HeldOut.scores` of the model as it is.
        writes: Whether this process writes.

    Returns:
        None where the run is resumed and they are not known.
    """
    path = output / FILE
    if done:
        known = json.loads(path.read_bytes()) if path.is_file() else {}
        return None if changed_values(known) else known.get("before")
    found = measure()
    if writes:
        path.write_text(json.dumps(seal_values({"before": found})) + "\n", encoding="utf-8")
    return found


def write_scores(output: Path, before: list[float] | None, after: list[float]) -> dict[str, float]:
    """Write the scores of every query beside the result.

    Returns:
        Their means, and the ends of their 95% intervals, by name; the gain's is made of the gains
        of single queries.
    """
    values = {"before": before, "after": after}
    (output / FILE).write_text(json.dumps(seal_values(values)) + "\n", encoding="utf-8")
    named: dict[str, float] = {}
    for name, score in compared(before, after).items():
        ends = {"": score.value, "_low": score.low, "_high": score.high}
        named |= {f"held_out/{name}{end}": value for end, value in ends.items()}
    return named


def summary(output: Path) -> str:
    """What training brought, in a line; "" where nothing was held out."""
    path = output / FILE
    values = json.loads(path.read_bytes()) if path.is_file() else {}
    if "after" not in values:
        return ""
    found = compared(values["before"], values["after"])
    parts = [f"nDCG@10 {found['after']} after"]
    if "gain" in found:
        gain = found["gain"]
        parts = [f"nDCG@10 {found['before']} before", f"{found['after']} after"]
        parts.append(f"a gain of {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    return f"{found['after'].count:,} held-out queries: {', '.join(parts)}"


def compared(before: list[float] | None, after: list[float]) -> dict[str, Score]:
    """Scores before, after, and of the gain query by query."""
    made = Bootstrap()
    if before is None:
        return {"after": made.mean(after)}
    gain = np.subtract(after, before)
    return {"before": made.mean(before), "after": made.mean(after), "gain": made.mean(gain)}


def _vectors(
    encode: Encode, texts: Sequence[tuple[str, str | None]], role: Role
) -> NDArray[np.float32]:
    """Unit vectors of (text, instruction) pairs; those with one instruction run together."""
    places: dict[str | None, list[int]] = {}
    for place, (_, instruction) in enumerate(texts):
        places.setdefault(instruction, []).append(place)
    order = [place for group in places.values() for place in group]
    parts = [
        encode([texts[place][0] for place in group], role, instruction)
        for instruction, group in places.items()
    ]
    return unit(np.concatenate(parts)[np.argsort(order)])
