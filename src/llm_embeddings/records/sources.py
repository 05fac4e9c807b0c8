"""Which files a stage trains on, how often each comes, and what stands in which column."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".txt", ".txt.gz")
COLUMNS = ("query", "positive", "negative", "instruction", "text")


@dataclass(frozen=True, slots=True)
class Source:
    """A data file and how it is used.

    Attributes:
        path: A .jsonl, .jsonl.gz, .parquet, .txt or .txt.gz file.
        weight: How often its rows come in one epoch of a mixture: 1 = each once, 0.1 = a tenth of
            them (another tenth in the next epoch), 2 = each twice.
        instruction: For rows without one of their own; of several, row i takes number i modulo
            their count, as LLM2Vec does with AllNLI and Quora. "" = none.
        symmetric: Positives and negatives get the instruction too.
        columns: What a column holds -> its name, where its name does not say: "query", "positive",
            "negative" (of several columns a list), "instruction" for pairs and triplets; "text".
        rows: Only so many are read, from the first on; None = all.
    """

    path: Path
    weight: float = 1.0
    instruction: str | tuple[str, ...] | None = None
    symmetric: bool = False
    columns: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    rows: int | None = None

    def __post_init__(self) -> None:
        """Check the values and make lists tuples.

        Raises:
            ValueError: a weight or a number of rows that is not positive, an unknown or repeated
                column.
        """
        object.__setattr__(self, "path", Path(self.path))
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(
                f"{self.path}: weight {self.weight} is not positive: leave the file out, or use 1"
            )
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"{self.path}: rows {self.rows} is not positive: leave the file out")
        if self.instruction is not None and not isinstance(self.instruction, str):
            object.__setattr__(self, "instruction", tuple(self.instruction) or None)
        columns = {
            what: name if isinstance(name, str) else tuple(name)
            for what, name in self.columns.items()
        }
        object.__setattr__(self, "columns", columns)
        unknown = sorted(set(columns) - set(COLUMNS))
        if unknown:
            raise ValueError(
                f"{self.path}: columns {', '.join(unknown)} mean nothing here; name some of "
                f"{', '.join(COLUMNS)}"
            )

    @property
    def name(self) -> str:
        """The file's name without what says its format."""
        return self.path.name.removesuffix(suffix_of(self.path))

    def instruction_of(self, index: int) -> str | None:
        """The instruction for row `index`, from 0, if it has none of its own."""
        given = self.instruction
        return given[index % len(given)] if isinstance(given, tuple) else given


def sources_of(data: Iterable[str | Path | Source]) -> tuple[Source, ...]:
    """Sources from what a user names.

    Args:
        data: Each a `Source`, a file, a directory (a source per file in it; .txt files, often
            notes, only where there is nothing else), or a .json file with a list of objects that
            have the fields of `Source` (relative paths start at that file). "PATH@WEIGHT" gives
            all of them a weight, or multiplies the one they have.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: an unknown format, a directory without data, a mistake in a .json file.
    """
    found = tuple(source for entry in data for source in _expand(entry))
    if not found:
        raise ValueError(f"no data: name files that end in {', '.join(SUFFIXES)}")
    return found


def suffix_of(path: Path) -> str:
    """Which of `SUFFIXES` a file's name ends in.

    Raises:
        ValueError: none of them.
    """
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return suffix
    raise ValueError(f"{path}: not a known format of data ({', '.join(SUFFIXES)})")


def _expand(entry: str | Path | Source) -> Iterable[Source]:
    if isinstance(entry, Source):
        return _in_directory(entry)
    path, weight = _weighted(str(entry))
    if path.name.lower().endswith(".json") and path.is_file():
        return [
            dataclasses.replace(source, weight=source.weight * weight)
            for listed in _read_mixture(path)
            for source in _in_directory(listed)
        ]
    return _in_directory(Source(path, weight=weight))


def _weighted(entry: str) -> tuple[Path, float]:
    """The path and the weight of "PATH@WEIGHT"; a file may have an @ in its name."""
    path, at, weight = entry.rpartition("@")
    if not at or Path(entry).exists():
        return Path(entry), 1.0
    try:
        return Path(path), float(weight)
    except ValueError:
        return Path(entry), 1.0


def _in_directory(source: Source) -> list[Source]:
    """The source itself, or one for each file of a directory."""
    if not source.path.exists():
        raise FileNotFoundError(f"{source.path}: no such file or directory with training data")
    if not source.path.is_dir():
        suffix_of(source.path)
        return [source]
    files = sorted(path for path in source.path.iterdir() if path.name.lower().endswith(SUFFIXES))
    files = [path for path in files if not suffix_of(path).startswith(".txt")] or files
    if not files:
        raise ValueError(f"{source.path} holds no file that ends in {', '.join(SUFFIXES)}")
    return [dataclasses.replace(source, path=path) for path in files]


def _read_mixture(path: Path) -> list[Source]:
    """The sources listed in a .json file."""
    fields = [known.name for known in dataclasses.fields(Source)]
    try:
        entries: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("path"), str) for entry in entries
    ):
        raise ValueError(
            f'{path} is not a list of sources such as [{{"path": "nli.jsonl", "weight": 0.5}}]'
        )
    for entry in entries:
        if unknown := sorted(set(entry) - set(fields)):
            raise ValueError(
                f"{path}: {entry['path']} has unknown fields {', '.join(unknown)}; "
                f"a source has {', '.join(fields)}"
            )
    return [Source(**{**entry, "path": path.parent / entry["path"]}) for entry in entries]
