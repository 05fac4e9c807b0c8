"""`llm-embeddings encode`: formats, mistakes, and files that survive any interruption."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import BUNDLED, assert_close
from typer.testing import CliRunner, Result

from llm_embeddings import Encoder
from llm_embeddings.batching import windows
from llm_embeddings.cli import app
from llm_embeddings.cli.encode import journal as journals
from llm_embeddings.cli.encode.read import MOST_ROWS, Source

MODEL = ["--model", str(BUNDLED / "e5-mistral/model"), "--dtype", "float32"]
TEXTS = [f"passage {i} is about {word}" for i, word in enumerate(["cats", "ducks", "été"] * 7)]
ROWS = [{"id": i, "body": text} for i, text in enumerate(TEXTS)]
Encode = Callable[..., Result]


@pytest.fixture
def encode(tmp_path: Path, load_once: None, monkeypatch: pytest.MonkeyPatch) -> Encode:
    """Runs `encode` in a directory of its own, in chunks of 4."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"COLUMNS": "120", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"})

    def run(*arguments: str, **options: Any) -> Result:
        return runner.invoke(app, ["encode", *arguments, *MODEL, "--chunk", "4"], **options)

    return run


@pytest.fixture(scope="module")
def wanted(e5: Encoder) -> Any:
    return e5.encode(TEXTS)


def write(path: Path) -> Path:
    """The rows in the format of a file's name."""
    if path.suffix == ".txt":
        path.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["id", "body"], dialect="excel")
            writer.writeheader()
            writer.writerows(ROWS)
    return path


