"""Data for training: every convention is read, every mistake is named, every order repeats."""

from __future__ import annotations

import gzip
import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_embeddings.records.examples import (
    Conversation,
    Example,
    Message,
    read_conversations,
    read_examples,
    read_texts,
)
from llm_embeddings.records.sources import Source, sources_of
from llm_embeddings.training.batches.lengths import within
from llm_embeddings.training.batches.mixture import Mixture, shuffled
from llm_embeddings.training.batches.passages import cut, read_passages

ROW = {"query": "q", "pos": ["p"], "neg": ["n"]}


def write(path: Path, *rows: Any) -> Path:
    """Rows as JSON lines; a string is a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def only(path: Path, **options: Any) -> Example:
    (example,) = read_examples(Source(path, **options))
    return example


CONVENTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "flagembedding": ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1.0]}, ("n",)),
    "strings": ({"query": "q", "pos": "p", "neg": "n"}, ("n",)),
    "echo-data": ({"query": "q", "positive": "p", "negative": "n"}, ("n",)),
    "anchor": ({"anchor": "q", "positive": "p", "negative": "n"}, ("n",)),
    "numbered": (
        {"anchor": "q", "positive": "p", "negative_10": "c", "negative_2": "b", "negative_1": "a"},
        ("a", "b", "c"),
    ),
    "missing numbered": (
        {"anchor": "q", "positive": "p", "negative_1": "a", "negative_2": None},
        ("a",),
    ),
    "pair": ({"anchor": "q", "positive": "p"}, ()),
    "labelled": ({"sentence1": "q", "sentence2": "p", "label": 1}, ()),
    "nli": ({"premise": "q", "hypothesis": "p", "label": "Entailment"}, ()),
    "e5 short-long": (
        {"user_query": "q", "positive_document": "p", "hard_negative_document": "n"},
        ("n",),
    ),
    "e5 classification": ({"input_text": "q", "label": "p", "misleading_label": "n"}, ("n",)),
    "e5 long-long": ({"input": "q", "positive_document": "p"}, ()),
    "e5 sts": ({"S1": "q", "S2": "p", "S3": "n"}, ("n",)),
    "gritlm": ({"query": ["", "q"], "pos": [["", "p"]], "neg": [["", "n"]]}, ("n",)),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions(name: str, tmp_path: Path) -> None:
    row, negatives = CONVENTIONS[name]
    expected = Example("q", ("p",), negatives, source="data")
    assert only(write(tmp_path / "data.jsonl", row)) == expected


def test_formats_hold_the_same(tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "positive": "é", "negative_1": f"n{i}"} for i in range(3)]
    plain = write(tmp_path / "data.jsonl", *rows)
    packed = tmp_path / "data.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    table = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    first, *others = (list(read_examples(Source(path))) for path in (plain, packed, table))
    assert [example.query for example in first] == ["q0", "q1", "q2"]
    assert others == [first, first]


def test_labels_choose_pairs(tmp_path: Path) -> None:
    labels = [1, 0, "entailment", "neutral", "contradiction", True, -1]
    rows = [{"sentence1": str(i), "sentence2": "p", "label": x} for i, x in enumerate(labels)]
    path = write(tmp_path / "data.jsonl", *rows)
    assert [example.query for example in read_examples(Source(path))] == ["0", "2", "5"]


def test_instructions(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    assert only(write(path, ROW)).instruction is None
    assert only(path, instruction="I").instruction == "I"
    assert only(write(path, {**ROW, "prompt": "own"}), instruction="I").instruction == "own"
    assert only(write(path, {**ROW, "instruction": ""}), instruction="I").instruction == ""
    row = {"query": ["I", "q"], "pos": [["D", "p"]], "neg": [["D", "n"]]}
    framed = only(write(path, row))
    assert (framed.instruction, framed.document_instruction) == ("I", "D")
    mark = "!@#$%^&*()"
    row = {"query": f"I; {mark}q", "positive": f"{mark}p", "negative": f"{mark}n"}
    separated = only(write(path, row))
    assert (separated.instruction, separated.query, separated.negatives) == ("I;", "q", ("n",))
    symmetric = only(write(path, ROW), instruction="I", symmetric=True)
    assert symmetric.document_instruction == "I"


def test_instructions_alternate(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", ROW, ROW, ROW)
    examples = read_examples(Source(path, instruction=("a", "b")))
    assert [example.instruction for example in examples] == ["a", "b", "a"]


def test_columns_can_be_named(tmp_path: Path) -> None:
    row = {"title": "q", "body": "p", "other": "n", "more": ["m"], "task": "I"}
    columns = {
        "query": "title",
        "positive": "body",
        "negative": ["other", "more"],
        "instruction": "task",
    }
    example = only(write(tmp_path / "data.jsonl", row), columns=columns)
    assert example == Example("q", ("p",), ("n", "m"), "I", source="data")


MISTAKES: dict[str, tuple[tuple[Any, ...], str]] = {
    "broken line": ((ROW, '{"query": "q", "pos"'), "data.jsonl, line 2 is not JSON"),
    "no object": ((ROW, "", "[1]"), "data.jsonl, line 3 is not a JSON object but '\\[1\\]'"),
    "missing column": ((ROW, {"query": "q"}), "line 2 has no column 'pos'; it has: query"),
    "empty text": (({**ROW, "query": " "},), "line 1: column 'query' holds an empty text"),
    "empty negative": (({**ROW, "neg": [""]},), "line 1: column 'neg' holds an empty text"),
    "no text": (({**ROW, "pos": [3]},), "line 1: column 'pos' holds 3, not a text"),
    "no positive": (({**ROW, "pos": []},), "line 1: column 'pos' holds no positive"),
    "no negatives": ((ROW, {**ROW, "neg": []}), "line 2 has no negatives, which this stage needs"),
    "unknown columns": (({"a": "b"},), "columns a, none of which is known. Name them: Source"),
    "ambiguous": (
        ({**ROW, "positive": "x"},),
        "query, pos, neg, positive, which are ambiguous \\(query/pos or query/positive\\). Name",
    ),
    "two instructions": (
        ({**ROW, "instruction": "a", "prompt": "b"},),
        "has the columns instruction and prompt. Name",
    ),
    "instructions differ": (
        ({"query": "q", "pos": [["a", "p"]], "neg": [["b", "n"]]},),
        "line 1: its passages have different instructions: \\['a', 'b'\\]",
    ),
    "unknown label": (
        ({"sentence1": "q", "sentence2": "p", "label": 2},),
        "line 1: label 2 is neither 1 nor 0",
    ),
    "scores": (
        ({"sentence1": "q", "sentence2": "p", "score": 2},),
        "a score does not say which pairs are positive",
    ),
    "nothing": (("", " "), "data.jsonl is empty"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_name_file_and_line(name: str, tmp_path: Path) -> None:
    rows, message = MISTAKES[name]
    path = write(tmp_path / "data.jsonl", *rows)
    with pytest.raises(ValueError, match=message):
        list(read_examples(Source(path), negatives=True))


def test_mistakes_of_files(tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"one\nna\xefve\n")
    with pytest.raises(ValueError, match=r"latin.txt, line 2: byte 0xef is not UTF-8.*iconv"):
        list(read_texts(Source(latin)))
    cut_off = tmp_path / "cut.txt.gz"
    whole = gzip.compress(random.Random(0).randbytes(5000).hex().encode())
    cut_off.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut.txt.gz, after line 0: not a whole gzip file"):
        list(read_texts(Source(cut_off)))
    table = tmp_path / "no.parquet"
    table.write_bytes(b"no table")
    with pytest.raises(ValueError, match="no.parquet is not a parquet file"):
        list(read_texts(Source(table)))


def test_parquet_mistakes_name_the_row(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    pq.write_table(pa.Table.from_pylist([{"text": "a"}, {"text": None}]), path)
    with pytest.raises(ValueError, match=r"data.parquet, row 2: column 'text' holds None"):
        list(read_texts(Source(path)))


def test_texts(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes("\ufefffirst \r\n\n second\u2028still\n".encode())
    assert list(read_texts(Source(path))) == ["first ", " second\u2028still"]
    named = write(tmp_path / "data.jsonl", {"body": "a"})
    assert list(read_texts(Source(named, columns={"text": "body"}))) == ["a"]


def test_conversations(tmp_path: Path) -> None:
    turns = (Message("user", "hi"), Message("assistant", "hello"))
    messages = [{"role": turn.speaker, "content": turn.text} for turn in turns]
    rows = [{"text": ["hi", "hello"]}, {"messages": messages}, {"text": "plain"}]
    path = write(tmp_path / "data.jsonl", *rows)
    plain = Conversation((Message("text", "plain"),), "data")
    assert list(read_conversations(Source(path))) == [*[Conversation(turns, "data")] * 2, plain]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": ["hi", "hello", "bye"]}, "line 1: 3 turns, none of the assistant at the end"),
        ({"text": []}, "line 1: 0 turns"),
        (
            {"messages": [{"role": "system", "content": "x"}]},
            "turn 1 is of 'system', not of 'user'",
        ),
        ({"messages": "x"}, '"messages" is not a list'),
        ({"text": ["hi", ""]}, "line 1: column 'turn' holds an empty text"),
        ({"title": "x"}, "line 1 has no column 'text'; it has: title"),
    ],
)
def test_conversations_that_do_not_fit(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        list(read_conversations(Source(write(tmp_path / "data.jsonl", row))))


def test_passages_of_documents(tmp_path: Path) -> None:
    assert cut(" a  b\tc d e ", 2) == ["a  b", "c d", "e"]
    path = tmp_path / "data.txt"
    path.write_text("a b c d e\nf\n")
    found = [(p.text, p.summary, p.following) for p in read_passages(Source(path), words=2)]
    assert found == [("a b", "a b", "c d"), ("c d", "c d", "e"), ("e", "e", ""), ("f", "f", "")]


def test_passages_of_llara(tmp_path: Path) -> None:
    row = {"input": "a", "output_summarize": "b", "output_predict": ""}
    (passage,) = read_passages(Source(write(tmp_path / "data.jsonl", row)))
    assert (passage.text, passage.summary, passage.following) == ("a", "b", "")
    del row["output_predict"]
    with pytest.raises(ValueError, match="line 1: column 'output_predict' is missing"):
        list(read_passages(Source(write(tmp_path / "data.jsonl", row))))


def test_sources(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b.jsonl", "a.jsonl.gz", "README.txt", "x.csv"):
        (folder / name).touch()
    assert [source.name for source in sources_of([folder])] == ["a", "b"]
    odd = tmp_path / "odd@2.txt"
    odd.touch()
    listed = tmp_path / "mixture.json"
    listed.write_text(json.dumps([{"path": "odd@2.txt", "weight": 0.5, "symmetric": True}]))
    (plain,) = sources_of([odd])
    (weighted,) = sources_of([f"{odd}@3"])
    (from_list,) = sources_of([f"{listed}@4"])
    assert (plain.weight, weighted.weight) == (1, 3)
    assert (from_list.path, from_list.weight, from_list.symmetric) == (odd, 2, True)


def test_mistakes_of_sources(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or directory with training data"):
        sources_of([tmp_path / "no.jsonl"])
    (tmp_path / "data.csv").touch()
    with pytest.raises(ValueError, match=r"data.csv: not a known format of data \(.jsonl,"):
        sources_of([tmp_path / "data.csv"])
    with pytest.raises(ValueError, match="holds no file that ends in .jsonl,"):
        sources_of([tmp_path])
    with pytest.raises(ValueError, match="weight 0.0 is not positive"):
        Source(tmp_path / "data.txt", weight=0.0)
    with pytest.raises(ValueError, match="columns anchor mean nothing here"):
        Source(tmp_path / "data.txt", columns={"anchor": "a"})
    listed = tmp_path / "mixture.json"
    listed.write_text('[{"path": "data.txt", "wait": 1}]')
    with pytest.raises(ValueError, match="data.txt has unknown fields wait; a source has path"):
        sources_of([listed])
    listed.write_text('{"path": "data.txt"}')
    with pytest.raises(ValueError, match="is not a list of sources such as"):
        sources_of([listed])


@pytest.fixture
def files(tmp_path: Path) -> list[Source]:
    """A long source that holds two kinds of rows, and a short one of weight 2."""
    long = [{**ROW, "query": f"long {i}", "source": f"kind {i % 2}"} for i in range(50)]
    short = [{**ROW, "query": f"short {i}"} for i in range(10)]
    return [
        Source(write(tmp_path / "long.jsonl", *long)),
        Source(write(tmp_path / "short.jsonl", *short), weight=2.0),
    ]


def numbered(batches: Any) -> list[list[str]]:
    return [[example.query for example in batch] for batch in batches]


@pytest.mark.parametrize("same_source", [True, False])
@pytest.mark.parametrize("keep", [None, within(7)])
def test_batches_start_anywhere(files: list[Source], same_source: bool, keep: Any) -> None:
    def mixture() -> Mixture[Example]:
        return Mixture(files, read_examples, keep=keep, same_source=same_source, buffer=16)

    whole = numbered(islice(mixture().batches(4), 70))
    for start in (0, 1, 13, 16, 17, 40, 69):
        assert numbered(islice(mixture().batches(4, start), 70 - start)) == whole[start:]


def test_an_epoch_has_everything_in_proportion(files: list[Source]) -> None:
    mixture = Mixture(files, read_examples)
    batches = numbered(mixture.batches(5, epochs=1))
    assert len(batches) == mixture.batches_per_epoch(5) == 10 + 2 * 2
    seen = [query for batch in batches for query in batch]
    assert len(set(seen)) == 60
    assert sum(query.startswith("short") for query in seen) == 20
    assert numbered(Mixture(files, read_examples, seed=1).batches(5, epochs=1)) != batches
    twice = numbered(mixture.batches(5, epochs=2))
    assert twice[:14] == batches
    assert twice[14:] != batches


def test_a_small_weight_takes_another_part_each_epoch(files: list[Source]) -> None:
    mixture = Mixture([Source(files[0].path, weight=0.2)], read_examples)
    assert mixture.batches_per_epoch(5) == 2
    seen = [query for batch in numbered(mixture.batches(5, epochs=5)) for query in batch]
    assert len(set(seen)) == 50


def test_batches_are_of_one_source(files: list[Source]) -> None:
    batches = list(Mixture(files, read_examples).batches(5, epochs=1))
    kinds = [{example.source for example in batch} for batch in batches]
    assert all(len(kind) == 1 for kind in kinds)
    mixed = Mixture(files, read_examples, same_source=False)
    batches = list(mixed.batches(5, epochs=1))
    assert len(batches) == mixed.batches_per_epoch(5) == 14
    assert any(len({example.source for example in batch}) > 1 for batch in batches)


def test_what_is_left_of_each_kind_is_not_lost(files: list[Source]) -> None:
    batches = list(Mixture(files[:1], read_examples).batches(10, epochs=1))
    assert len({example.query for batch in batches for example in batch}) == 50


def test_the_filter_counts(files: list[Source]) -> None:
    (survey,) = Mixture(files[:1], read_examples, keep=within(6)).surveys
    assert (survey.items, survey.filtered) == (10, 40)
    with pytest.raises(ValueError, match="none of its 50 items is kept: check the limits"):
        Mixture(files, read_examples, keep=within(5))
    words = within(2, measure=lambda text: len(text.split()))
    assert Mixture(files, read_examples, keep=words).surveys[0].items == 50
    with pytest.raises(ValueError, match="shortest=5, longest=4: these limits keep no text"):
        within(4, shortest=5)


def test_what_was_counted_is_not_read_again(files: list[Source]) -> None:
    begun = Mixture(files, read_examples, keep=within(7))
    known = json.loads(json.dumps(begun.fingerprint()))

    def unread(source: Source) -> Any:
        raise AssertionError("read again")

    assert Mixture(files, unread, keep=within(7), known=known).surveys == begun.surveys
    with pytest.raises(ValueError, match=r"the data was 2 files when the run began and is 1"):
        Mixture(files[:1], unread, known=known)
    with pytest.raises(ValueError, match=r"short.jsonl is not what it was when the run began"):
        Mixture(files[::-1], unread, known=known)
    with files[1].path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"query": "one more", "pos": "p", "neg": "n"}) + "\n")
    with pytest.raises(ValueError, match=r"short.jsonl is not what it was when the run began"):
        Mixture(files, unread, known=known)


def test_mistakes_come_before_training(files: list[Source]) -> None:
    with pytest.raises(ValueError, match=r"short.jsonl has 10 items, fewer than a batch of 11"):
        Mixture(files, read_examples).batches_per_epoch(11)
    with pytest.raises(ValueError, match="all data together has 70 items, fewer than a batch of"):
        Mixture(files, read_examples, same_source=False).batches_per_epoch(71)
    with files[0].path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match="line 51 has no column 'query'"):
        Mixture(files, read_examples)


def test_a_file_that_changes_is_noticed(files: list[Source]) -> None:
    mixture = Mixture(files[1:], read_examples)
    write(files[1].path, ROW)
    with pytest.raises(ValueError, match="short.jsonl has lost rows since training started"):
        list(islice(mixture.batches(5), 3))


def test_fingerprint_follows_the_content(files: list[Source]) -> None:
    first = Mixture(files, read_examples).fingerprint()
    assert Mixture(files, read_examples, seed=7).fingerprint() == first
    assert json.loads(json.dumps(first)) == first
    assert first[0]["items"] == 50
    write(files[0].path, *[{**ROW, "query": "other"}] * 50)
    assert Mixture(files, read_examples).fingerprint() != first


def test_shuffling_holds_a_buffer_only() -> None:
    taken: list[int] = []

    def numbers() -> Any:
        for number in range(1000):
            taken.append(number)
            yield number

    order = shuffled(numbers(), random.Random(0), 20)
    head = list(islice(order, 10))
    assert len(taken) <= 31
    assert sorted([*head, *order]) == list(range(1000))
    assert head != sorted(head)


def test_the_smallest_kinds_are_put_together_where_many_wait(tmp_path: Path) -> None:
    """A `source` per row is streamed as if it had none; kinds with many rows keep to themselves."""
    taken: list[int] = []

    def read(source: Source) -> Any:
        for number in range(1000):
            taken.append(number)
            kind = "often" if number % 10 == 0 else f"once {number}"
            yield Example(str(number), ("p",), source=kind)

    path = write(tmp_path / "data.jsonl", ROW)
    mixture = Mixture([Source(path)], read, buffer=10)
    taken.clear()
    batches = mixture.batches(4, epochs=1)
    first = next(batches)
    assert {example.source for example in first} == {"often"}
    found = [first, *islice(batches, 64)]
    assert len(taken) < 600
    found += batches
    assert len({example.query for batch in found for example in batch}) == 1000
    often = [batch for batch in found if any(example.source == "often" for example in batch)]
    pure = [batch for batch in often if {example.source for example in batch} == {"often"}]
    assert len(pure) >= 20
