"""What a run has answered, one line each, appended as soon as it is there.

A kill at any moment loses nothing that was written: a line that it cut off is dropped when the file
is opened again. Lines are handed to the system at once and to the disk every second, so only a
power failure can cost replies, those of the last second.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...storage.files import lock_of
from ...storage.journal import JournalFile, check_settings, line_at, written_lines

logger = logging.getLogger(__name__)

FILE = "journal.jsonl"
_SYNC_SECONDS = 1.0
TASKS, EXAMPLE = "tasks", "example"
_KEYS = {"kind", "number", "value", "final", "tokens_in", "tokens_out"}


def recorded(directory: Path, kind: str) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """The settings of a run and its values of a kind by number, while it goes on or afterwards.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: it is not what this version writes.
    """
    path = directory / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{directory} is no run of synthesize: it has no {FILE}")
    places: dict[int, int] = {}
    settings: dict[str, Any] = {}
    with path.open("rb") as file:
        for place, _, values in written_lines(file, path):
            read = _checked(values, place, path)
            if read is None:
                continue
            if "settings" in read:
                settings = read["settings"]
            elif read["kind"] == kind and read["value"] is not None:
                places[read["number"]] = place
    return settings, _lines_at(path, [places[number] for number in sorted(places)])


class Journal:
    """The journal of one run, held by one process at a time; a context manager.

    Attributes:
        failures: Why there is no value, by kind and number; of the last time it was tried.
        tokens_in: Tokens of all prompts in the journal.
        tokens_out: Tokens of all replies in the journal.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        """Begin, or go on with what is there.

        Args:
            directory: Where the journal lies; made if missing.
            settings: What the run depends on, as JSON has it.

        Raises:
            OSError: the directory cannot be written.
            ValueError: it is of another run, not a run's, or another process writes it.
        """
        self.path = directory / FILE
        inside = set(directory.iterdir()) if directory.is_dir() else set()
        if inside - {lock_of(self.path)} and not self.path.is_file():
            raise ValueError(
                f"{directory} holds other files and no {FILE}: name a new or empty directory"
            )
        directory.mkdir(parents=True, exist_ok=True)
        self.failures: dict[tuple[str, int], str] = {}
        self.tokens_in = self.tokens_out = 0
        self._places: dict[tuple[str, int], int] = {}
        self._final: set[tuple[str, int]] = set()
        self._file = JournalFile(self.path, self.path, sync_seconds=_SYNC_SECONDS)
        try:
            self._read(json.loads(json.dumps(settings)))
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def is_final(self, kind: str, number: int) -> bool:
        """Whether there is a value, or will never be one."""
        return (kind, number) in self._final

    def count(self, kind: str) -> int:
        """How many values of a kind there are."""
        return sum(known == kind for known, _ in self._places)

    def note(self, line: Mapping[str, Any]) -> None:
        """Append what came of a job.

        Args:
            line: "kind", "number", "value" (None if there is none), "reason" then, "final",
                "tokens_in", "tokens_out", and whatever belongs to the value.

        Raises:
            OSError: the disk is full.
        """
        self._take(line, self._file.append(line))

    def values(self, kind: str) -> Iterator[dict[str, Any]]:
        """The lines that have a value, by number, whatever order they came in."""
        for known, number in sorted(key for key in self._places if key[0] == kind):
            yield self._file.at(self._places[known, number])

    def _read(self, settings: dict[str, Any]) -> None:
        end = 0
        for place, following, values in self._file.lines():
            end = following
            line = _checked(values, place, self.path)
            if line is None:
                logger.warning("%s has changed at byte %d: asked again", self.path, place)
            elif "settings" in line:
                remedy = "go on as it was begun, or name another directory"
                check_settings(self.path.parent, line["settings"], settings, remedy)
            else:
                self._take(line, place)
        self._file.truncate(end)
        if not end:
            self._file.append({"settings": settings})

    def _take(self, line: Mapping[str, Any], place: int) -> None:
        key = (str(line["kind"]), int(line["number"]))
        self.tokens_in += line["tokens_in"]
        self.tokens_out += line["tokens_out"]
        if line["final"]:
            self._final.add(key)
        if line["value"] is None:
            self.failures[key] = line["reason"]
        else:
            self.failures.pop(key, None)
            self._places[key] = place


def _lines_at(path: Path, places: Sequence[int]) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for place in places:
            yield line_at(file, place, path)


def _checked(values: Any, place: int, path: Path) -> dict[str, Any] | None:
    """What a line says; None = a disk has changed it, so its job is asked again.

    Raises:
        ValueError: no run wrote it, or the settings are those that have changed.
    """
    if values is None and place:
        return None
    if not isinstance(values, dict) or not ("settings" in values or _KEYS <= set(values)):
        raise ValueError(
            f"{path} holds {values!r:.80} at byte {place:,}, which no run wrote: name another "
            "directory"
        )
    return values
