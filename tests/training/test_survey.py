"""What files hold: every row is read of small ones, the first rows of large ones."""

from __future__ import annotations

import gzip
import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_embeddings.records.examples import Example, read_examples
from llm_embeddings.records.sources import Source
from llm_embeddings.training.batches import survey
from llm_embeddings.training.batches.lengths import within
from llm_embeddings.training.batches.mixture import Mixture

ROW = {"query": "q", "pos": ["p"], "neg": ["n"]}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def numbered(batches: Any) -> list[list[str]]:
    return [[example.query for example in batch] for batch in batches]


@pytest.fixture(autouse=True)
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "_LEAST", 1000)


def large(tmp_path: Path, suffix: str, rows: int = 4000) -> Source:
    """A file of half a megabyte: every second row of it is a pair."""
    path = tmp_path / f"data{suffix}"
    values = [
        {"sentence1": f"q {i}", "sentence2": "p" * 100, "label": 1 - i % 2} for i in range(rows)
    ]
    text = "".join(json.dumps(value) + "\n" * (1 + i % 3) for i, value in enumerate(values))
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(values), path, compression="none", use_dictionary=False)
    else:
        path.write_bytes(gzip.compress(text.encode()) if suffix[-1] == "z" else text.encode())
    return Source(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_of_large_files_the_first_rows_are_read(suffix: str, tmp_path: Path) -> None:
    source = large(tmp_path, suffix)
    taken: list[Example] = []

    def read(source: Source) -> Any:
        for example in read_examples(source):
            taken.append(example)
            yield example

    mixture = Mixture([source], read, whole=source.path.stat().st_size - 1)
    (found,) = mixture.surveys
    assert 0 < len(taken) < 1000
    assert found.sampled
    assert found.items == pytest.approx(2000, rel=0.03)
    (whole,) = Mixture([source], read_examples).surveys
    assert (whole.sampled, whole.items, whole.sha256) == (False, 2000, found.sha256)


def test_many_files_share_what_is_read(tmp_path: Path) -> None:
    sources = []
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        sources.append(large(tmp_path / str(number), ".jsonl", rows=400))
    taken = []

    def read(source: Source) -> Any:
        for example in read_examples(source):
            taken.append(example)
            yield example

    found = Mixture(sources, read, whole=200_000).surveys
    assert all(each.sampled for each in found)
    assert len(taken) < 0.1 * sum(each.items for each in found)
    assert not any(each.sampled for each in Mixture(sources, read, whole=400_000).surveys)


def test_where_each_row_is_an_item_the_number_is_exact(tmp_path: Path) -> None:
    path = write(
        tmp_path / "data.jsonl", *({**ROW, "query": f"{i:>{i % 90}}?"} for i in range(999))
    )
    mixture = Mixture([Source(path)], read_examples, whole=20_000)
    assert mixture.surveys[0].items == 999
    seen = [example.query for batch in mixture.batches(9, epochs=1) for example in batch]
    assert len(set(seen)) == len(seen) == 999
    known = json.loads(json.dumps(mixture.fingerprint()))
    assert Mixture([Source(path)], read_examples, known=known).surveys == mixture.surveys


def test_a_pass_that_was_estimated_too_long_begins_again(tmp_path: Path) -> None:
    rows = [ROW] * 100 + [{**ROW, "query": "x" * 500}] * 100
    path = write(tmp_path / "data.jsonl", *rows)
    keep = within(100)

    def mixture() -> Mixture[Example]:
        return Mixture([Source(path)], read_examples, keep=keep, whole=50_000, buffer=16)

    assert mixture().surveys[0].items == 200  # half of them are filtered, none of the first
    batches = numbered(mixture().batches(10, epochs=2))
    assert len(batches) == 40
    assert numbered(mixture().batches(10, 25, epochs=2)) == batches[25:]
    running = mixture().batches(10)
    next(running)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(ROW) + "\n")
    with pytest.raises(ValueError, match=r"data.jsonl has changed since training started"):
        list(islice(running, 30))


def test_mistakes_in_large_files_are_named(tmp_path: Path) -> None:
    source = large(tmp_path, ".jsonl")
    lines = source.path.read_text().splitlines()
    options: dict[str, Any] = {"whole": 100_000}
    (tmp_path / "first.jsonl").write_text("\n".join([lines[0], "{", *lines]))
    with pytest.raises(ValueError, match=r"first.jsonl, line 2 is not JSON"):
        Mixture([Source(tmp_path / "first.jsonl")], read_examples, **options)
    (tmp_path / "cut.jsonl").write_text("\n".join(lines)[:-5])
    with pytest.raises(ValueError, match=r"cut.jsonl, its last line is not JSON"):
        Mixture([Source(tmp_path / "cut.jsonl")], read_examples, **options)
    (tmp_path / "later.jsonl").write_text("\n".join([*lines, "{", *lines]))
    mixture = Mixture([Source(tmp_path / "later.jsonl")], read_examples, **options)
    with pytest.raises(ValueError, match=rf"later.jsonl, line {len(lines) + 1} is not JSON"):
        list(mixture.batches(10, epochs=1))
    packed = large(tmp_path, ".jsonl.gz")
    packed.path.write_bytes(packed.path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"data.jsonl.gz: not a whole gzip file"):
        Mixture([packed], read_examples, whole=10_000)


def test_where_the_first_rows_give_nothing_all_are_read(tmp_path: Path) -> None:
    row = {"sentence1": "q", "sentence2": "p", "label": 0}
    path = write(tmp_path / "data.jsonl", *[row] * 1000, {**row, "label": 1})
    (found,) = Mixture([Source(path)], read_examples, whole=1000).surveys
    assert (found.items, found.sampled) == (1, False)


def test_a_source_may_be_its_first_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", *({**ROW, "query": str(i)} for i in range(9)))
    assert [row.query for row in read_examples(Source(path, rows=2))] == ["0", "1"]
    (found,) = Mixture([Source(path, rows=5)], read_examples, whole=10).surveys
    assert (found.items, found.sampled) == (5, False)
    with pytest.raises(ValueError, match="rows 0 is not positive"):
        Source(path, rows=0)


def test_counts_of_a_large_file_are_noted_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "_NOTED", 0)
    source = large(tmp_path, ".jsonl")
    os.utime(source.path, (1e9, 1e9))
    monkeypatch.setattr("llm_embeddings.storage.hashing._SETTLED_SECONDS", 0.0)
    first = Mixture([source], read_examples, whole=10_000).surveys

    def unread(path: Path) -> Any:
        raise AssertionError("counted again")

    with monkeypatch.context() as patch:
        patch.setattr(survey, "_count", unread)
        assert Mixture([source], read_examples, whole=10_000).surveys == first
    with source.path.open("a", encoding="utf-8") as file:
        file.write('{"sentence1": "q", "sentence2": "p", "label": 1}\n')
    (changed,) = Mixture([source], read_examples, whole=10_000).surveys
    assert changed.sha256 != first[0].sha256
