"""Bits that a disk has turned over are made good where the texts are there, else named."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.compatibility import run

from llm_embeddings import Encoder
from llm_embeddings.rag import DocumentIndex
from llm_embeddings.storage.blocks import seal, unseal


def test_a_seal_holds_numbers_and_what_they_belong_to() -> None:
    block = seal(b"12345678", "key", b"more")
    assert unseal(block, "key", b"more") == b"12345678"
    assert unseal(block, "kez", b"more") is None
    assert unseal(block, "keym", b"ore") is None
    assert unseal(block[:-1] + b"x", "key", b"more") is None
    assert unseal("text") is None
    assert unseal(b"12345678") == b"12345678", "a version without seals wrote it"
    assert unseal(b"12345678", older=False) is None
    chosen = random.Random(0)
    for _ in range(200):
        other = bytearray(block)
        other[chosen.randrange(len(block))] ^= 1 << chosen.randrange(8)
        assert unseal(bytes(other), "key", b"more") is None


def changed(path: Path, table: str, column: str) -> None:
    """Turn over a bit in the middle of the first block of a table."""
    with closing(sqlite3.connect(path)) as file, file:
        (block,) = file.execute(f"SELECT {column} FROM {table} ORDER BY rowid").fetchone()
        other = bytearray(block)
        other[len(other) // 2] ^= 64
        where = f"rowid = (SELECT min(rowid) FROM {table})"
        file.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (bytes(other),))


def test_a_cached_vector_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    texts = ["Cats purr.", "Dogs bark."]
    encoder = Encoder.from_pretrained(device="cpu", vector_cache=path)
    cache, wanted = encoder.vector_cache, encoder.encode(texts)
    assert cache is not None
    changed(path, "vectors", "vector")
    np.testing.assert_allclose(encoder.encode(texts), wanted, atol=1e-6)
    assert (cache.hits, cache.misses) == (1, 3)
    np.testing.assert_allclose(encoder.encode(texts), wanted, atol=1e-6)
    assert (cache.hits, cache.misses) == (3, 3)
    encoder.close()


def test_documents_are_embedded_again(
    tmp_path: Path, e5: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "documents.sqlite"
    index = DocumentIndex(e5, path)
    index.add(["Cats purr.", "Dogs bark."], ids=["cats", "dogs"])
    wanted = [(hit.id, hit.score) for hit in index.search("pets")]
    index.close()
    changed(path, "documents", "vector")
    index = DocumentIndex(e5, path)
    found = [(hit.id, hit.score) for hit in index.search("pets")]
    assert [name for name, _ in found] == [name for name, _ in wanted]
    np.testing.assert_allclose([s for _, s in found], [s for _, s in wanted], atol=1e-6)
    assert "1 documents are not those that were written ('cats')" in caplog.text
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE documents SET text = 'Dogs bite.' WHERE id = 'dogs'")
    index = DocumentIndex(e5, path)
    with pytest.raises(ValueError, match=r"documents.sqlite is damaged: 1 .*'dogs'.*again"):
        index.search("pets")
    with pytest.raises(ValueError, match="'dogs'"):
        index.get(["dogs"])
    index.add(["Dogs bark."], ids=["dogs"])
    assert [hit.id for hit in index.search("pets")] == [name for name, _ in wanted]
    index.close()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("metadata = '[]'", "cats"),
        ("parent = 'dogs'", "cats"),
        ("id = CAST(x'ff' AS TEXT)", "\udcff"),
    ],
)
def test_documents_that_say_something_else_are_named(
    tmp_path: Path, e5: Encoder, change: str, name: str
) -> None:
    path = tmp_path / "documents.sqlite"
    index = DocumentIndex(e5, path)
    index.add(["Cats purr.", "Dogs bark."], ids=["cats", "dogs"], metadata=[{"page": 1}, {}])
    index.close()
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(f"UPDATE documents SET {change} WHERE id = 'cats'")
    index = DocumentIndex(e5, path)
    with pytest.raises(ValueError, match="is damaged: 1 documents are not those") as error:
        index.search("pets")
    assert repr(name) in str(error.value)
    assert index.delete([name]) == 1
    index.add(["Cats purr."], ids=["cats"], metadata=[{"page": 1}])
    assert {(hit.id, str(hit.metadata)) for hit in index.search("pets")} == {
        ("cats", "{'page': 1}"),
        ("dogs", "{}"),
    }
    index.close()


def test_words_of_documents_are_indexed_again(tmp_path: Path, e5: Encoder) -> None:
    path = tmp_path / "documents.sqlite"
    index = DocumentIndex(e5, path)
    index.add(["Cats purr.", "Dogs bark."], ids=["cats", "dogs"])
    wanted = index.search("purr", mode="words")
    index.close()
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("DELETE FROM words")
    index = DocumentIndex(e5, path)
    assert index.search("purr", mode="words") == wanted
    index.close()


@pytest.mark.slow
def test_files_are_embedded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes").mkdir()
    Path("notes/cats.txt").write_text("Cats purr when happy.", encoding="utf-8")
    Path("notes/rust.txt").write_text("Rust never sleeps.", encoding="utf-8")
    command = ("search", "notes", "pets", "--index", "index", "--json")
    wanted = run(*command).stdout
    changed(Path("index/index.sqlite"), "contents", "vectors")
    assert "is damaged: the passages of 1 files" in run(*command, exit_code=1).stderr
    assert run(*command).stdout == wanted


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_parts_of_an_output_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    from llm_embeddings.cli.encode import journal

    monkeypatch.chdir(tmp_path)
    rows = "".join(f'{{"text": "row {number} of a table"}}\n' for number in range(8))
    Path("texts.jsonl").write_text(rows, encoding="utf-8")
    command = ("encode", "texts.jsonl", "--chunk", "2", "--quiet", "-o")
    run(*command, f"whole.{suffix}")
    append = journal.Journal.append

    def full(self: journal.Journal, *arguments: Any) -> None:
        if len(self.finished) == 3:
            raise OSError("the disk is full")
        append(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "append", full)
        run(*command, f"broken.{suffix}", exit_code=1)
    spool = Path(f"broken.{suffix}.partial/rows")
    data = bytearray(spool.read_bytes())
    data[len(data) // 2] ^= 1
    spool.write_bytes(data)
    run(*command, f"broken.{suffix}")
    assert Path(f"broken.{suffix}").read_bytes() == Path(f"whole.{suffix}").read_bytes()