def read(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """Vectors and the other columns."""
    if path.suffix == ".npy":
        return np.load(path), []
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return np.array([row.pop("embedding") for row in rows], np.float32), rows


@pytest.mark.parametrize("form", ["txt", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize("to", ["npy", "jsonl", "parquet"])
def test_formats(encode: Encode, wanted: Any, form: str, to: str) -> None:
    source = write(Path(f"in.{form}"))
    column = [] if form == "txt" else ["--column", "body"]
    result = encode(str(source), "-o", f"out.{to}", *column)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    vectors, rows = read(Path(f"out.{to}"))
    assert vectors.dtype == np.float32
    assert_close(vectors, wanted)
    if form == "txt" and rows:
        assert rows == [{"text": text} for text in TEXTS]
    elif rows:
        assert rows == [
            {**row, "id": str(row["id"]) if form == "csv" else row["id"]} for row in ROWS
        ]
    assert sorted(path.name for path in Path().iterdir()) == sorted([f"in.{form}", f"out.{to}"])


def test_npy_is_what_numpy_saves(encode: Encode) -> None:
    assert encode(str(write(Path("in.txt"))), "-o", "out.npy").exit_code == 0
    np.save("again.npy", np.load("out.npy"))
    assert Path("again.npy").read_bytes() == Path("out.npy").read_bytes()


def test_jsonl_numbers_are_exact(encode: Encode) -> None:
    write(Path("in.txt"))
    for to in ("npy", "jsonl"):
        assert encode("in.txt", "-o", f"out.{to}").exit_code == 0
    assert (read(Path("out.jsonl"))[0] == np.load("out.npy")).all()


@pytest.mark.parametrize("precision", ["float16", "int8", "ubinary"])
@pytest.mark.parametrize("to", ["npy", "jsonl", "parquet"])
def test_precision_and_dimensions(encode: Encode, e5: Encoder, precision: str, to: str) -> None:
    write(Path("in.txt"))
    options = ["--precision", precision, "--dimensions", "16"]
    result = encode("in.txt", "-o", f"out.{to}", *options)
    assert result.exit_code == 0, result.output
    found = read(Path(f"out.{to}"))[0]
    expected = e5.encode(TEXTS, precision=precision, truncate_dim=16)
    assert found.shape == expected.shape
    assert np.abs(found.astype(np.float32) - expected.astype(np.float32)).max() <= (
        1e-3 if precision == "float16" else 1
    )


def test_role_and_instruction(encode: Encode, e5: Encoder) -> None:
    write(Path("in.txt"))
    assert encode("in.txt", "-o", "q.npy", "--role", "query", "--instruction", "Do").exit_code == 0
    assert_close(np.load("q.npy"), e5.encode(TEXTS, "query", "Do"))


def test_a_filter(encode: Encode, wanted: Any) -> None:
    result = encode(input="".join(f"{text}\n" for text in TEXTS))
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["text"] for line in lines] == TEXTS
    assert_close([line["embedding"] for line in lines], wanted)


@pytest.mark.parametrize("to", ["npy", "jsonl", "parquet"])
def test_an_empty_input_is_an_empty_output(encode: Encode, e5: Encoder, to: str) -> None:
    Path("in.txt").touch()
    result = encode("in.txt", "-o", f"out.{to}")
    assert result.exit_code == 0, result.output
    assert len(read(Path(f"out.{to}"))[0]) == 0
    if to == "npy":
        assert np.load("out.npy").shape == (0, e5.dimension)


def test_lines_end_at_line_feeds_alone(encode: Encode, e5: Encoder) -> None:
    texts = ["a\x0bb\u2028c", "", "d\re"]
    Path("in.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(texts).encode())
    assert encode("in.txt", "-o", "out.npy").exit_code == 0
    assert_close(np.load("out.npy"), e5.encode(texts))


@pytest.mark.parametrize("form", ["txt", "parquet"])
@pytest.mark.parametrize("length", [1, 1100, 2**19])
def test_the_encoder_keeps_a_chunk_whole(tmp_path: Path, form: str, length: int) -> None:
    texts = [str(i).zfill(length) for i in range(1500 if length < 2000 else 5)]
    path = tmp_path / f"in.{form}"
    if form == "txt":
        path.write_text("\n".join(texts))
    else:
        pq.write_table(pa.table({"text": texts}), path)
    with Source(str(path), None, "text", None, MOST_ROWS) as source:
        chunks = [chunk.texts for chunk in source.chunks()]
    assert [text for chunk in chunks for text in chunk] == texts
    assert [list(windows(chunk)) for chunk in chunks] == [[chunk] for chunk in chunks]
    assert len(chunks) > 1


def test_odd_rows_come_through(encode: Encode) -> None:
    row = '{"text": "lone \\ud800", "n": null, "deep": {"a": [1, "é"]}}\n'
    Path("in.jsonl").write_text(f"{row}\n{row}", encoding="utf-8")
    assert encode("in.jsonl", "-o", "out.jsonl").exit_code == 0
    assert read(Path("out.jsonl"))[1] == [json.loads(row)] * 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", '{"body": 1, "id": 2}\n', "no column 'text'. It has: body, id."),
        ("in.csv", "id,body\n1,a\n", "no column 'text'. It has: id, body."),
        ("in.jsonl", '{"text": "a"}\n{"text": null}\n', "line 2: column 'text' is None"),
        ("in.jsonl", '{"text": "a"}\n[1]\n', "line 2 is not a JSON object"),
        ("in.jsonl", '{"text": "a"}\n{"text\n', "line 2 is not JSON"),
        ("in.csv", "text,id\na,1\nb\n", "line 3 has 1 fields, the first line 2"),
        ("in.csv", "text,text\na,1\n", "the column 'text' stands twice among text, text"),
        ("in.csv", " text,id\na,1\n", "no column 'text'. It has: ' text', id."),
        ("in.jsonl", '{"text": "a", "text": "b"}\n', "line 1 is not JSON: the key 'text' stands"),
        (
            "in.jsonl",
            '{"text": "a"}\n' + "[" * 100_000,
            "line 2 is not JSON that can be read: nest",
        ),
        ("in.jsonl", '{"text": "a"}\n{"text": "b", "x": NaN}\n', "line 2: NaN or an infinite"),
        ("in.txt", b"one\rtwo\rthree", "in carriage returns alone"),
        ("in.txt", b"good\nbad \xe9t\xe9\n", "line 2: byte 0xe9 is not UTF-8"),
        ("in.txt", "text".encode("utf-16"), "--encoding utf-16"),
        ("in.parquet", "text", "in.parquet is not a parquet file"),
        ("in.dat", "text", "--format"),
        ("in.jsonl", '{"text": "a", "embedding": 1}\n', "already"),
    ],
)
def test_mistakes_in_the_input(
    encode: Encode, name: str, content: str | bytes, message: str
) -> None:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    result = encode(name, "-o", "out.jsonl")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert [path.name for path in Path().iterdir()] == [name]


def test_columns_of_parquet_keep_what_rows_hold(encode: Encode) -> None:
    rows = [
        '{"text": "a \\ud800", "id": 123456789012345678901234567890, "of": {"x": ["\\udc00"]}}',
        '{"text": "b", "id": "two", "of": null, "n": NaN}',
    ]
    Path("in.jsonl").write_text("\n".join(rows))
    result = encode("in.jsonl", "-o", "out.parquet")
    assert result.exit_code == 0, result.output
    assert "kept as text, since values are of several types: id" in result.stderr
    first, second = read(Path("out.parquet"))[1]
    large = "123456789012345678901234567890"
    assert first == {"text": "a \ufffd", "id": large, "of": {"x": ["\ufffd"]}, "n": None}
    assert (second["id"], second["of"], np.isnan(second["n"])) == ("two", None, True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "b", "id": "two"}', "in.jsonl, line 6: column 'id' is 'two', not int64"),
        ('{"text": "b", "id": 9999999999999999999}', "is 9999999999999999999, not int64"),
        ('{"text": "b", "new": 1}', "line 6: the column 'new' comes only here"),
    ],
)
def test_rows_that_do_not_fit_are_named(encode: Encode, row: str, message: str) -> None:
    Path("in.jsonl").write_text("\n".join(['{"text": "a", "id": 1}'] * 4 + ["", row]))
    result = encode("in.jsonl", "-o", "out.parquet")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "write .jsonl, or make the column text in every row" in result.stderr


