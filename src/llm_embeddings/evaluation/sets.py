"""Evaluation sets in files of one's own: pairs, retrieval, classification, clustering."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records.lines import Row, read_rows

_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
_KINDS = (
    "a file of sentence pairs (a, b, score) or of texts (text, label), or a directory with "
    "corpus.jsonl, queries.jsonl and qrels.tsv, or with train.jsonl and test.jsonl"
)


@dataclass(frozen=True, slots=True)
class Set:
    """What all kinds of sets have.

    Attributes:
        name: Name of the file or directory, without its ending.
        files: The files it was read from.
    """

    name: str
    files: tuple[Path, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the files' bytes, 64 hex digits."""
        whole = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        return whole.hexdigest()


@dataclass(frozen=True, slots=True)
class Pairs(Set):
    """Sentence pairs with people's scores of their similarity.

    Attributes:
        first: One sentence of each pair.
        second: The other sentence of each pair.
        wanted: People's scores, `[pairs]`.
    """

    first: list[str]
    second: list[str]
    wanted: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Retrieval(Set):
    """Queries, documents, and which documents are relevant to which query.

    Attributes:
        documents: Texts by id; a title goes before its text.
        queries: Texts by id, of queries that have a relevant document.
        relevant: By query id, the gain of each relevant document, above 0, by its id.
        shared_ids: Whether queries are documents too, so that the document with a query's id is
            the query itself and no hit. It is so if some id has the same text on both sides (as in
            ArguAna and Quora); ids that are merely numbers do not tell.
    """

    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, dict[str, float]]
    shared_ids: bool


@dataclass(frozen=True, slots=True)
class Clustering(Set):
    """Texts and the groups they belong to."""

    texts: list[str]
    labels: list[str]


@dataclass(frozen=True, slots=True)
class Classification(Set):
    """Texts with labels to learn from, and texts with labels to be predicted."""

    train_texts: list[str]
    train_labels: list[str]
    texts: list[str]
    labels: list[str]


AnySet = Pairs | Retrieval | Classification | Clustering


