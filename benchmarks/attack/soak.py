"""Random operations for a long time, whose memory stays flat."""

from __future__ import annotations

import random
import resource
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from .runs import states_of
from .stores import STORES, nobody

_MOST_GROWTH = 24 * 2**20
_EVERY = 5.0  # seconds between two looks at the memory
_WORDS = "river bread stone amber quiet window garden night paper tide copper winter".split()


def attack(encoder: Any, folder: Path, seconds: float, seed: int = 0) -> Counter[str]:
    """Do random things with an encoder and all stores, and look at the memory meanwhile.

    Args:
        encoder: Any.
        folder: An empty folder.
        seconds: For how long.
        seed: Seed of what is done.
    """
    from llm_embeddings.rag import DocumentIndex, StateStore
    from llm_embeddings.vector_cache import VectorCache

    chosen, found = random.Random(seed), Counter[str]()
    documents = DocumentIndex(encoder, folder / "documents.sqlite")
    states = StateStore(folder / "states", max_bytes=2**16)
    states.bind("fingerprint")
    cache = VectorCache(folder / "vectors.sqlite", max_bytes=2**21)

    def keep() -> None:
        text = _text(chosen)
        cache.put({text.encode(): encoder.encode(text)})
        cache.get([_text(chosen).encode() for _ in range(20)])

    def index() -> None:
        documents.add([_text(chosen)], [str(chosen.randrange(300))])

    def refuse() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                encoder.encode([3])
            except TypeError:
                found["refused"] += 1

    things: dict[str, Callable[[], Any]] = {
        "encode": lambda: encoder.encode([_text(chosen) for _ in range(chosen.randrange(1, 30))]),
        "encode one long text": lambda: encoder.encode("word " * chosen.randrange(20_000)),
        "encode fewer numbers": lambda: encoder.encode([_text(chosen)] * 3, truncate_dim=16),
        "keep in the cache": keep,
        "add a document": index,
        "delete a document": lambda: documents.delete([str(chosen.randrange(300))]),
        "find documents": lambda: len(documents) and documents.search(_text(chosen)),
        "keep states": lambda: states.put(
            "causal", [chosen.randrange(99)], states_of(chosen.randrange(9))
        ),
        "get states": lambda: states.get("causal", [chosen.randrange(99)]),
        "search files": lambda: STORES["search index"].write(folder / "index", nobody),
        "refuse": refuse,
    }
    names, memory = sorted(things), list[int]()
    begun = looked = time.monotonic()
    while (now := time.monotonic()) - begun < seconds:
        name = chosen.choice(names)
        things[name]()
        found[name] += 1
        if now - looked > _EVERY:
            looked = now
            memory.append(_resident())
    for store in (documents, cache):
        store.close()
    fifth = max(1, len(memory) // 5)
    early, late = (median(part) for part in (memory[fifth : 2 * fifth] or memory, memory[-fifth:]))
    grown = round(late - early)
    found["bytes of memory, second fifth"], found["bytes of memory, last fifth"] = (
        int(early),
        int(late),
    )
    found["most bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if grown > _MOST_GROWTH:
        found["WRONG growth"] = grown
    return found


def _text(chosen: random.Random) -> str:
    return (
        " ".join(chosen.choices(_WORDS, k=chosen.randrange(1, 40))) + f" {chosen.randrange(2000)}"
    )


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
