"""Examples of a run as rows of training data, each with its provenance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .calls.journal import EXAMPLE, recorded
from .placeholders import GROUNDED, VALUES

# Groups whose positive is a document that its query should find.
RETRIEVAL_GROUPS = ("short-long", "short-short", "long-long", GROUNDED)


@dataclass(frozen=True, slots=True)
class SyntheticRow:
    """One example made by a language model.

    Attributes:
        query: The query, or the first of similar texts.
        positive: The text that belongs to the query.
        negative: A text that seems to belong to it and does not; "" = none.
        instruction: The task, as an instruction to the query; None = none.
        group: Group of tasks, one of `placeholders.VALUES`.
        languages: Codes of the languages of query and positive; empty = that of a user's document.
        provenance: Number, model, prompt version, seed, placeholders and more.
    """

    query: str
    positive: str
    negative: str
    instruction: str | None
    group: str
    languages: tuple[str, ...]
    provenance: Mapping[str, Any]

    @property
    def number(self) -> int:
        """The example's number in the run."""
        return int(self.provenance["number"])

    @property
    def texts(self) -> tuple[str, ...]:
        """Query, positive and, if there is one, negative."""
        return tuple(filter(None, (self.query, self.positive, self.negative)))

    def as_json(self) -> str:
        """The row as a line of JSON that the stage `contrastive` reads."""
        columns = {"instruction": self.instruction, "query": self.query, "positive": self.positive}
        if self.negative:
            columns["negative"] = self.negative
        columns["source"] = f"synthetic-{self.group}"
        given = {name: value for name, value in columns.items() if value is not None}
        return json.dumps(given | {"provenance": dict(self.provenance)}, ensure_ascii=False)


def rows_of(run: Path) -> Iterator[SyntheticRow]:
    """The examples of a run, by number.

    Args:
        run: The run's directory.

    Raises:
        FileNotFoundError: it holds no run.
        ValueError: its journal is not one that this version writes.
    """
    settings, lines = recorded(run, EXAMPLE)
    common = {name: settings[name] for name in ("model", "prompt_version", "seed")}
    for line in lines:
        texts = tuple(line["value"])
        if line["group"] == GROUNDED:
            texts = (*texts, line["passage"])
        query, positive, negative = (*texts, "")[:3]
        values = line["values"]
        spoken = [values[name] for name in ("language", "src_lang", "tgt_lang") if name in values]
        about: dict[str, Any] = {name: line[name] for name in ("persona", "place") if name in line}
        yield SyntheticRow(
            query,
            positive,
            negative,
            line["instruction"],
            line["group"],
            (spoken[0], spoken[-1]) if spoken else (),
            {"number": line["number"], **common, "placeholders": values, **about},
        )


def write_rows(rows: Iterable[SyntheticRow], directory: Path) -> dict[str, int]:
    """Write rows as training data, one file per group.

    So each file has the same columns throughout, and a weight of its own in a mixture.

    Args:
        rows: The rows, in the order in which they are written.
        directory: Made if missing; files of groups in it are replaced, or removed if no row is of
            that group.

    Returns:
        How many rows were written, by group.
    """
    directory.mkdir(parents=True, exist_ok=True)
    by_group: dict[str, list[str]] = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(row.as_json() + "\n")
    for group in VALUES.keys() - by_group.keys():
        (directory / f"{group}.jsonl").unlink(missing_ok=True)
    for group, lines in by_group.items():
        unfinished = directory / f".{group}.partial"
        unfinished.write_text("".join(lines), encoding="utf-8")
        unfinished.replace(directory / f"{group}.jsonl")
    return {group: len(lines) for group, lines in by_group.items()}
