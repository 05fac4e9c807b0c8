"""What sources hold: counted row by row or, where they are large, by their bytes and first rows."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np

from ...records.lines import NO_WHOLE_GZIP, json_object, open_parquet
from ...records.sources import Source, suffix_of
from ...storage.hashing import noted_once, stamp

Item = TypeVar("Item")
Read = Callable[[Source], Iterable[Item]]
WHOLE = 2**28  # bytes of data of which all rows are read before training starts
_SAMPLES = 16  # of larger data a file's sample has this part of its share of so many bytes
_LEAST = 2**18  # bytes of a sample: of fewer, an estimate would be poor
_NOTED = 2**26  # bytes of a file whose counts are worth a note
_BLOCK = 2**22
_TAIL = 2**20


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found in a source when it was first read.

    Attributes:
        source: The file and how it is used.
        items: Items that one pass over it gives, after the filter.
        filtered: Items that the filter took out.
        size: Size of the file in bytes.
        sha256: Hash of the file, in hexadecimal.
        sampled: Whether only its first rows were read, and the items are an estimate: exact where
            each row is an item.
    """

    source: Source
    items: int
    filtered: int
    size: int
    sha256: str
    sampled: bool = False


@dataclass(frozen=True, slots=True)
class _Counts:
    """A file's hash, its rows, and the bytes of their text; of parquet the rows once more."""

    sha256: str
    rows: int
    length: int


