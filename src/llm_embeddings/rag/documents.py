"""Documents on their way into an index: what callers give, checked, and their chunks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..inputs import check_texts
from ..tokens import without_lone_surrogates
from ..vectors import Vectors


@dataclass(frozen=True, slots=True)
class Document:
    """A text in an index.

    Attributes:
        id: Its name.
        text: The text.
        metadata: What the caller wants to know of it; JSON.
    """

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A document on its way into the file.

    Attributes:
        document: The document.
        parent: The document it is a chunk of, or its own id.
        digest: Says whether the vector of a row with this id is still that of the document.
        vector: `[dim]`, float32, unit length; None = not needed, or not there yet.
    """

    document: Document
    parent: str
    digest: str
    vector: Vectors | None = None


def documents_of(
    texts: Sequence[str],
    ids: Sequence[str] | None,
    metadata: Sequence[Mapping[str, Any]] | None,
) -> tuple[list[str], list[Document]]:
    """The id of each text, and each document once; checked before any of them is embedded.

    Arguments and errors are those of `DocumentIndex.add`.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string: pass a list of documents")
    strings = list(map(without_lone_surrogates, check_texts(texts)[0]))
    names = [digest_of(text)[:16] for text in strings] if ids is None else list(ids)
    facts = [{} for _ in strings] if metadata is None else [dict(one) for one in metadata]
    if not len(strings) == len(names) == len(facts):
        raise ValueError(
            f"{len(strings)} texts, {len(names)} ids and {len(facts)} metadata: give one of each "
            "per text"
        )
    seen: dict[str, Document] = {}
    for name, text, fact in zip(names, strings, facts, strict=True):
        if not isinstance(name, str):
            raise TypeError(f"id {name!r} is {type(name).__name__}, not a string")
        if name in seen and seen[name].text != text:
            raise ValueError(f"id {name!r} is given to two texts")
        try:
            json.dumps(fact)
        except (TypeError, ValueError) as error:
            raise TypeError(f"metadata of {name!r} are not JSON: {error}") from error
        seen[name] = Document(name, text, fact)
    return names, list(seen.values())


def digest_of(text: str) -> str:
    """A name for exactly this text."""
    return hashlib.sha256(text.encode()).hexdigest()


def chunk_rows(whole: Document, spans: Sequence[tuple[int, int]], *, late: bool) -> list[Row]:
    """Rows of a document's chunks; with `late`, their digests depend on the whole document."""
    context = digest_of(whole.text) if late else ""
    rows = []
    for number, (start, end) in enumerate(spans):
        text = whole.text[start:end]
        metadata = {**whole.metadata, "parent": whole.id, "start": start, "end": end}
        digest = digest_of(f"{context} {start} {end}\n{text}") if late else digest_of(text)
        rows.append(Row(Document(f"{whole.id}#{number}", text, metadata), whole.id, digest))
    return rows


def span_of(row: Row) -> tuple[int, int]:
    """Begin and end of a chunk in its document, in characters."""
    return row.document.metadata["start"], row.document.metadata["end"]
