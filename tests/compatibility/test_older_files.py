"""Models, caches and indexes of earlier versions open, and hold what was found in them then.

`scripts/compatibility_files.py` made them. The fingerprint of a model is a part of most of them:
where it changes, vector caches, indexes and unfinished outputs of users are lost. That of 0.1.0
passed over much that decides vectors, so what it names is made again or refused, and the tests of
its formats ask with the name of then (`names_of_then`). Where a format has to change, its test
becomes one of the error that names the way out.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from helpers import BUNDLED, assert_close
from helpers.compatibility import PLACE, VERSIONS, Older, run

from llm_embeddings import Encoder
from llm_embeddings.generation import Generator
from llm_embeddings.rag import DocumentIndex, Reader, StateStore


def test_a_saved_model(older: Older, encoder: Encoder) -> None:
    assert_close(encoder.encode_query(older.queries), older.vectors["query"])
    assert_close(encoder.encode_document(older.passages), older.vectors["document"])
    saved = json.loads(Path("model/llm_embeddings.json").read_text(encoding="utf-8"))
    (kept,) = saved["ranges"]
    np.testing.assert_array_equal(
        encoder.ranges[kept["dim"], kept["normalize"]], np.float32([kept["low"], kept["high"]])
    )
    int8 = encoder.encode_document(older.passages, precision="int8").astype(int)
    assert np.abs(int8 - older.vectors["int8"]).max() <= 1  # a number at the border may fall over


@pytest.mark.usefixtures("names_of_then")
def test_fingerprints(older: Older, encoder: Encoder) -> None:
    """Other ones than before make every cache and index of a user worthless: is it worth that?"""
    found = {role: encoder.fingerprint(role) for role in ("query", "document")}
    assert found == older.expected["model"]["fingerprints"]


def cached(older: Older) -> tuple[int, int]:
    """Hits and misses of the vector cache, for all of its texts."""
    encoder = Encoder.from_pretrained(
        "model", dtype="float32", device="cpu", vector_cache="vectors.sqlite"
    )
    cache = encoder.vector_cache
    assert cache is not None
    assert_close(encoder.encode_query(older.queries), older.vectors["query"])
    assert_close(encoder.encode_document(older.passages), older.vectors["document"])
    cache.close()
    encoder.close()
    return cache.hits, cache.misses


@pytest.mark.usefixtures("names_of_then")
def test_a_vector_cache_has_every_vector(older: Older) -> None:
    assert cached(older) == (older.expected["vector_cache"]["states"], 0)


@pytest.mark.usefixtures("names_of_then")
@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
def test_a_search_index(older: Older, embedded: list[str], moved: bool) -> None:
    """Files that lie elsewhere than they did are read again, and not embedded again."""
    if not moved:
        lay_out(older.folder)
    query = older.queries[1]
    command = ("search", "notes", query, "--model", "model", "--index", "search", "--json")
    done = run(*command, "--mode", "vector")
    assert embedded == [query]
    assert ("2 files read, 0 passages embedded" in done.stderr) == moved, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = older.expected["search"]["hits"]
    assert [hit.pop("score") for hit in found] == pytest.approx(
        [hit.pop("score") for hit in wanted], abs=2e-4
    )
    assert [{name: hit[name] for name in wanted[0]} for hit in found] == wanted
    words = run(*command, "--mode", "words")
    assert embedded == [query] * 2
    assert "hedge" in json.loads(words.stdout.splitlines()[0])["text"]


def lay_out(folder: Path) -> None:
    """Let an index's files lie, in name and time, where they lay when it was made."""
    with contextlib.closing(sqlite3.connect("search/index.sqlite")) as index, index:
        for path, time in index.execute("SELECT path, mtime_ns FROM files").fetchall():
            place = os.fsdecode(path).replace(PLACE, str(folder))
            os.utime(place, ns=(time, time))
            row = (os.fsencode(place), Path(place).stat().st_mtime_ns, path)
            index.execute("UPDATE files SET path = ?, mtime_ns = ? WHERE path = ?", row)


@pytest.mark.usefixtures("names_of_then")
def test_a_document_index(older: Older, encoder: Encoder, embedded: list[str]) -> None:
    index = DocumentIndex(encoder, "documents.sqlite")
    names = [f"p{number}" for number in range(6)]
    index.add(older.passages[:6], ids=names, metadata=[{"of": "six"}] * 6)
    index.add_chunked([" ".join(older.passages[6:])], 60, ids=["long"], late=True)
    assert embedded == []
    hits = index.search(older.queries[0], k=20, mode="vector")
    assert embedded == older.queries[:1]
    wanted = older.expected["documents"]["hits"]
    assert [[hit.id, hit.metadata] for hit in hits] == [[one, facts] for one, _, facts in wanted]
    assert_close([hit.score for hit in hits], [score for _, score, _ in wanted])
    (hit,) = index.search(older.passages[2], k=1, mode="words")
    assert hit.text == older.passages[2]
    index.close()


@pytest.mark.usefixtures("names_of_then")
def test_kept_states_of_documents(older: Older) -> None:
    encoder = Encoder.from_pretrained(BUNDLED / "gritlm-7b/model", dtype="float32", device="cpu")
    reader = Reader(Generator(encoder), states=StateStore("states"))
    wanted = older.expected["states"]
    assert reader.states is not None
    assert len(reader.states) == wanted["documents"]
    assert reader.prepare(older.passages[: wanted["documents"]]) == 0
    answer = reader.answer(older.queries[0], older.passages[:1], max_new_tokens=8)
    assert (list(answer.ids), answer.cached_tokens) == (wanted["answer"], wanted["cached"])
    encoder.close()


@pytest.mark.parametrize("older", VERSIONS[:1], indirect=True, ids=["0.1.0"])
def test_what_0_1_0_named_is_made_again_or_refused(older: Older, encoder: Encoder) -> None:
    """Its fingerprints were the same for models that embed differently."""
    states = older.expected["vector_cache"]["states"]
    assert cached(older) == (0, states)
    assert cached(older) == (states, 0)
    with pytest.raises(ValueError, match=r"made with (model|version) .* or another file.* 0\.1 "):
        DocumentIndex(encoder, "documents.sqlite")
    with pytest.raises(ValueError, match=r"(?s)states .* 0\.1.*another folder, or delete this one"):
        StateStore("states").bind(encoder.fingerprint("document", ""))
    command = ("search", "notes", older.queries[1], "--model", "model", "--index", "search")
    assert "--rebuild makes it anew" in run(*command, exit_code=1).stderr
    assert "Water the roses" in run(*command, "--rebuild").stdout
