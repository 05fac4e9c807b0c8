"""embed_dataset and EmbedBatch on a cluster of two CPUs on this machine."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import ROOT, assert_close, child_environment
from helpers.distributed import (
    MODEL,
    ROWS_PER_BLOCK,
    read_parts,
    run,
    texts,
    vectors_of,
    write_tables,
)

from llm_embeddings import Encoder
from llm_embeddings.distributed import EmbedBatch, read_embeddings
from llm_embeddings.distributed.cluster import connect, share_of
from llm_embeddings.distributed.folder import Folder, part_name
from llm_embeddings.distributed.input.plan import find_files
from llm_embeddings.distributed.input.staging import stage_sorted

ray = pytest.importorskip("ray")
ROWS = 600
pytestmark = [
    pytest.mark.slow,
    pytest.mark.enable_socket,  # drivers and workers talk over the loopback device
    # Ray Data sets options of its own that it calls deprecated.
    pytest.mark.filterwarnings("ignore:.use_:DeprecationWarning:ray.data.context"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """The address of a cluster that ends with this module."""
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    before = signal.getsignal(signal.SIGTERM)
    context = ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level="error",
    )
    ray.data.DataContext.get_current().default_hash_shuffle_parallelism = 2  # 200 is for much data
    yield context.address_info["gcs_address"]
    ray.shutdown()
    signal.signal(signal.SIGTERM, before)  # Ray sets its own, which forked processes inherit
    del os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"]


def wait_for_parts(output: Path, count: int, driver: subprocess.Popen[bytes]) -> None:
    """Wait until so many parts are there."""
    while len(Folder(output).parts()) < count:
        assert driver.poll() is None, "the driver ended by itself"
        time.sleep(0.001)


def kill_a_worker() -> None:
    """Kill an actor of a cluster that this process has started."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::MapWorker") or "MapWorker" in " ".join(
            process.cmdline()[:1]
        ):
            process.send_signal(signal.SIGKILL)
            return
    pytest.fail("no worker to kill")


