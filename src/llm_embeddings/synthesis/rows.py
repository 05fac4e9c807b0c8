"""Examples of a run as rows of training data, each with where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .calls.journal import EXAMPLE, recorded
from .placeholders import GROUNDED, VALUES

# Groups whose positive is a document that its query should find.
RETRIEVAL = ("short-long", "short-short", "long-long", GROUNDED)


@dataclass(frozen=True, slots=True)
class SyntheticRow:
    """One example.

    Attributes:
        query: The anchor.
        positive: What belongs to it.
        negative: What looks as if it did; "" = none.
        instruction: What the query asks for; None = nothing is said.
        group: Of `placeholders.VALUES`.
        languages: Codes of the languages of query and positive; empty = that of a document.
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
        """Its number in the run."""
        return int(self.provenance["number"])

    @property
    def texts(self) -> tuple[str, ...]:
        """All its texts."""
        return tuple(filter(None, (self.query, self.positive, self.negative)))

    def as_json(self) -> str:
        """A line that the contrastive stage reads."""
        columns = {"instruction": self.instruction, "query": self.query, "positive": self.positive}
        if self.negative:
            columns["negative"] = self.negative
        columns["source"] = f"synthetic-{self.group}"
        given = {name: value for name, value in columns.items() if value is not None}
        return json.dumps(given | {"provenance": dict(self.provenance)}, ensure_ascii=False)


def rows_of(run: Path) -> Iterator[SyntheticRow]:
    """The examples of a run, by number.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: it is not what this version writes.
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

    Files of one group have the same columns, and can be weighed in a mixture.

    Args:
        rows: In the order in which they are written.
        directory: Made if missing; files of groups that are there are replaced.

    Returns:
        Rows by group.
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
