"""What is finished of an output, kept so that a kill at any moment loses one chunk at most.

Beside the output OUT lies OUT.partial/rows with the finished chunks, one after the other, and
OUT.partial/journal.jsonl with the settings and then one line per chunk, written once the chunk is
on the disk. What lies behind the last whole line was cut off when a process ended: it is dropped.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from ...storage.blocks import checksum
from ...storage.files import lock_of, sync, sync_directory
from ...storage.journal import JournalFile, check_settings

logger = logging.getLogger(__name__)

JOURNAL, ROWS, TABLE = "journal.jsonl", "rows", "table.parquet"


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished chunk.

    Attributes:
        digest: Digest of the input rows that it was made from.
        rows: How many rows it has.
        end: Where it ends in the file of rows.
        checksum: Of its bytes and of what is said of it here; None = version 0.1.0 made it.
    """

    digest: str
    rows: int
    end: int
    checksum: int | None = None

    def sealed(self, data: bytes) -> Entry:
        """The entry with the checksum for its bytes."""
        said = f"{self.digest} {self.rows} {self.end}"
        return replace(self, checksum=checksum(data, said))


class Journal:
    """The unfinished output of one process at a time; a context manager.

    Attributes:
        settings: What it was begun with; None if it begins now.
        finished: Chunks on the disk.
    """

    def __init__(self, out: Path, *, restart: bool) -> None:
        """Open what is there of an output, or begin.

        Args:
            out: The output; the journal lies beside it.
            restart: Drop what is there.

        Raises:
            OSError: the directory cannot be written.
            ValueError: another process writes this output, or the directory is not a journal's.
        """
        self.out, self.directory = out, out.with_name(f"{out.name}.partial")
        self.settings: dict[str, Any] | None = None
        self.finished: list[Entry] = []
        self._rows: BinaryIO | None = None
        self._log = self._opened()
        try:
            self._read(restart)
        except BaseException:
            self._log.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        if self._rows is not None:
            self._rows.close()
        if self.finished:
            self._log.close()
            return
        for name in (TABLE, ROWS):
            (self.directory / name).unlink(missing_ok=True)
        self._log.remove()
        self.directory.rmdir()

    @property
    def count(self) -> int:
        """Finished rows."""
        return sum(entry.rows for entry in self.finished)

    @property
    def spool(self) -> Path:
        """The file of rows."""
        return self.directory / ROWS

    @property
    def kept(self) -> str:
        """What a user needs to know when it stops here."""
        if not self.finished:
            return "Nothing was finished yet"
        return (
            f"{self.count:,} finished texts are kept in {self.directory}: the same command goes "
            "on from there"
        )

    def begin(self, settings: dict[str, Any], head: bytes) -> None:
        """Note the settings, or compare them with those it was begun with.

        Raises:
            ValueError: they differ.
        """
        if self.settings is None:
            self._rows = self.spool.open("wb")
            self._rows.write(head)
            sync(self._rows)
            self._log.append(settings)
            self.settings = settings
            return
        remedy = (
            "the file would be of two kinds. Go on as it was begun, or drop what is finished with "
            "--restart"
        )
        check_settings(self.directory, self.settings, settings, remedy)
        self._rows = self.spool.open("r+b")
        self._rows.write(head)
        self._drop_damaged(self._rows, len(head))
        end = self.finished[-1].end if self.finished else len(head)
        self._rows.truncate(end)
        self._rows.seek(end)

    def _drop_damaged(self, rows: BinaryIO, start: int) -> None:
        """Keep the chunks before the first that is not as it was written; the rest is made again.

        Args:
            rows: The file of rows.
            start: Where the first chunk begins.
        """
        for number, entry in enumerate(self.finished):
            rows.seek(start)
            data = rows.read(max(0, entry.end - start))
            if entry.checksum is not None and entry.sealed(data) != entry:
                logger.warning("%s has changed on the disk: rows are made again", self.spool)
                places = [place for place, _, _ in self._log.lines()]
                self._log.truncate(places[number + 1])
                self.finished = self.finished[:number]
                return
            start = entry.end

    def check(self, number: int, digest: str) -> None:
        """Compare a finished chunk with the input.

        Raises:
            ValueError: the input is another one.
        """
        if self.finished[number].digest != digest:
            first = sum(entry.rows for entry in self.finished[:number])
            raise ValueError(
                f"the input has changed since {self.directory} was begun (rows {first + 1:,} to "
                f"{first + self.finished[number].rows:,}): drop what is finished with --restart"
            )

    def check_end(self, chunks: int) -> None:
        """Compare the number of chunks with that of the input.

        Raises:
            ValueError: the input is shorter than it was.
        """
        if chunks < len(self.finished):
            raise ValueError(
                f"the input has fewer rows than when {self.directory} was begun: drop what is "
                "finished with --restart"
            )

    def append(self, data: bytes, digest: str, rows: int) -> None:
        """Put a chunk on the disk, then note that it is there."""
        assert self._rows is not None
        self._rows.write(data)
        sync(self._rows)
        entry = Entry(digest, rows, self._rows.tell()).sealed(data)
        self._log.append(asdict(entry))
        self.finished.append(entry)

    def publish(self, file: Path) -> None:
        """Give a complete file in the directory the output's name, and remove the directory."""
        with file.open("rb") as complete:
            sync(complete)
        file.replace(self.out)
        sync_directory(self.out.parent)
        self.finished = []

    def _opened(self) -> JournalFile:
        """The journal, in a directory that is made or is one's."""
        path = self.directory / JOURNAL
        inside = set(self.directory.iterdir()) if self.directory.is_dir() else set()
        if inside - {lock_of(path)} and not path.is_file():
            raise ValueError(f"{self.directory} is in the way: move it, or write to another name")
        self.directory.mkdir(exist_ok=True)
        return JournalFile(path, self.out)

    def _read(self, restart: bool) -> None:
        """Take over the whole lines whose rows are on the disk."""
        lines, end = ([], 0) if restart else self._lines()
        try:
            size = self.spool.stat().st_size
        except FileNotFoundError:  # not begun, or published already
            lines, size = [], 0
        if lines:
            try:
                self.settings = dict(lines[0])
                self.finished = [Entry(**values) for values in lines[1:]]
            except (ValueError, TypeError) as error:
                raise ValueError(self._strange) from error
        if not self.finished:
            self.settings, end = None, 0
        elif self.finished[-1].end > size:
            raise ValueError(f"{self.directory} has lost rows: begin again with --restart")
        self._log.truncate(end)

    def _lines(self) -> tuple[list[Any], int]:
        """What lines say, up to the first that a disk has changed, and where that begins.

        Raises:
            ValueError: the journal is not one of a run.
        """
        found: list[Any] = []
        end = 0
        try:
            for _, following, values in self._log.lines():
                if values is None:
                    logger.warning(
                        "%s has changed on the disk: rows are made again", self._log.path
                    )
                    break
                found.append(values)
                end = following
        except ValueError as error:
            raise ValueError(self._strange) from error
        return found, end

    @property
    def _strange(self) -> str:
        path = self.directory / JOURNAL
        return f"{path} is not what this version writes: begin again with --restart"
