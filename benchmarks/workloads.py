"""The texts that are embedded: real words of the bundled passages, seeded, at given lengths.

A text is a window of consecutive words of the passages, long enough for the tokens it should have
(counted by the Mistral tokenizer). There are no line breaks, because one of the peers replaces
them.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

from llm_embeddings.corpus import load_corpus

from .models import E5_TOKENIZER

QUERY_TOKENS = (8, 24)
_MEDIAN, _SIGMA = 120, 0.7  # sigma: 95th percentile about three times the median
_SHORTEST, _LONGEST = 8, 490  # what GritLM's frame leaves of its 512 tokens


@dataclass(frozen=True, slots=True)
class Words:
    """The passages as one sequence of words.

    Attributes:
        words: In order.
        tokens: Running total of their tokens; one more entry than words.
    """

    words: list[str]
    tokens: list[int]

    def window(self, start: int, tokens: int) -> str:
        """The longest window from word `start` with no more than `tokens` tokens."""
        end = start
        while self.tokens[end + 1] - self.tokens[start] <= tokens:
            end += 1
        return " ".join(self.words[start : max(end, start + 1)])


@functools.cache
def corpus_words() -> Words:
    """Words of all passages, three times over, so that a long window always fits."""
    from tokenizers import Tokenizer

    words = " ".join(document.passage for document in load_corpus()).split() * 3
    tokenizer = Tokenizer.from_file(str(E5_TOKENIZER / "tokenizer.json"))
    unique = sorted(set(words))
    encoded = tokenizer.encode_batch(unique, add_special_tokens=False)
    counts = {word: len(found.ids) for word, found in zip(unique, encoded, strict=True)}
    totals = [0]
    for word in words:
        totals.append(totals[-1] + counts[word])
    return Words(words, totals)


def texts_of(lengths: list[int], seed: int) -> list[str]:
    """Distinct texts of about the given numbers of tokens."""
    source = corpus_words()
    draw = random.Random(seed)
    third = len(source.words) // 3
    found: dict[str, None] = {}
    for length in lengths:
        before = len(found)
        while len(found) == before:
            found[source.window(draw.randrange(third), length)] = None
    return list(found)


def queries(count: int, seed: int = 1) -> list[str]:
    """W1, W4, W5: short queries."""
    draw = random.Random(seed)
    return texts_of([draw.randint(*QUERY_TOKENS) for _ in range(count)], seed)


def documents(count: int, seed: int = 2) -> list[str]:
    """W2: documents of lognormal length."""
    draw = random.Random(seed)
    lengths = [round(_MEDIAN * draw.lognormvariate(0.0, _SIGMA)) for _ in range(count)]
    return texts_of([min(max(length, _SHORTEST), _LONGEST) for length in lengths], seed)


def long_documents(count: int, tokens: int, seed: int = 3) -> list[str]:
    """W3: a few documents of nearly the same great length (92 to 100 % of `tokens`)."""
    draw = random.Random(seed)
    return texts_of([round(tokens * draw.uniform(0.92, 0.99)) for _ in range(count)], seed)
