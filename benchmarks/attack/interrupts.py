"""Ctrl-C in the middle of one large text that is indexed: what is embedded twice, what is lost."""

from __future__ import annotations

import importlib
import os
import random
import signal
import sqlite3
import time
import zlib
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .forked import run
from .stores import Done, nobody

_DIM = 64
_WORK = 1e-4  # seconds that a passage takes to embed
_TABLES = (
    "SELECT id, hash, kind, vectors, passages FROM contents",
    "SELECT * FROM chunks ORDER BY content, number",
    "SELECT rowid FROM words ORDER BY rowid",
    "SELECT count(*) FROM unfinished",
)


def attack(folder: Path, times: int, megabytes: float = 20.0, seed: int = 0) -> Counter[str]:
    """Interrupt the indexing of one text so many times, and go on; what became of the passages.

    Args:
        folder: An empty folder.
        times: How many interrupts between the first passage and the last; a text gets up to five.
        megabytes: Size of the text.
        seed: Seed of the moments.
    """
    importlib.import_module("llm_embeddings.searching.updating")  # once, not in every child
    chosen, found = random.Random(seed), Counter[str]()
    source = folder / "source"
    source.mkdir()
    lines = (f"Passage {number} of a book on rivers and bread. " * 15 for number in range(10**9))
    with (source / "large.txt").open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            file.write(next(lines) + "\n\n")
    begun = time.monotonic()
    run(partial(_index, source, folder / "whole"))
    length, wanted = time.monotonic() - begun, _embedded(folder / "whole")
    number = 0
    while found["interrupts"] < times:
        number += 1
        place = folder / str(number)
        for _ in range(min(chosen.randint(1, 5), times - found["interrupts"])):
            moment = chosen.uniform(0, length)
            part = run(partial(_index, source, place), moment, ended_by=signal.SIGINT)
            if part.error.startswith("KeyboardInterrupt"):
                within = 0 < len(_embedded(place)) < len(wanted)
                found["interrupts" if within else "before or after the passages"] += 1
            elif part.error:
                found[f"WRONG {part.error:.120}"] += 1
        last = run(partial(_index, source, place))
        embedded = _embedded(place)
        found["passages embedded"] += len(embedded)
        found["WRONG passages embedded twice"] += len(embedded) - len(set(embedded))
        if last.error or set(embedded) != set(wanted) or _kept(place) != _kept(folder / "whole"):
            found[f"WRONG {last.error or 'lost'}"] += 1
    return +found


def _index(source: Path, place: Path, done: Done = nobody) -> None:
    """Bring an index up to date, and write down each passage that is embedded."""
    from llm_embeddings.searching.index import Index
    from llm_embeddings.searching.sources import scan
    from llm_embeddings.searching.updating import update

    signal.signal(signal.SIGINT, signal.default_int_handler)
    place.mkdir(exist_ok=True)
    log = os.open(place / "embedded", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def encode(texts: list[str]) -> Any:
        time.sleep(_WORK * len(texts))
        marks = [zlib.crc32(text.encode()) for text in texts]
        vectors = np.eye(_DIM, dtype=np.float32)[[mark % _DIM for mark in marks]]
        os.write(log, "".join(f"{mark}\n" for mark in marks).encode())
        return vectors

    found = scan([source], max_bytes=10**9, index=place / "index")
    with Index(place / "index", "fingerprint", "maker") as index:
        update(index, found, encode)


def _embedded(place: Path) -> list[str]:
    """A mark of each passage as often as it was embedded."""
    log = place / "embedded"
    return log.read_text(encoding="ascii").split() if log.exists() else []


def _kept(place: Path) -> list[Any]:
    with closing(sqlite3.connect(place / "index" / "index.sqlite")) as sql:
        return [sql.execute(query).fetchall() for query in _TABLES]
