"""DocumentIndex: documents with metadata and vectors, and the nearest to a query."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..inputs import names_checked
from ..ranking.fusion import SearchMode
from ..ranking.nearest import Nearest, check_faiss
from .documents import Document, Row, chunk_rows, digest_of, documents_of, span_of
from .finding import Hit, Snapshot, check_mode
from .late import Split, check_late, late_vectors, spans_of
from .table import VERSION, DamagedRows, Table

if TYPE_CHECKING:
    from ..encoder import Encoder
    from ..vectors import Vectors

logger = logging.getLogger(__name__)

_BATCH = 256


class DocumentIndex:
    """An index that finds documents by meaning and by words, with any embedding model.

    With a path, each batch is committed once it is embedded, so the same call resumes an
    interrupted one. Threads may share an index.

    Example:
        >>> index = DocumentIndex(Encoder.from_pretrained(), "notes.db")  # doctest: +SKIP
        >>> index.add(["Paris is the capital of France.", "Cats purr."], ids=["paris", "cats"])
        >>> index.search("What is the capital of France?", k=1)[0].id
        'paris'

    Attributes:
        encoder: Embeds documents and queries.
    """

    @names_checked
    def __init__(
        self,
        encoder: Encoder,
        path: str | Path | None = None,
        *,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
        max_length: int | None = None,
        faiss: str | None = None,
    ) -> None:
        """Open an index, or start one.

        Args:
            encoder: Embeds documents and queries.
            path: File of the index; None = in memory.
            query_instruction: As in `Encoder.encode_query`.
            document_instruction: As in `Encoder.encode_document`.
            max_length: Most tokens of a document, as in `Encoder.encode`; the rest is cut off.
            faiss: Description of an index for `faiss.index_factory`, such as "HNSW32"; None =
                exact search.

        Raises:
            ImportError: `faiss` is asked for and not installed.
            ValueError: the file is no index, or one of another model, instruction or version of
                the format.
        """
        check_faiss(faiss)
        facts = {
            "version": VERSION,
            "model": encoder.fingerprint("document", document_instruction),
            "max_length": str(max_length or encoder.max_length),
        }
        self.encoder = encoder
        self._table = Table(path, facts)
        self._query_instruction = query_instruction
        self._document_instruction = document_instruction
        self._max_length, self._faiss = max_length, faiss
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None

    def __len__(self) -> int:
        """How many documents, or chunks of documents, there are."""
        return len(self._table)

    def add(
        self,
        texts: Sequence[str],
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[str]:
        """Add documents; one whose id is there already replaces that document.

        A text that is there already under its id is not embedded again.

        Args:
            texts: The documents.
            ids: Their ids; None = made from the texts, so that equal texts are one document.
            metadata: JSON objects that come back with hits; None = empty ones.

        Returns:
            The id of each text.

        Raises:
            TypeError: a text or an id is not a string, or metadata are not JSON.
            ValueError: not as many ids or metadata as texts, or an id with two texts.
        """
        names, documents = documents_of(texts, ids, metadata)
        for first in range(0, len(documents), _BATCH):
            batch = documents[first : first + _BATCH]
            self._put([Row(one, one.id, digest_of(one.text)) for one in batch])
        return names

    def add_chunked(
        self,
        texts: Sequence[str],
        split: int | Split,
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        *,
        late: bool = False,
    ) -> list[str]:
        """Add long documents in chunks, each found by itself.

        The ids of a document's chunks are "id#0", "id#1", ...; their metadata have "parent" (the
        document's id), "start" and "end" (in characters). They replace all chunks it had.

        Args:
            texts: The documents.
            split: Most characters of a chunk; or a function, such as `split_text` of a splitter of
                LangChain, whose chunks must be parts of the text, in its order.
            ids: Ids of the documents; None = made from the texts.
            metadata: Metadata of the documents, which each chunk gets.
            late: Late chunking (arXiv 2409.04701): the document is encoded once and whole, and a
                chunk's vector is the mean of its own tokens in their context.

        Returns:
            The ids of the chunks.

        Raises:
            TypeError: as in `add`.
            ValueError: as in `add`; a chunk that is not in its text; `late` with a recipe that is
                not bidirectional with mean pooling.
        """
        if late:
            check_late(self.encoder.recipe)
        found: list[str] = []
        for whole in documents_of(texts, ids, metadata)[1]:
            rows = chunk_rows(whole, spans_of(whole.text, split), late=late)
            self._put(rows, whole if late else None, parent=whole.id)
            found.extend(row.document.id for row in rows)
        return found

    def delete(self, ids: Sequence[str]) -> int:
        """Remove documents; the id of a chunked document removes all its chunks.

        Returns:
            How many documents or chunks were removed; unknown ids are passed over.
        """
        gone = self._table.delete(ids)
        self._changed()
        return gone

    def get(self, ids: Sequence[str] | None = None) -> list[Document]:
        """Documents by id, in the order of `ids`; without ids all, in the order they were added.

        Raises:
            KeyError: there is no document with such an id.
        """
        if ids is None:
            return self._table.all()
        found = self._table.get(ids)
        for name in ids:
            if name not in found:
                raise KeyError(f"there is no document {name!r} in {self._table.name}")
        return [found[name] for name in ids]

    @names_checked
    def search(self, query: str, k: int = 4, *, mode: SearchMode | None = None) -> list[Hit]:
        """The `k` documents that fit a query best, best first; all, if there are fewer.

        Args:
            query: The query.
            k: How many, at least 1.
            mode: "vector" ranks by cosine similarity; "words" by BM25, and finds only documents
                that share a word with the query; "hybrid" by both. None = "hybrid", or "vector"
                in an index with `faiss`.

        Raises:
            ValueError: `k` is not positive, or the mode cannot be.
        """
        if k < 1:
            raise ValueError(f"k={k} must be 1 or more")
        mode = check_mode(mode, approximate=self._faiss is not None)
        if mode == "words":
            return self._current().by_words(self._table, query, None, k)
        vector = self.encoder.encode_query(query, self._query_instruction, normalize=True)
        if mode == "vector":
            return self.search_vectors(vector[None], k)[0]
        return self._current().by_words(self._table, query, vector, k)

    def search_vectors(self, vectors: Vectors, k: int = 4) -> list[list[Hit]]:
        """The `k` documents nearest to each query.

        Args:
            vectors: Unit vectors of queries, `[queries, dim]`, float32.
            k: How many documents for each, at least 1.

        Returns:
            For each query its hits, best first.

        Raises:
            ValueError: `k` is not positive, or vectors of another dimension.
        """
        if k < 1 or np.ndim(vectors) != 2 or vectors.shape[1] != self.encoder.dimension:
            raise ValueError(
                f"k={k} must be 1 or more, and vectors of shape {np.shape(vectors)} [n, "
                f"{self.encoder.dimension}]"
            )
        queries = np.asarray(vectors, np.float32)
        return list(self._current().by_vectors(self._table, queries, k))

    def save(self, path: str | Path) -> None:
        """Write the whole index to a new file, which `DocumentIndex(encoder, path)` opens."""
        self._table.save(Path(path).expanduser())

    def close(self) -> None:
        """Close the file."""
        self._table.close()

    def _put(
        self, rows: Sequence[Row], whole: Document | None = None, parent: str | None = None
    ) -> None:
        """Embed rows that are new or changed, and commit all.

        With `whole`, the document the rows are chunks of, by late chunking. With `parent`, its
        earlier chunks are replaced.
        """
        known = self._table.digests(row.document.id for row in rows)
        new = [row for row in rows if known.get(row.document.id) != row.digest]
        instruction = self._document_instruction
        if new and whole is not None:
            spans = [span_of(row) for row in new]
            vectors = late_vectors(self.encoder, whole.text, spans, instruction=instruction)
        else:
            texts = [row.document.text for row in new]
            vectors = self.encoder.encode_document(
                texts, instruction, normalize=True, max_length=self._max_length
            )
        made = {
            row.document.id: replace(row, vector=vector)
            for row, vector in zip(new, vectors, strict=True)
        }
        parents = {row.parent for row in rows} | ({parent} if parent else set())
        self._table.put([made.get(row.document.id, row) for row in rows], parents)
        self._changed()

    def _current(self) -> Snapshot:
        """The documents as they are, their vectors in memory."""
        with self._lock:
            if self._snapshot is None:
                numbers, matrix = self._whole_vectors()
                self._snapshot = Snapshot(numbers, matrix, Nearest(matrix, self._faiss))
            return self._snapshot

    def _whole_vectors(self) -> tuple[NDArray[np.int64], Vectors]:
        """All numbers and vectors; those that a disk has changed are made from their texts.

        Raises:
            DamagedRows: a text has changed, too, or the vector was one of late chunking.
        """
        try:
            return self._table.vectors(self.encoder.dimension)
        except DamagedRows as damaged:
            if damaged.lost:
                raise
            logger.warning("vectors are made again: %s", damaged)
            texts = [one.text for one in damaged.whole]
            vectors = self.encoder.encode_document(
                texts, self._document_instruction, normalize=True, max_length=self._max_length
            )
            self._table.mend(damaged.whole, vectors)
            return self._table.vectors(self.encoder.dimension)

    def _changed(self) -> None:
        """Drop the vectors in memory, which the next search reads again."""
        with self._lock:
            self._snapshot = None
