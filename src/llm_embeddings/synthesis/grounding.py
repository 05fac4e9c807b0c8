"""What ties examples to one's own domain: passages of one's documents, and personas."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..searching.chunks import chunk
from ..searching.decoding import Unreadable
from ..searching.readers import content_format, read_content
from ..searching.sources import scan

_MAX_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class GroundingPassage:
    """A passage of a document that queries are to be written for.

    Attributes:
        place: File and line, or page, where it begins.
        text: The passage, with the headings above it.
    """

    place: str
    text: str


@dataclass(frozen=True, slots=True)
class Grounding:
    """The passages found in documents.

    Attributes:
        found: Passages that are long enough to ask about.
        skipped: Files that could not be read, each with the reason.
        short: How many passages were too short.
    """

    found: tuple[GroundingPassage, ...]
    skipped: tuple[str, ...]
    short: int


def read_grounding(paths: Sequence[Path], *, shortest: int = 200, output: Path) -> Grounding:
    """Cut documents into passages, as `llm-embeddings search` does.

    Args:
        paths: Files and directories, of the formats that `search` reads.
        shortest: Characters that a passage needs.
        output: A directory that is not read, even if it lies in one of `paths`.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: there is no passage; the message says why.
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such document or directory of documents")
    listed = scan(paths, max_bytes=_MAX_BYTES, index=output)
    skipped = [f"{skip.file.shown}: {skip.reason}" for skip in listed.skipped if not skip.by_name]
    passages: dict[str, GroundingPassage] = {}
    short = 0
    for file in listed.files:
        try:
            data = Path(file.path).read_bytes()
            sections = read_content(data, content_format(file.path)).sections
        except (Unreadable, OSError) as error:
            skipped.append(f"{file.shown}: {error}")
            continue
        for part in chunk(sections):
            if len(part.text) < shortest:
                short += 1
            else:  # a passage that stands in several files counts once
                place = f"{file.shown}:{part.first}"
                passages.setdefault(part.passage, GroundingPassage(place, part.passage))
    if not passages:
        reasons = "; ".join(skipped[:3]) or f"{short} passages under {shortest} characters"
        raise ValueError(f"no passage to ask about in {', '.join(map(str, paths))}: {reasons}")
    return Grounding(tuple(passages.values()), tuple(skipped), short)


def read_personas(path: Path) -> tuple[str, ...]:
    """Personas, descriptions of people who might ask, one per line of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8 text, or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: convert it (iconv)") from error
    personas = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not personas:
        raise ValueError(f"{path} holds no persona: write one per line")
    return personas


def in_turn(count: int, seed: int) -> list[int]:
    """The numbers of `count` passages in random order, the same for the same seed."""
    order = list(range(count))
    random.Random(f"{seed} passages").shuffle(order)
    return order


def digest(texts: Sequence[str]) -> str:
    """A hash of texts in their order, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