def survey_all(
    sources: Sequence[Source],
    read: Read[Item],
    keep: Callable[[Item], bool] | None,
    *,
    whole: int,
) -> tuple[Survey, ...]:
    """Read sources once, all rows or the first ones of large files.

    Args:
        sources: The files.
        read: The items of a source.
        keep: Whether an item is kept; None = all are.
        whole: How many bytes may be read as rows. If all files together have more, each may have
            its share.

    Raises:
        OSError: a file cannot be read.
        ValueError: a row that does not fit, or a source of which nothing is kept.
    """
    sizes = [source.path.stat().st_size for source in sources]
    most = whole if sum(sizes) <= whole else whole // len(sources)
    sample = max(most // _SAMPLES, _LEAST)
    surveys = []
    for source, size in zip(sources, sizes, strict=True):
        large = size > most and source.rows is None
        found = _sampled(source, read, keep, sample) if large else None
        surveys.append(_counted(source, read, keep) if found is None else found)
    return tuple(surveys)


def known_surveys(
    sources: Sequence[Source], known: Sequence[Mapping[str, Any]]
) -> tuple[Survey, ...]:
    """What sources held when a run began, without reading their rows again.

    Args:
        sources: The files and how they are used.
        known: `Mixture.fingerprint` of the run, of the same sources in the same order.

    Raises:
        ValueError: a file is another, or they are more or fewer.
    """
    found = []
    for source, entry in zip_longest(sources, known):
        if source is None or entry is None:
            raise ValueError(
                f"the data was {len(known):,} files when the run began and is {len(sources):,}: "
                "bring back what there was, or start anew in another folder"
            )
        digest = sha256_of(source.path)
        if (source.path.name, digest) != (entry["name"], entry["sha256"]):
            raise ValueError(
                f"{source.path} is not what it was when the run began ({entry['name']}): bring the "
                "file back, or start anew in another folder"
            )
        sampled = entry.get("sampled", False)
        counts = entry["items"], entry["filtered"], entry["bytes"]
        found.append(Survey(source, *counts, digest, sampled))
    return tuple(found)


def sha256_of(path: Path) -> str:
    """A file's hash; of a large one as it was noted, if nobody has written to it since."""
    return _counts(path).sha256


def _counted(source: Source, read: Read[Item], keep: Callable[[Item], bool] | None) -> Survey:
    """Read all rows of a source.

    Raises:
        ValueError: no item is kept.
    """
    kept, filtered = _tally(read(source), keep)
    if not kept:
        raise ValueError(
            f"{source.path}: none of its {filtered:,} items is kept: check the limits on length"
            if filtered
            else f"{source.path} holds nothing to train on: none of its pairs is positive"
        )
    size = source.path.stat().st_size
    return Survey(source, kept, filtered, size, sha256_of(source.path))


def _sampled(
    source: Source, read: Read[Item], keep: Callable[[Item], bool] | None, sample: int
) -> Survey | None:
    """Read the first rows of a source, and estimate how many items it has from those they give.

    Returns:
        None where they give none: nothing can be estimated then.

    Raises:
        ValueError: a row that does not fit, or a last line that is cut off.
    """
    counts, (rows, length) = _counts(source.path), _head(source.path, sample)
    if not rows:
        return None
    kept, filtered = _tally(read(replace(source, rows=rows)), keep)
    if not kept:
        return None
    _check_end(source.path)
    every_row = kept + filtered == rows
    share = counts.rows / rows if every_row else counts.length / length
    size = source.path.stat().st_size
    items, others = max(1, round(kept * share)), round(filtered * share)
    return Survey(source, items, others, size, counts.sha256, sampled=True)


def _tally(items: Iterable[Item], keep: Callable[[Item], bool] | None) -> tuple[int, int]:
    """How many items are kept, and how many are not."""
    found = Counter(keep is None or keep(item) for item in items)
    return found[True], found[False]


def _counts(path: Path) -> _Counts:
    """A file's counts; of a large one those that are noted, if nobody has written to it since."""
    seen = stamp(path)
    if seen.size < _NOTED:
        return _count(path)

    def find() -> str:
        found = _count(path)
        return f"{found.sha256}{found.rows:016x}{found.length:016x}"

    found = noted_once([seen], {"what": "rows of training data"}, find)
    return _Counts(found[:64], int(found[64:80], 16), int(found[80:], 16))


def _count(path: Path) -> _Counts:
    """A file's hash, rows and bytes of text, from one pass over its bytes.

    Raises:
        ValueError: a file that is not whole.
    """
    suffix, digest = suffix_of(path), hashlib.sha256()
    with path.open("rb") as file:
        raw = _blocks(file, digest.update)
        if suffix == ".parquet":
            for _ in raw:
                pass
            with open_parquet(path, path) as table:
                rows = length = table.metadata.num_rows
        elif suffix.endswith(".gz"):
            for _ in raw:
                pass
            try:
                with gzip.open(path) as text:
                    rows, length = _lines(_blocks(cast(BinaryIO, text)))
            except NO_WHOLE_GZIP as error:
                raise ValueError(
                    f"{path}: not a whole gzip file ({error}): fetch it again"
                ) from error
        else:
            rows, length = _lines(raw)
    return _Counts(digest.hexdigest(), rows, length)


def _blocks(
    file: BinaryIO, watch: Callable[[bytes], object] = lambda block: None
) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        watch(block)
        yield block


def _lines(blocks: Iterable[bytes]) -> tuple[int, int]:
    """How many lines that are not empty there are, and how many bytes."""
    rows = length = 0
    before = b"\n"
    for block in blocks:
        filled = np.frombuffer(before + block, np.uint8) != ord("\n")
        rows += int(np.count_nonzero(filled[1:] & ~filled[:-1]))
        length += len(block)
        before = block[-1:]
    return rows, length


def _head(path: Path, sample: int) -> tuple[int, int]:
    """Rows in the first `sample` bytes of a file's text, and their bytes, as `_Counts` has them.

    One row at least; (0, 0) if there is no end of it.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        with open_parquet(path, path) as table:
            count = table.metadata.num_rows
        rows = max(1, round(count * sample / path.stat().st_size))
        return rows, rows
    opened = gzip.open(path) if suffix.endswith(".gz") else path.open("rb")
    with opened as file:
        text = cast(BinaryIO, file).read(sample)
    whole = text[: text.rfind(b"\n") + 1]
    return _lines([whole])


def _check_end(path: Path) -> None:
    """Check that the last line of a file was not cut off in a download.

    Raises:
        ValueError: it is not JSON.
    """
    if suffix_of(path) != ".jsonl":
        return
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        *others, last = file.read().rstrip().split(b"\n")
    if others:  # else the line is longer than what was read
        json_object(last, f"{path}, its last line")