def read_set(path: str | Path) -> AnySet:
    """Read a set, of the kind that its files tell.

    Args:
        path: A directory in BEIR's form; a directory with train.jsonl and test.jsonl, or one of two
            files whose names differ in "train" and "test" alone: classification; a file with the
            columns a, b and score: pairs; one with text and label: clustering.

    Raises:
        OSError: a file is missing.
        ValueError: a file that does not fit; the message names it and the line.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "corpus.jsonl").exists():
            return read_retrieval(path)
        if (path / "test.jsonl").exists():
            return read_classification(path / "train.jsonl", path / "test.jsonl", name=path.name)
        raise ValueError(f"{path} has neither corpus.jsonl nor test.jsonl: give {_KINDS}")
    if not path.name.lower().endswith(_SUFFIXES):
        raise ValueError(f"{path} does not end in one of {', '.join(_SUFFIXES)}: give {_KINDS}")
    columns = next(read_rows(path)).values
    if "a" in columns:
        return read_pairs(path)
    if "label" not in columns:
        raise ValueError(f"{path} has the columns {', '.join(columns)}: give {_KINDS}")
    train = path.with_name(path.name.replace("test", "train"))
    if train != path and train.exists():
        return read_classification(train, path, name=_stem(path).replace("test", "").strip("_-."))
    return read_clustering(path)


def read_pairs(path: Path) -> Pairs:
    """Sentence pairs with a score.

    Raises:
        OSError: the file is missing.
        ValueError: a row that does not fit, or fewer than three rows.
    """
    first, second, wanted = [], [], []
    for row in read_rows(path):
        values = row.values
        if not all(isinstance(values.get(column), str) for column in "ab"):
            raise ValueError(
                f"{row.place}: a pair has the texts a and b, and a score, not {values!r:.60}"
            )
        if not _is_number(values.get("score")):
            raise ValueError(f"{row.place}: score is {values.get('score')!r}, not a number")
        first.append(values["a"])
        second.append(values["b"])
        wanted.append(float(values["score"]))
    if len(wanted) < 3:
        raise ValueError(f"{path} has {len(wanted)} pairs: a correlation needs at least three")
    return Pairs(_stem(path), (path,), first, second, np.array(wanted))


def read_retrieval(directory: Path) -> Retrieval:
    """A set in BEIR's form: corpus.jsonl, queries.jsonl, and qrels.tsv or qrels/test.tsv.

    Raises:
        OSError: a file is missing.
        ValueError: a row that does not fit, or no query with a relevant document.
    """
    corpus, queries = directory / "corpus.jsonl", directory / "queries.jsonl"
    qrels = directory / "qrels.tsv"
    if not qrels.exists():
        qrels = directory / "qrels" / "test.tsv"
    if not qrels.exists():
        raise FileNotFoundError(f"{directory} has neither qrels.tsv nor qrels/test.tsv")
    documents, bare = {}, {}
    for name, text, untitled in _texts(corpus):
        documents[name], bare[name] = text, untitled
    asked = {name: text for name, text, _ in _texts(queries)}
    relevant: dict[str, dict[str, float]] = {}
    for query, document, gain in _judgements(qrels):
        if gain > 0 and query in asked:
            relevant.setdefault(query, {})[document] = gain
    if not relevant:
        raise ValueError(f"{qrels}: no query of {queries} has a relevant document")
    return Retrieval(
        directory.name,
        (corpus, queries, qrels),
        documents,
        {name: asked[name] for name in relevant},
        relevant,
        any(text in (bare.get(name), documents.get(name)) for name, text in asked.items()),
    )


def read_clustering(path: Path) -> Clustering:
    """Texts with labels.

    Raises:
        OSError: the file is missing.
        ValueError: a row that does not fit, or fewer than two labels.
    """
    return Clustering(_stem(path), (path,), *_labelled(path))


def read_classification(train: Path, test: Path, *, name: str) -> Classification:
    """Texts with labels to learn from, and texts with labels to be told apart.

    Raises:
        OSError: a file is missing.
        ValueError: a row that does not fit, or a label that the training file lacks.
    """
    learnt, asked = _labelled(train), _labelled(test)
    unknown = sorted(set(asked[1]) - set(learnt[1]))
    if unknown:
        raise ValueError(f"{test} has the label {unknown[0]!r}, which {train} lacks")
    return Classification(name, (train, test), *learnt, *asked)


def _labelled(path: Path) -> tuple[list[str], list[str]]:
    """Texts and labels of a file's rows."""
    texts, labels = [], []
    for row in read_rows(path):
        text, label = row.values.get("text"), row.values.get("label")
        if not isinstance(text, str) or not isinstance(label, str | int):
            raise ValueError(f"{row.place}: a row has text and label, not {row.values!r:.60}")
        texts.append(text)
        labels.append(str(label))
    if len(set(labels)) < 2:
        raise ValueError(f"{path} has the one label {labels[0]!r}: there is nothing to tell apart")
    return texts, labels


def _texts(path: Path) -> Iterator[tuple[str, str, str]]:
    """Of each row the id, the text with its title before it, and the text alone."""
    seen: set[str] = set()
    for row in read_rows(path):
        name, text = row.values.get("_id"), row.values.get("text")
        if name is None or not isinstance(text, str):
            raise ValueError(f"{row.place}: a row has _id and text, not {', '.join(row.values)}")
        if str(name) in seen:
            raise ValueError(f"{row.place}: _id {name!r} stands in an earlier line too")
        seen.add(str(name))
        yield str(name), f"{_title(row)} {text}".strip(), text


def _title(row: Row) -> str:
    """The title of a row; "" if it has none."""
    title = row.values.get("title") or ""
    if not isinstance(title, str):
        raise ValueError(f"{row.place}: title is {title!r:.60}, not a text")
    return title


def _judgements(path: Path) -> Iterator[tuple[str, str, float]]:
    """Query id, document id and gain of each line of a TSV file, whose first line is a header."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[1:], 2):
        try:
            query, document, gain = line.split("\t")
            yield query, document, float(gain)
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number} is not query-id, corpus-id, score with tabs: {line!r:.60}"
            ) from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _stem(path: Path) -> str:
    """A file's name up to its first dot."""
    return path.name.split(".")[0]


def read_sets(paths: Sequence[str | Path]) -> list[AnySet]:
    """Read several sets.

    Raises:
        OSError: a file is missing.
        ValueError: a file that does not fit, or two sets of the same name.
    """
    found = [read_set(path) for path in paths]
    names = [each.name for each in found]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(f"{paths[place]}: another set is called {name!r}, too: rename one")
    return found