def test_kills_lose_and_repeat_nothing(cluster: str, tmp_path: Path, e5: Encoder) -> None:
    data, output = tmp_path / "data", tmp_path / "out"
    ids = write_tables(data, (ROWS // 3, ROWS - ROWS // 3), group=50)
    command = [sys.executable, "-m", "helpers.distributed", cluster]
    first, second = sorted(random.Random().sample(range(2, ROWS // ROWS_PER_BLOCK // 2), 2))
    command += [str(data), str(output)]
    environment = child_environment()
    with subprocess.Popen(command, env=environment, stdout=-3, stderr=-3) as driver:
        wait_for_parts(output, first, driver)
        kill_a_worker()
        wait_for_parts(output, second, driver)
        driver.kill()
    with pytest.raises(ValueError, match="is not finished: call embed_dataset again"):
        read_embeddings(output)
    before = {path: path.stat().st_ino for path in output.glob("part-*")}
    with pytest.raises(ValueError, match="was begun with role = 'document', and now it is 'query'"):
        run(data, output, role="query", instruction="Find it")
    with pytest.raises(ValueError, match="was begun with rows_per_block = 8, and now it is 9"):
        run(data, output, rows_per_block=9)
    result = run(data, output)
    assert {path: path.stat().st_ino for path in before} == before
    assert (result.rows, result.skipped, result.blocks) == (ROWS, 0, 75)
    assert result.computed < result.blocks
    found = read_parts(output)
    assert found.column("id").to_pylist() == ids
    assert_close(vectors_of(found), e5.encode(texts(ROWS)))
    assert ray.data.DataContext.get_current().target_max_block_size > 1, "ours leaked out"
    again = run(data, output)
    assert (again.rows, again.computed) == (ROWS, 0)
    assert [row["id"] for row in again.dataset().take_all()] == ids
    assert sorted(path.name for path in output.iterdir()) == [
        "_SUCCESS",
        "_llm_embeddings.json",
        *(part_name(number) for number in range(75)),
    ]
    write_tables(data, (10,))
    with pytest.raises(ValueError, match=r"the input has changed since .*00\.parquet"):
        run(data, output)


def test_output_in_the_order_of_ids(tmp_path: Path, e5: Encoder) -> None:
    order = random.Random(0).sample(range(50), 50)
    lines = [json.dumps({"key": i, "body": texts(50)[i], "n": i}) for i in order]
    lines[10] = json.dumps({"key": order[10], "body": None})
    (tmp_path / "a.jsonl").write_text("\n".join(lines[:20]))
    (tmp_path / "b.jsonl").write_text("\n".join(lines[20:]))
    result = run(
        [tmp_path / "b.jsonl", tmp_path / "a.jsonl"],
        tmp_path / "out",
        text_column="body",
        id_column="key",
        columns=["key"],
        on_error="skip",
        concurrency=1,
    )
    kept = [i for i in range(50) if i != order[10]]
    found = read_parts(tmp_path / "out")
    assert found.column_names == ["key", "embedding"]
    assert found.column("key").to_pylist() == kept
    assert_close(vectors_of(found), e5.encode([texts(50)[i] for i in kept]))
    assert (result.rows, result.skipped, result.blocks, result.computed) == (49, 1, 7, 7)
    assert "a.jsonl, line 11 has no text in 'body': it is None" in result.notes[0]


def test_ids_order_a_dataset(tmp_path: Path) -> None:
    order = random.Random(0).sample(range(50), 50)
    table = pa.table({"key": [f"k{i:02d}" for i in order], "text": texts(50), "n": order})
    dataset = ray.data.from_arrow([table.slice(0, 20), table.slice(20)])
    places = stage_sorted(dataset, Folder(tmp_path), "key", "text", None)
    assert [n for place in places for n in pq.read_table(place).column("n").to_pylist()] == [
        *range(50)
    ]
    assert next(iter(find_files(places))) == places[0]
    for changes, message in [
        ({"key": ["a", None], "text": ["b", "c"]}, "column 'key' has rows without an id"),
        ({"key": ["a", "a"], "text": ["b", "c"]}, "key = 'a' is there twice"),
        ({"key": ["a"], "body": ["b"]}, "no column 'text'; it has: key, body"),
        ({"text": ["a"]}, "no column 'key'"),
    ]:
        with pytest.raises(ValueError, match=message):
            stage_sorted(
                ray.data.from_arrow(pa.table(changes)), Folder(tmp_path), "key", "text", None
            )
    with pytest.raises(ValueError, match="has no order of its own"):
        run(dataset, tmp_path / "out")
    with pytest.raises(ValueError, match="has no column 'id'"):
        run(dataset, tmp_path / "out", id_column="id")


def test_a_pipeline_of_ones_own(e5: Encoder) -> None:
    class Watched(EmbedBatch):
        """Also says how many threads it has."""

        def __call__(self, batch: Any) -> pa.Table:
            import torch

            table = super().__call__(batch)
            threads = np.full(len(table), torch.get_num_threads())
            return table.append_column("threads", pa.array(threads))

    options = {"model": str(MODEL), "dtype": "float32", "role": "query"}
    dataset = ray.data.from_items([{"text": text} for text in texts(10)]).map_batches(
        Watched,
        fn_constructor_kwargs=options,
        batch_size=4,
        num_cpus=2,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    rows = sorted(dataset.take_all(), key=lambda row: texts(10).index(row["text"]))
    assert_close(np.stack([row["embedding"] for row in rows]), e5.encode_query(texts(10)))
    assert {row["threads"] for row in rows} == {2}


def test_a_cluster_that_is_too_small() -> None:
    assert share_of(None, None, None, autoscaling=False).least == 2
    assert share_of(None, 2, None, autoscaling=False).least == 1
    with pytest.raises(ValueError, match="4 workers with 1 CPU each do not fit: .* 2 CPU"):
        share_of(4, None, None, autoscaling=False)
    with pytest.raises(ValueError, match="1 workers with 1 CPU and 1 GPU each do not fit"):
        share_of(None, None, 1, autoscaling=False)
    grown = share_of((1, 8), None, 1, autoscaling=True)
    assert (grown.least, grown.most) == (1, 8)


def test_connected_already() -> None:
    with pytest.raises(ValueError, match="connected to Ray already"):
        connect("127.0.0.1:6379")


def test_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tables(tmp_path / "chunks", (20,))
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/distributed.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```py\n(.*?)^```", text, re.M | re.S):
        block = block.replace("chunks/", f"{tmp_path}/chunks/")  # Ray's workers are elsewhere
        exec(compile(block, "distributed.md", "exec"), {"__name__": "__main__"})
    assert len(list((tmp_path / "vectors").glob("part-*"))) == 1