def test_a_header_without_rows_keeps_its_columns(encode: Encode) -> None:
    Path("in.csv").write_text("id,text\n")
    assert encode("in.csv", "-o", "out.parquet").exit_code == 0
    assert pq.read_schema("out.parquet").names == ["id", "text", "embedding"]


def test_a_column_that_is_there_twice_is_named(encode: Encode) -> None:
    table = pa.table([["a"], ["b"], ["c"]], names=["text", "id", "text"])
    pq.write_table(table, "in.parquet")
    result = encode("in.parquet", "-o", "out.npy")
    assert result.exit_code == 1
    assert "the column 'text' stands twice among text, id, text: rename one" in result.stderr


def test_other_encodings(encode: Encode, e5: Encoder) -> None:
    Path("in.txt").write_bytes("été\nd'été\n".encode("utf-16"))
    assert encode("in.txt", "-o", "out.npy", "--encoding", "utf-16").exit_code == 0
    assert_close(np.load("out.npy"), e5.encode(["été", "d'été"]))
    result = encode("in.txt", "-o", "other.npy", "--encoding", "utf-17")
    assert (result.exit_code, "'utf-17' is not known" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.txt", "-o", "out.npy"], "gone.txt: No such file or directory"),
        ([".", "-o", "out.npy", "--format", "txt"], ".: Is a directory"),
        (["in.txt", "-o", "out.pickle"], "must end in .npy, .parquet or .jsonl"),
        (["in.txt", "-o", "no/out.npy"], "the directory no does not exist"),
        (["in.txt", "-o", "."], ". is a directory"),
        (["in.txt", "-o", "out.npy", "--dimensions", "9999"], "truncate_dim=9999"),
        (["in.txt", "-o", "out.npy", "--instruction", "Do"], "instruction"),
    ],
)
def test_other_mistakes(encode: Encode, arguments: list[str], message: str) -> None:
    write(Path("in.txt"))
    result = encode(*arguments, "--recipe", "last-token")
    assert result.exit_code == 1
    assert f"error: {message}" in result.stderr or message in result.stderr
    assert [path.name for path in Path().iterdir()] == ["in.txt"]


