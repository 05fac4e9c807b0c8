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


def _drop_words(text: str, rng: random.Random, share: float) -> str:
    """The text without a random share of its words, in order."""
    words = text.split()
    kept = [word for word in words if rng.random() >= share]
    return " ".join(kept or words)


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


def neighbours(documents: Iterable[Document], rng: random.Random) -> Iterator[Pair]:
    """Two consecutive sentences, both as documents."""
    for document in documents:
        if len(document.sentences) > 2:
            i = rng.randrange(len(document.sentences) - 1)
            a, b = document.sentences[i : i + 2]
            if min(len(a.split()), len(b.split())) >= 6:
                yield clip(a, 40), clip(b, 40)


def noisy(sentences: Iterable[str], rng: random.Random) -> Iterator[Pair]:
    """Two damaged copies of one sentence, both as documents."""
    for sentence in sentences:
        text = clip(sentence, 40)
        if len(text.split()) >= 6:
            yield _drop_words(text, rng, 0.35), _drop_words(text, rng, 0.35)


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


def _plain(text: str) -> str:
    """A text's words alone, for comparison."""
    return " ".join(re.findall(r"\w+", text.lower()))


def _read_clean_triplets(data: Path) -> list[dict[str, str]]:
    """Triplets that share no text with an STS-B file: SNLI draws on the same captions."""
    held_out = {
        _plain(row[side])
        for path in sorted((data / "sts").glob("stsb_en_*.jsonl"))
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
        for side in ("a", "b")
    }
    rows = read_triplets(data / "train/triplets_en.jsonl.gz")
    return [row for row in rows if held_out.isdisjoint(map(_plain, row.values()))]


def read_tables(data: Path, words: int, seed: int) -> Tables:
    """All training pairs by kind, documents of at most `words` words.

    Scarce kinds come more than once: glossary and headings twice, SNLI four times.
    """
    rng = random.Random(seed)
    documents = read_documents(data / "train/train.txt.gz")
    rng.shuffle(documents)
    titled = [document for document in documents if document.title]
    uses = Counter(word for document in documents for word in distinct_words(document))
    rows = _read_clean_triplets(data)
    rows += [row for row in rows if row["source"] != "medquad"]
    rows += [row for row in rows if row["source"] == "snli"]

    def rarity(word: str) -> float:
        return math.log(len(documents) / (1 + uses[word.lower()]))

    tables = labelled(rows, rng, words)
    tables["title"] = list(titles([*titled, *titled], rng, words))
    tables["cloze"] = list(cloze([*documents, *titled], rng, words))
    tables["keywords"] = list(keywords(documents, rng, words, rarity))
    tables["neighbours"] = list(neighbours(documents, rng))
    sentences = read_lines(data / "train/sentences.txt.gz")
    tables["noisy"] = list(noisy(sentences[:36_000], rng))
    return tables
