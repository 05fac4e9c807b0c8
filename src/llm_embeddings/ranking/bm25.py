"""BM25: how well texts match a query by the words they share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..faces import require

# Scripts without spaces between words: their tokens are pairs of characters.
_PAIRED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
UNSPACED = re.compile(f"[{_PAIRED}]+")
# `\w` lacks vowel signs and other marks, at which words of many scripts would break.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_TOKEN = re.compile(rf"[\w{_MARKS}{_PAIRED}]+")


def words(text: str) -> list[str]:
    """Tokens of a text: words in lower case, pairs of characters in scripts without spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    tokens: list[str] = _TOKEN.findall(folded)
    if not UNSPACED.search(folded):
        return tokens
    found = []
    for token in tokens:
        if UNSPACED.search(token):
            found += [token[start : start + 2] for start in range(max(1, len(token) - 1))]
        else:
            found.append(token)
    return found


class BM25:
    """An index of texts (Lucene's variant of BM25, k1 1.5, b 0.75)."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Index texts.

        Raises:
            ImportError: bm25s is not installed.
        """
        bm25s = require("bm25s", "BM25 needs bm25s", extra="synth")
        self._texts = len(texts)
        self._known: dict[str, int] = {}
        ids = [
            [self._known.setdefault(word, len(self._known)) for word in words(text)]
            for text in texts
        ]
        self._index: Any = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
        self._index.index(bm25s.tokenization.Tokenized(ids, self._known), show_progress=False)

    def scores(self, query: str) -> NDArray[np.float32]:
        """The score of every text for a query, `[texts]`; 0 where they share no word."""
        asked = [self._known[word] for word in words(query) if word in self._known]
        if not asked:
            return np.zeros(self._texts, np.float32)
        found: NDArray[np.float32] = self._index.get_scores_from_ids(asked)
        return found