def test_an_output_that_exists_is_kept_unless_asked(encode: Encode) -> None:
    write(Path("in.txt"))
    Path("out.npy").write_text("mine")
    result = encode("in.txt", "-o", "out.npy")
    assert (result.exit_code, Path("out.npy").read_text()) == (1, "mine")
    assert "--overwrite" in result.stderr
    assert encode("in.txt", "-o", "out.npy", "--overwrite").exit_code == 0
    assert len(np.load("out.npy")) == len(TEXTS)


def test_the_input_is_not_overwritten(encode: Encode) -> None:
    before = write(Path("in.jsonl")).read_bytes()
    result = encode("in.jsonl", "-o", "in.jsonl", "--column", "body", "--overwrite")
    assert result.exit_code == 1
    assert Path("in.jsonl").read_bytes() == before


def stop_after(monkeypatch: pytest.MonkeyPatch, chunks: int, error: BaseException) -> None:
    """Let the disk fail, or a user lose patience, in the middle of a chunk's bytes."""
    sync, calls = journals.sync, itertools.count()
    limit = 1 + chunks

    def failing(file: Any) -> None:
        if next(calls) == limit:
            file.truncate(file.tell() - 3)
            raise error
        sync(file)

    monkeypatch.setattr(journals, "sync", failing)


