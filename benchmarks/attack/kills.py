"""Processes that are ended at any moment while they write, and what is there when they go on."""

from __future__ import annotations

import random
import time
from collections import Counter
from functools import partial
from pathlib import Path

from .forked import run
from .stores import Done, Store

_PAUSE = 0.002  # after each thing that is done, so that kills fall between and within them


def attack(store: Store, folder: Path, times: int, seed: int = 0) -> Counter[str]:
    """Kill a process that writes a store so many times; what became of the store.

    Args:
        store: What is attacked.
        folder: An empty folder.
        times: How many kills; a store gets up to three.
        seed: Seed of the moments.
    """
    chosen, found = random.Random(seed), Counter[str]()
    begun = time.monotonic()
    run(partial(_slowly, store, folder / "whole"))
    length = time.monotonic() - begun
    number = 0
    while found["kills"] < times:
        number += 1
        place = folder / str(number)
        finished: list[str] = []
        for _ in range(chosen.randint(1, 3)):
            part = run(partial(_slowly, store, place), chosen.uniform(0, length))
            found["kills"] += part.killed
            if part.error:
                found[f"WRONG {part.error:.120}"] += 1
            if set(part.done) & set(finished):
                found["WRONG done twice"] += 1
            finished += part.done
        last = run(partial(store.write, place))
        if last.error or set(last.done) & set(finished):
            found[f"WRONG {last.error or 'done twice'}"] += 1
        else:
            wrong = store.wrong(place)
            found[f"WRONG {wrong}" if wrong else "stores that went on"] += 1
    return found


def _slowly(store: Store, place: Path, done: Done) -> None:
    def tell(name: str) -> None:
        done(name)
        time.sleep(_PAUSE)

    store.write(place, tell)
