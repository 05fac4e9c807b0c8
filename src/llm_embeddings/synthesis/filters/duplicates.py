"""Equal and nearly equal texts, found by normalised strings and MinHash (Broder 1997)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

from ...faces import require

if TYPE_CHECKING:
    from datasketch import MinHash

_WORDS, _CHARACTERS = 3, 5  # in a shingle, for scripts with spaces between words and without
_FEWEST = 8  # shingles; texts with fewer are never near duplicates
_PERMUTATIONS = 128


def normalized(text: str) -> str:
    """A text in lower case without white space: equal for texts that differ in these alone."""
    return "".join(text.casefold().split())


def shingles(text: str) -> set[str]:
    """All runs of three words, or of five characters in scripts without spaces between words."""
    words = text.casefold().split()
    if len(words) * 12 >= len(text):
        runs = range(len(words) - _WORDS + 1)
        return {" ".join(words[start : start + _WORDS]) for start in runs}
    joined = "".join(words)
    return {joined[start : start + _CHARACTERS] for start in range(len(joined) - _CHARACTERS + 1)}


class NearDuplicates:
    """Finds texts that share most of their shingles."""

    def __init__(self, threshold: float) -> None:
        """Start without texts.

        Args:
            threshold: Jaccard similarity of shingles, as MinHash estimates it, from which two texts
                are near duplicates.

        Raises:
            ImportError: datasketch is not installed.
            ValueError: a threshold outside (0, 1].
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"a similarity of {threshold} is not in (0, 1]: 0.8 is usual")
        datasketch = require("datasketch", "near duplicates need datasketch", extra="synth")
        self._threshold = threshold
        self._index: Any = datasketch.MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
        self._hashes: dict[str, MinHash] = {}

    def find(self, text: str) -> str:
        """The name of a near duplicate among the texts added; "" = none, or it is too short."""
        return self._find(_hash(text))

    def add(self, text: str, name: str) -> str:
        """Like `find`; a text without a near duplicate is added under `name`."""
        hashed = _hash(text)
        if twin := self._find(hashed):
            return twin
        if hashed is not None:
            self._index.insert(name, hashed)
            self._hashes[name] = hashed
        return ""

    def _find(self, hashed: MinHash | None) -> str:
        if hashed is None:
            return ""
        for name in sorted(self._index.query(hashed)):
            if self._hashes[name].jaccard(hashed) >= self._threshold:
                return str(name)
        return ""


def _hash(text: str) -> MinHash | None:
    """The MinHash of a text's shingles; None = it has too few."""
    found = shingles(text)
    if len(found) < _FEWEST:
        return None
    from datasketch import MinHash

    hashed = MinHash(num_perm=_PERMUTATIONS, hashfunc=crc32)
    hashed.update_batch([shingle.encode("utf-8", "replace") for shingle in sorted(found)])
    return hashed