@pytest.fixture
def stopped(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> Iterator[Encode]:
    """`encode`, after a run that a full disk stopped within the third chunk."""
    write(Path("in.txt"))
    with monkeypatch.context() as patch:
        stop_after(patch, 2, OSError(errno.ENOSPC, "No space left on device"))
        result = encode("in.txt", "-o", "out.npy")
    assert result.exit_code == 1
    assert "error: No space left on device. 8 finished texts are kept" in result.stderr
    assert not Path("out.npy").exists()
    return encode


def test_a_full_disk_costs_one_chunk(stopped: Encode) -> None:
    result = stopped("in.txt", "-o", "out.npy")
    assert result.exit_code == 0, result.output
    assert "going on after 8 finished texts" in result.stderr
    assert stopped("in.txt", "-o", "plain.npy").exit_code == 0
    assert Path("out.npy").read_bytes() == Path("plain.npy").read_bytes()
    assert not Path("out.npy.partial").exists()


def test_a_pipe_goes_on_too(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "\n".join(TEXTS)
    assert encode("-o", "plain.jsonl", input=lines).exit_code == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt())
        assert encode("-o", "out.jsonl", input=lines).exit_code == 130
    result = encode("-o", "out.jsonl", input=lines)
    assert "going on after 12 finished texts" in result.stderr
    assert Path("out.jsonl").read_bytes() == Path("plain.jsonl").read_bytes()


@pytest.mark.parametrize("journal", [b"{}\n[]\n", b"{}\n{\n", b'{}\n{"other": 1}\n'])
def test_a_strange_journal_is_refused(stopped: Encode, journal: bytes) -> None:
    Path("out.npy.partial/journal.jsonl").write_bytes(journal)
    result = stopped("in.txt", "-o", "out.npy")
    assert result.exit_code == 1
    assert "--restart" in result.stderr
    assert stopped("in.txt", "-o", "out.npy", "--restart").exit_code == 0


def test_lost_rows_are_noticed(stopped: Encode) -> None:
    with Path("out.npy.partial/rows").open("r+b") as rows:
        rows.truncate(200)
    result = stopped("in.txt", "-o", "out.npy")
    assert (result.exit_code, "has lost rows" in result.stderr) == (1, True)


def test_control_c_says_how_to_go_on(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("in.txt"))
    stop_after(monkeypatch, 1, KeyboardInterrupt())
    result = encode("in.txt", "-o", "out.npy")
    assert result.exit_code == 130
    assert "4 finished texts are kept in out.npy.partial: the same command" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int8"], "begun with precision = 'float32', and now it is 'int8'"),
        (["--role", "query"], "model and instruction"),
        (["--dimensions", "8"], "dimensions"),
        (["--batch-tokens", "64"], "batch tokens"),
        pytest.param(["--quantization", "int8"], "quantization", marks=pytest.mark.slow),
    ],
)
def test_other_options_do_not_go_on(stopped: Encode, options: list[str], message: str) -> None:
    result = stopped("in.txt", "-o", "out.npy", *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "--restart" in result.stderr
    assert stopped("in.txt", "-o", "out.npy", *options, "--restart").exit_code == 0
    assert len(np.load("out.npy")) == len(TEXTS)


@pytest.mark.parametrize("change", ["changed", "shorter"])
def test_another_input_does_not_go_on(stopped: Encode, change: str) -> None:
    texts = ["other", *TEXTS[1:]] if change == "changed" else TEXTS[:4]
    Path("in.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    result = stopped("in.txt", "-o", "out.npy")
    assert result.exit_code == 1
    assert "the input has" in result.stderr
    assert not Path("out.npy").exists()


def test_the_rest_of_an_input_may_be_mended(encode: Encode) -> None:
    source = Path("in.jsonl")
    lines = [json.dumps(row) for row in ROWS]
    source.write_text("\n".join([*lines[:10], "{", *lines[11:]]))
    options = ["-o", "out.jsonl", "--column", "body"]
    result = encode(str(source), *options)
    assert result.exit_code == 1
    assert "line 11 is not JSON" in result.stderr
    assert "8 finished texts are kept" in result.stderr
    source.write_text("\n".join(lines))
    assert encode(str(source), *options).exit_code == 0
    assert read(Path("out.jsonl"))[1] == ROWS


def test_one_process_writes_an_output(encode: Encode) -> None:
    write(Path("in.txt"))
    with journals.Journal(Path("out.npy"), restart=False):
        result = encode("in.txt", "-o", "out.npy")
    assert result.exit_code == 1
    assert "another process is writing out.npy" in result.stderr


def test_somebody_elses_directory_is_kept(encode: Encode) -> None:
    write(Path("in.txt"))
    Path("out.npy.partial").mkdir()
    Path("out.npy.partial/thesis.txt").write_text("mine")
    result = encode("in.txt", "-o", "out.npy", "--restart")
    assert result.exit_code == 1
    assert Path("out.npy.partial/thesis.txt").read_text() == "mine"


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from llm_embeddings import Encoder
from llm_embeddings.cli import app

torch.set_num_threads(1)
Encoder.from_pretrained(sys.argv[4])  # imports what each child would have to

def start(out):
    child = os.fork()
    if not child:
        app([*sys.argv[1:], "-q", "-o", out])
    return child

def done(child):
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

def size(path):
    return path.stat().st_size if path.exists() else 0

journal, draw, kills = Path("killed.jsonl.partial/journal.jsonl"), random.Random(8), 0
for _ in range(5):
    before = size(journal)
    child = start("killed.jsonl")
    while size(journal) <= before and not done(child):
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
for out in ("killed.jsonl", "plain.jsonl"):
    if not Path(out).exists():
        assert os.waitpid(start(out), 0)[1] == 0
print(kills)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": f"{i} {text}"}) + "\n" for i in range(9) for text in TEXTS)
    (tmp_path / "in.jsonl").write_text(rows)
    arguments = ["encode", "in.jsonl", *MODEL, "--role", "query", "--chunk", "4"]
    command = [sys.executable, "-c", KILLER, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    plain, killed = tmp_path / "plain.jsonl", tmp_path / "killed.jsonl"
    assert plain.read_bytes() == killed.read_bytes()
    assert not (tmp_path / "killed.jsonl.partial").exists()
