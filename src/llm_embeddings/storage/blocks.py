"""Checksums of blocks and rows, so that what a disk or a program has changed is not believed.

A sealed block is the numbers, a mark and a CRC-32, five bytes more. Numbers take an even number of
bytes, so the length tells a sealed block from one that a version without seals wrote.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MARK = b"\x01"
_CHECKSUM = 4
_READ = 2**20


def checksum(data: bytes | memoryview, *bound: bytes | str) -> int:
    """CRC-32 of data and of what it belongs to, such as its key."""
    found = 0
    for part in bound:
        encoded = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        head = f"{type(part).__name__} {len(encoded)} ".encode()
        found = zlib.crc32(encoded, zlib.crc32(head, found))
    return zlib.crc32(data, found)


def row_checksum(*values: Any) -> int:
    """CRC-32 of the values of a row as SQLite gives them back: numbers, texts, bytes, None."""
    return zlib.crc32(json.dumps(values, default=bytes.hex).encode())


def file_checksum(path: Path) -> int:
    """CRC-32 of a file."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(_READ):
            found = zlib.crc32(block, found)
    return found


def seal_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with a checksum of all of them, "seal"."""
    return {**values, "seal": _of_values(values)}


def changed_values(values: Mapping[str, Any]) -> bool:
    """Whether values are not those that were sealed; those without a seal are taken as they are."""
    others = {name: value for name, value in values.items() if name != "seal"}
    return "seal" in values and values["seal"] != _of_values(others)


def _of_values(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def seal(numbers: bytes, *bound: bytes | str) -> bytes:
    """A block to write.

    Args:
        numbers: Its bytes, an even number of them.
        bound: What the numbers belong to; with anything else beside them they count as damaged.
    """
    assert len(numbers) % 2 == 0
    return numbers + _MARK + checksum(numbers, *bound).to_bytes(_CHECKSUM, "little")


def unseal(block: Any, *bound: Any, older: bool = True) -> bytes | None:
    """The numbers of a block; None = they are not those that were written.

    Args:
        block: What lies in the file.
        bound: As for `seal`.
        older: Whether to take a block without a seal as it is.
    """
    if not all(isinstance(one, bytes | str) for one in (block, *bound)) or isinstance(block, str):
        return None  # a flipped bit can change a type in SQLite, too
    if len(block) % 2 == 0:
        return bytes(block) if older else None
    numbers, end = block[: -_CHECKSUM - 1], block[-_CHECKSUM - 1 :]
    wanted = _MARK + checksum(numbers, *bound).to_bytes(_CHECKSUM, "little")
    return bytes(numbers) if end == wanted else None
