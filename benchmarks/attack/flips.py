"""Bits that a disk has turned over, in each kind of file that keeps something.

A store is made, eight bits at random are flipped in one of its files, and its user goes on: what it
gives then has to be all that it was given, made again from the texts or refused by name.
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections import Counter
from pathlib import Path

from .stores import Store, nobody

BITS = 8


def flip(path: Path, chosen: random.Random) -> None:
    """Turn over some bits of a file."""
    data = bytearray(path.read_bytes())
    for _ in range(BITS):
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    path.write_bytes(data)


def attack(store: Store, folder: Path, times: int, seed: int = 0) -> Counter[str]:
    """Flip bits so many times; how often the store was right, refused by name, or wrong.

    Args:
        store: What is attacked.
        folder: An empty folder.
        times: How often, each time in a fresh copy.
        seed: Seed of the bits.
    """
    found: Counter[str] = Counter()
    chosen = random.Random(seed)
    store.write(folder / "made", nobody)
    for _ in range(times):
        copy = shutil.copytree(folder / "made", folder / "copy")
        files = sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size)
        weights = [path.stat().st_size for path in files]
        flip(chosen.choices(files, weights)[0], chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                wrong = store.wrong(copy)
            except ValueError as error:
                named = str(folder) in str(error)
                found["refused by name" if named else f"WRONG no name: {error!s:.80}"] += 1
            except Exception as error:
                found[f"WRONG {type(error).__name__}: {error!s:.80}"] += 1
            else:
                found[f"WRONG {wrong}" if wrong else "right"] += 1
        shutil.rmtree(copy)
    return found
