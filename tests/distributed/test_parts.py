"""The parts of llm_embeddings.distributed that need no cluster."""

from __future__ import annotations

import ast
import gzip
import inspect
import itertools
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import ROOT, assert_close
from helpers.distributed import MODEL, read_parts, texts, vectors_of, write_tables

from llm_embeddings import Encoder
from llm_embeddings.distributed import EmbedBatch, EmbeddingOptions, embed_dataset, worker
from llm_embeddings.distributed.cluster import connect
from llm_embeddings.distributed.folder import Folder, part_name
from llm_embeddings.distributed.input import staging
from llm_embeddings.distributed.input.plan import Plan, find_files, make_plan
from llm_embeddings.distributed.worker import EmbedBlocks, Report, Work, read_report, unit_to

# Ray Data sets options of its own that it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.use_:DeprecationWarning:ray.data.context")
OPTIONS: dict[str, Any] = {"model": MODEL, "dtype": "float32"}


@pytest.fixture(scope="module")
def embed() -> EmbedBatch:
    return EmbedBatch(**OPTIONS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_tables(tmp_path / "data")
    return tmp_path / "data"


def plan_of(folder: Path, **changes: Any) -> Plan:
    options: dict[str, Any] = {
        "text_column": "text",
        "columns": None,
        "embedding_column": "embedding",
        "rows_per_block": 8,
        "skip": False,
    }
    return make_plan(find_files(folder), **(options | changes))


def work_on(
    plan: Plan,
    output: Path,
    embed: EmbedBatch,
    *,
    skip: bool = False,
    starts: Any = lambda block: 1,
    finished: tuple[int, ...] = (),
) -> Iterator[Report]:
    """Reports of one worker in this process."""
    work = Work(str(output), plan.schema, "text", None, "embedding", skip, embed.facts)
    blocks = EmbedBlocks(work, {**OPTIONS}, starts)  # type: ignore[typeddict-item]
    for unit in plan.units(finished, 1):
        for row in blocks({"unit": [unit_to(unit)]}):
            yield Report.from_json(row["report"][0])


def test_a_batch_keeps_its_columns(embed: EmbedBatch, e5: Encoder) -> None:
    words = texts(3)
    found = embed(
        {"id": np.arange(3), "text": np.array(words, object), "image": np.ones((3, 2, 2))}
    )
    assert found.column_names == ["id", "text", "image", "embedding"]
    assert found.schema.field("embedding").type == pa.list_(pa.float32(), e5.dimension)
    assert_close(vectors_of(found), e5.encode(words))
    same = embed(pa.table({"text": pa.array(words).dictionary_encode()}))
    assert_close(vectors_of(same), e5.encode(words))


def test_role_instruction_and_options_are_the_encoders(e5: Encoder) -> None:
    options: dict[str, Any] = {"truncate_dim": 8, "precision": "float16"}
    embed = EmbedBatch(
        **OPTIONS, **options, role="query", instruction="Find it", embedding_column="v"
    )
    found = embed({"text": np.array(["a", "b"], object)})
    expected = e5.encode_query(["a", "b"], "Find it", **options)
    assert found.schema.field("v").type == pa.list_(pa.float16(), 8)
    assert np.array_equal(np.stack(found.column("v").to_numpy()), expected)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"body": ["a"]}, "no column 'text'; it has: body"),
        ({"text": [1]}, "of type int64, not text"),
        ({"text": ["a", None]}, "row 1 of the batch has no text"),
        ({"text": ["a"], "embedding": [1]}, "a column 'embedding' already"),
    ],
)
def test_unusable_batches_are_named(embed: EmbedBatch, batch: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embed(pa.table(batch))


def test_every_row_is_in_one_block(data: Path) -> None:
    plan = plan_of(data)
    for finished, workers in itertools.product([set(), {0, 3, 4, 11}], [1, 2, 99]):
        units = plan.units(finished, workers)
        blocks = [block for unit in units for block in unit.blocks]
        assert [b.number for b in blocks] == [n for n in range(12) if n not in finished]
        assert [(b.start, b.stop) for b in blocks] == [
            (n * 8, min(n * 8 + 8, 93)) for n in range(12) if n not in finished
        ]
        for unit in units:
            assert unit.tables[0].first <= unit.blocks[0].start < unit.tables[0].end
            assert unit.tables[-1].first < unit.blocks[-1].stop <= unit.tables[-1].end
    (unit,) = plan.units({n for n in range(12) if n != 6}, 1)
    assert unit.span(unit.blocks[0]) == f"{data}/00.parquet, row 49 to {data}/01.parquet, row 3"


def test_a_worker_writes_each_row_once(data: Path, tmp_path: Path, embed: EmbedBatch) -> None:
    reports = list(work_on(plan_of(data), tmp_path / "out", embed))
    assert [report.block for report in reports] == list(range(12))
    found = read_parts(tmp_path / "out")
    assert found.column("text").to_pylist() == texts(93)
    assert_close(vectors_of(found), embed.encoder.encode(texts(93)))
    assert sum(r.tokens for r in reports) == sum(map(len, embed.encoder.tokenize(texts(93))))


@pytest.mark.slow
def test_finished_blocks_are_not_embedded_again(
    data: Path, tmp_path: Path, embed: EmbedBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, whole, parted = plan_of(data), tmp_path / "whole", tmp_path / "parted"
    list(work_on(plan, whole, embed))
    first = list(itertools.islice(work_on(plan, parted, embed), 2))
    assert not any(report.before for report in first)
    there = Folder(parted).parts()
    embedded: list[int] = []
    begin = lambda block: embedded.append(block) or 1  # noqa: E731
    again = list(work_on(plan, parted, embed, starts=begin))
    assert {report.block for report in again if report.before} == there
    assert embedded == [number for number in range(plan.count) if number not in there]
    for number in range(plan.count):
        name = part_name(number)
        assert pq.read_table(parted / name).equals(pq.read_table(whole / name))


def test_rows_without_a_text(tmp_path: Path, embed: EmbedBatch) -> None:
    words = [*texts(10), None, "last"]
    pq.write_table(pa.table({"text": words}), tmp_path / "a.parquet")
    (report,) = list(work_on(plan_of(tmp_path, rows_per_block=50), tmp_path / "out", embed))
    assert "a.parquet, row 11 has no text" in report.error
    assert not Folder(tmp_path / "out").parts()
    plan = plan_of(tmp_path / "a.parquet", rows_per_block=50)
    (report,) = list(work_on(plan, tmp_path / "out", embed, skip=True))
    assert (report.rows, report.skipped, report.error) == (11, 1, "")
    assert "a.parquet, row 11 has no text" in report.notes[0]
    assert read_parts(tmp_path / "out").column("text").to_pylist() == [*texts(10), "last"]


def corrupt(path: Path, group: int) -> None:
    """Overwrite the pages of a row group's texts."""
    chunk = pq.read_metadata(path).row_group(group).column(1)
    with path.open("r+b") as file:
        file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
        file.write(b"\xff" * chunk.total_compressed_size)


@pytest.mark.slow
def test_a_corrupt_row_group(data: Path, tmp_path: Path, embed: EmbedBatch) -> None:
    corrupt(data / "00.parquet", 1)  # rows 21 to 40
    plan, output = plan_of(data), tmp_path / "out"
    *_, last = work_on(plan, output, embed)
    reports = {report.block: report for report in work_on(plan, output, embed)}
    assert "00.parquet, row 17 to 24 cannot be read" in reports[2].error
    assert "on_error='skip'" in reports[2].error
    reports = {report.block: report for report in work_on(plan, output, embed, skip=True)}
    assert {number: r.skipped for number, r in reports.items() if r.skipped} == {2: 4, 3: 8, 4: 8}
    assert sum(report.rows + report.skipped for report in reports.values()) == plan.rows
    assert read_parts(output).column("text").to_pylist() == texts(93)[:20] + texts(93)[40:]
    assert "00.parquet, row 21 to 24 cannot be read" in reports[2].notes[0]
    assert last.block == plan.count - 1


def test_files_that_are_no_parquet(data: Path) -> None:
    (data / "01.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(ValueError, match=r"01\.parquet cannot be read as Parquet"):
        plan_of(data)
    plan = plan_of(data, skip=True)
    assert plan.rows == 53
    assert [*plan.unreadable] == [str(data / "01.parquet")]
    with pytest.raises(ValueError, match=r"01\.parquet cannot be read as Parquet"):
        plan_of(data, skip=True, known={})  # it could be when the output was begun
    write_tables(data)
    assert plan_of(data, skip=True, known=plan.unreadable).rows == 53


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"body": ["a"]}, {}, "no column 'text'; it has: body. Say which"),
        ({"text": [[1]]}, {}, "of type list<element: int64>, not text"),
        ({"text": ["a"], "embedding": [1]}, {}, "a column 'embedding' already"),
        ({"text": ["a"]}, {"columns": ["id"]}, "no column 'id'"),
        ({"text": pa.array([], pa.string())}, {}, "has no rows"),
    ],
)
def test_unusable_files_are_named(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        plan_of(tmp_path, **options)


def test_columns_are_made_one(tmp_path: Path, embed: EmbedBatch) -> None:
    tables = [{"text": ["a"], "n": [1]}, {"n": [0.5], "more": ["x"], "text": ["b"]}]
    for number, table in enumerate(tables):
        pq.write_table(pa.table(table), tmp_path / f"{number}.parquet")
    list(work_on(plan_of(tmp_path), tmp_path / "out", embed))
    found = read_parts(tmp_path / "out")
    assert found.select(["text", "n", "more"]).to_pylist() == [
        {"text": "a", "n": 1.0, "more": None},
        {"text": "b", "n": 0.5, "more": "x"},
    ]
    pq.write_table(pa.table({"text": ["c"], "n": ["three"]}), tmp_path / "2.parquet")
    with pytest.raises(ValueError, match=r"2\.parquet do not go with"):
        plan_of(tmp_path)


def test_files_are_found(data: Path) -> None:
    (data / "deep" / "_hidden").mkdir(parents=True)
    (data / "deep" / "b.jsonl.gz").touch()
    (data / "deep" / "_hidden" / "c.parquet").touch()
    found = [str(Path(place).relative_to(data)) for place in find_files(data)]
    assert found == ["00.parquet", "01.parquet", "deep/b.jsonl.gz"]
    assert find_files(f"file://{data}/00.parquet") == [f"file://{data}/00.parquet"]
    assert find_files(f"file://{data}")[0] == f"file://{data}/00.parquet"
    with pytest.raises(FileNotFoundError, match=r"no-such\.parquet does not exist"):
        find_files(data / "no-such.parquet")
    with pytest.raises(ValueError, match="is given twice"):
        find_files([data, data / "00.parquet"])
    (data / "a.csv").touch()
    with pytest.raises(ValueError, match=r"a\.csv ends in none of"):
        find_files(data / "a.csv")


def test_a_block_that_ends_its_workers_is_given_up(
    data: Path, tmp_path: Path, embed: EmbedBatch
) -> None:
    starts = lambda block: 4 if block == 1 else 1  # noqa: E731
    reports = list(work_on(plan_of(data), tmp_path / "out", embed, starts=starts))
    assert "00.parquet, row 9 to 16 ended 3 workers" in reports[1].error


def test_a_worker_with_another_model_does_nothing(
    data: Path, tmp_path: Path, embed: EmbedBatch
) -> None:
    plan = plan_of(data)
    facts = worker.replace(embed.facts, dtype="bfloat16", fingerprint="another")
    work = Work(str(tmp_path / "out"), plan.schema, "text", None, "embedding", False, facts)
    blocks = EmbedBlocks(work, {**OPTIONS}, lambda block: 1)  # type: ignore[typeddict-item]
    (row,) = blocks({"unit": [unit_to(plan.units((), 1)[0])]})
    report = Report.from_json(row["report"][0])
    assert "a worker's model has dtype 'float32', the first one's 'bfloat16'" in report.error
    assert not (tmp_path / "out").exists()


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put(part_name(3), b"half of it")
    with pytest.raises(ValueError, match=r"part-00003\.parquet is damaged .* delete it"):
        read_report(folder, 3)


def test_a_part_that_a_disk_has_changed_is_named(
    data: Path, tmp_path: Path, embed: EmbedBatch
) -> None:
    plan, chosen = plan_of(data), random.Random(0)
    work = Work(str(tmp_path / "out"), plan.schema, "text", None, "embedding", False, embed.facts)
    blocks = EmbedBlocks(work, {**OPTIONS}, lambda block: 1)  # type: ignore[typeddict-item]
    (first, *_) = blocks({"unit": [unit_to(plan.units((), 1)[0])]})
    folder, report = Folder(tmp_path / "out"), Report.from_json(first["report"][0])
    assert read_report(folder, report.block).rows == report.rows
    path = Path(folder.path_of(part_name(report.block)))
    whole, rows = path.read_bytes(), pq.read_table(path)
    said: list[str] = []
    for _ in range(40):
        other = bytearray(whole)
        other[chosen.randrange(len(whole))] ^= 1 << chosen.randrange(8)
        path.write_bytes(other)
        try:
            assert read_report(folder, report.block).rows == report.rows
            assert pq.read_table(path).equals(rows)  # a number that nothing depends on
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 20
    assert all("part-00000.parquet is damaged" in words for words in said)


def test_nothing_half_written_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path / "out")

    def full(file: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("llm_embeddings.distributed.folder.sync", full)
    with pytest.raises(OSError, match="no space left"):
        folder.put(part_name(0), b"data")
    assert folder.parts() == set()
    assert folder.names() == ["_unfinished"]


def test_a_store_of_objects_gets_one_upload() -> None:
    folder = Folder("fsspec+memory://bucket/out")
    folder.put(part_name(7), b"data")
    folder.put_json("_llm_embeddings.json", {"a": 1})
    assert folder.names() == ["_llm_embeddings.json", "part-00007.parquet"]
    assert folder.parts() == {7}
    assert folder.get_json("_llm_embeddings.json") == {"a": 1}
    assert folder.get_json("_SUCCESS") is None
    folder.put("_SUCCESS", b'{"rows": 9, "seal": 7}')
    with pytest.raises(ValueError, match="_SUCCESS is damaged"):
        folder.get_json("_SUCCESS")


LINES = [{"text": "a", "n": 1}, {"n": 2.5, "text": "b", "tags": ["x"]}, {"text": "c"}]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_json_lines_become_tables(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    data = "\n\n".join(map(json.dumps, LINES)).encode()
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    found = staging._convert(str(path), str(tmp_path / "out"), 0, "text", None, False)
    assert (found["parts"], found["skipped"]) == (1, 0)
    table = pq.read_table(tmp_path / "out/_input/00000-00000.parquet")
    assert table.to_pylist() == [{"n": None, "tags": None, **row} for row in LINES]
    path.unlink()  # what is finished is not read again
    assert staging._convert(str(path), str(tmp_path / "out"), 0, "text", None, False) == found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "line 2 is not JSON"),
        ('["a"]', "line 2 is not a JSON object"),
        ('{"body": "a"}', "line 2 has no 'text'; it has: body"),
        ('{"text": null}', "line 2 has no text in 'text': it is None"),
    ],
)
def test_unusable_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path, output = tmp_path / "a.jsonl", str(tmp_path / "out")
    path.write_text(f'{{"text": "first"}}\n{line}\n{{"text": "third"}}\n')
    with pytest.raises(ValueError, match=rf"a\.jsonl, {message}"):
        staging._convert(str(path), output, 0, "text", None, False)
    found = staging._convert(str(path), output, 0, "text", None, True)
    assert found["skipped"] == 1
    assert message in found["notes"][0]
    table = pq.read_table(tmp_path / "out/_input/00000-00000.parquet")
    assert table.column("text").to_pylist() == ["first", "third"]


