"""What a call finds in the cache of vectors, and what it leaves there."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence

from ..vectors import Vectors
from .store import VectorCache


class Lookup:
    """One call's way to the cache; windows of texts come back in the order they were looked up."""

    def __init__(
        self, cache: VectorCache, fingerprints: Mapping[str, str], max_length: int
    ) -> None:
        """Name what decides the states besides the text.

        Args:
            cache: Where states are looked for and kept.
            fingerprints: Fingerprint of the model in each role of the call.
            max_length: Limit in tokens.
        """
        self._cache = cache
        self._starts = [
            hashlib.blake2b(f"{fingerprint} {role} {max_length}\n".encode(), digest_size=16)
            for role, fingerprint in fingerprints.items()
        ]
        self._waiting: deque[list[bytes | None]] = deque()

    def look_up(self, texts: Sequence[str]) -> tuple[list[str], dict[int, Vectors]]:
        """The texts that are to be computed, and the states of all others by their row.

        A row is a text in one of the roles; the rows of a text follow each other.
        """
        keys = [self._keys(text) for text in texts]
        found = self._cache.get([key for one in keys for key in one])
        known: dict[int, Vectors] = {}
        missing: list[str] = []
        new: list[bytes | None] = []
        for text, one in zip(texts, keys, strict=True):
            if all(key in found for key in one):
                known.update(enumerate((found[key] for key in one), len(new)))
                new += [None] * len(one)
            else:
                missing.append(text)
                new += one
        self._waiting.append(new)
        return missing, known

    def keep(self, states: Vectors) -> None:
        """Write those of the next window's states `[rows, dim]` that the cache did not have."""
        keys = self._waiting.popleft()
        rows = zip(keys, states, strict=True)
        self._cache.put({key: state for key, state in rows if key is not None})

    def _keys(self, text: str) -> list[bytes]:
        digests = [start.copy() for start in self._starts]
        for digest in digests:
            digest.update(text.encode("utf-8", "surrogatepass"))
        return [digest.digest() for digest in digests]
