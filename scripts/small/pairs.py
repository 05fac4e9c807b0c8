"""Training pairs for the small model, mined from plain documents and from labelled triplets.

Every kind of pair is one table, and every batch comes from one table. Columns whose text starts
with "query: " are queries; all others are documents, so training sees what serving sends.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

QUERY = "query: "
WORDS, LONG_WORDS = 56, 160  # longest document of a pair
Pair = tuple[str, ...]
Tables = dict[str, list[Pair]]

_TITLE = re.compile(r"^([^.!?“”\n]{3,90})\. (?=\S)")
_SENTENCE = re.compile(r"(?<=[.!?])[\u2019\u201d)]*\s+(?=[A-Z\u2018\u201c(])")
_WORD = re.compile(r"[^\W\d_][\w\u2019'-]*")
_MINOR = frozenset(
    "a an the of and or in on for to with by from as at is are vs your its into how".split()
)
_GENERIC_TITLES = 4  # a heading used more often than this says nothing about its section
_TERM_QUERIES = ("{}", "{}", "what is {}?", "define {}", "meaning of {}")


@dataclass(frozen=True)
class Document:
    """One section of a book; `title` is empty where the section has no telling heading."""

    title: str
    sentences: tuple[str, ...]


def read_lines(path: Path) -> list[str]:
    """Lines of a gzipped UTF-8 file."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [line for line in stream.read().split("\n") if line.strip()]


def read_triplets(path: Path) -> list[dict[str, str]]:
    """Rows with one string each under `source`, `query`, `pos` and `neg`."""
    rows = [json.loads(line) for line in read_lines(path)]
    return [
        {"source": r["source"], "query": r["query"], "pos": r["pos"][0], "neg": r["neg"][0]}
        for r in rows
    ]


def split_title(text: str) -> tuple[str, str]:
    """Split "Heading Case. Body ..." into heading and body; no heading gives ("", text)."""
    match = _TITLE.match(text)
    if match is None:
        return "", text
    words = [word for word in _WORD.findall(match[1]) if word.lower() not in _MINOR]
    capitals = sum(word[0].isupper() for word in words)
    if not words or len(match[1].split()) > 12 or capitals < 0.75 * len(words):
        return "", text
    return match[1], text[match.end() :]


def read_documents(path: Path) -> list[Document]:
    """Documents of a corpus file, with their heading where it names the subject."""
    split = [split_title(line) for line in read_lines(path)]
    uses = Counter(title.lower() for title, _ in split)
    return [
        Document(
            title if uses[title.lower()] <= _GENERIC_TITLES else "",
            tuple(s for s in _SENTENCE.split(body) if s),
        )
        for title, body in split
    ]


def distinct_words(document: Document) -> set[str]:
    """Lower-case words of a document's body."""
    return set(_WORD.findall(" ".join(document.sentences).lower()))


def clip(text: str, words: int) -> str:
    """The first `words` words of a text."""
    parts = text.split(maxsplit=words)
    return " ".join(parts[:words])


def _excerpt(sentences: Sequence[str], rng: random.Random, words: int) -> str:
    """Consecutive sentences from a random start, at most `words` words."""
    start = rng.randrange(max(1, len(sentences) - 2))
    return clip(" ".join(sentences[start:]), words)


def titles(documents: Iterable[Document], rng: random.Random, words: int) -> Iterator[Pair]:
    """Heading -> an excerpt of its section."""
    for document in documents:
        if document.title and len(document.sentences) > 1:
            yield QUERY + document.title, _excerpt(document.sentences, rng, words)


def cloze(documents: Iterable[Document], rng: random.Random, words: int) -> Iterator[Pair]:
    """A sentence -> its neighbourhood without it (inverse cloze; one time in ten, with it)."""
    for document in documents:
        sentences = document.sentences
        if len(sentences) < 4:
            continue
        i = rng.randrange(len(sentences))
        if not 5 <= len(sentences[i].split()) <= 40:
            continue
        first = max(0, i - rng.randrange(1, 4))
        skip = () if rng.random() < 0.1 else (i,)
        rest = [s for j, s in enumerate(sentences[first:], first) if j not in skip]
        yield QUERY + sentences[i], clip(" ".join(rest), words)


def keywords(
    documents: Iterable[Document], rng: random.Random, words: int, rarity: Callable[[str], float]
) -> Iterator[Pair]:
    """A few telling words of an excerpt, in order -> the excerpt: the search-box query."""
    for document in documents:
        excerpt = _excerpt(document.sentences, rng, words)
        found = list(dict.fromkeys(_WORD.findall(excerpt)))
        chosen = set(
            sorted(found, key=lambda w: -(rng.random() ** (1.0 / max(rarity(w), 1e-3))))[
                : rng.randint(2, 7)
            ]
        )
        if len(found) > 12:
            yield QUERY + " ".join(w for w in found if w in chosen), excerpt


def labelled(rows: Iterable[dict[str, str]], rng: random.Random, words: int) -> Tables:
    """(anchor, positive, negative) from the triplets, one table a source."""
    tables: Tables = {}
    for row in rows:
        query, pos, neg = row["query"], clip(row["pos"], words), clip(row["neg"], words)
        if row["source"] == "openstax-glossary":
            query = rng.choice(_TERM_QUERIES).format(query)
        prefix = "" if row["source"] == "snli" else QUERY
        tables.setdefault(row["source"], []).append((prefix + query, pos, neg))
    return tables


def read_texts(data: Path) -> list[str]:
    """What the tokenizer and the counts are made from."""
    rows = read_triplets(data / "train/triplets_en.jsonl.gz")
    labelled_texts = [row[side] for row in rows for side in ("query", "pos", "neg")]
    return read_lines(data / "train/train.txt.gz") + labelled_texts


def read_tables(data: Path, rng: random.Random) -> Tables:
    """All mined pairs by kind; one document in eight is long.

    SNLI rows are left out: their share-alike licence would bind the weights, and they draw on the
    captions of STS-B.
    """
    documents = read_documents(data / "train/train.txt.gz")
    rng.shuffle(documents)
    uses = Counter(word for document in documents for word in distinct_words(document))
    rows = read_triplets(data / "train/triplets_en.jsonl.gz")
    rows = [row for row in rows if row["source"] != "snli"]

    def rarity(word: str) -> float:
        return math.log(len(documents) / (1 + uses[word.lower()]))

    tables = labelled(rows, rng, WORDS)
    tables |= {"title": [], "cloze": [], "keywords": []}
    cut = len(documents) // 8
    for part, words in ((documents[:cut], LONG_WORDS), (documents[cut:], WORDS)):
        titled = [document for document in part if document.title]
        tables["title"] += titles(titled, rng, words)
        tables["cloze"] += cloze(part, rng, words)
        tables["keywords"] += keywords(part, rng, words, rarity)
    return tables