def test_a_cut_off_archive_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path, output = tmp_path / "a.jsonl.gz", str(tmp_path / "out")
    draw = random.Random(0)
    lines = b"".join(b'{"text": "%f"}\n' % draw.random() for _ in range(20000))
    path.write_bytes(gzip.compress(lines)[:60_000])
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz cannot be read behind line"):
        staging._convert(str(path), output, 0, "text", None, False)
    found = staging._convert(str(path), output, 0, "text", None, True)
    assert "cannot be read behind line" in found["notes"][0]
    assert 1000 < pq.read_metadata(tmp_path / "out/_input/00000-00000.parquet").num_rows < 20000


def test_ids_that_are_there_twice(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2, 2, 3]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="id = 2 is there twice"):
        staging._ends(str(tmp_path / "a.parquet"), "id")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"modle": "x"}, TypeError, "argument 'modle'; did you mean 'model'"),
        ({"rows_per_block": 0}, ValueError, "rows_per_block=0"),
        ({"on_error": "ignore"}, ValueError, "on_error='ignore' is not one of"),
        ({"concurrency": (3, 2)}, ValueError, r"concurrency=\(3, 2\)"),
        ({"num_cpus": 0}, ValueError, "num_cpus=0 without a GPU"),
        ({"columns": "id"}, ValueError, "columns='id' must be a list"),
        ({"output": "no-store://a/b"}, ValueError, "no-store://a/b cannot be opened"),
        ({"output": "s3://key:secret@a/b"}, ValueError, "a key in a URI ends up in files"),
    ],
)
def test_mistakes_show_before_anything_starts(
    data: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        embed_dataset(data, **({"output": tmp_path / "out"} | options))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_others_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"is not empty .* it has 'thesis\.txt'"):
        embed_dataset(data, output=tmp_path / "out")


@pytest.mark.enable_socket
@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "no-such-host.invalid:1"])
def test_a_cluster_that_is_not_there(address: str) -> None:
    with pytest.raises(ConnectionError, match=f"no Ray cluster answers at {address}"):
        connect(address)


def test_the_guides_calls_are_possible() -> None:
    text = (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")
    (manifests,) = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    script, job = yaml.safe_load_all(manifests)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert f"/{next(iter(script['data']))}" in job["spec"]["entrypoint"]
    known = {*inspect.signature(embed_dataset).parameters, *EmbeddingOptions.__annotations__}
    sources = [*script["data"].values(), *re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)]
    for source in sources:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        names = {keyword.arg for call in calls for keyword in call.keywords}
        assert {"output", "num_gpus"} <= names <= known
