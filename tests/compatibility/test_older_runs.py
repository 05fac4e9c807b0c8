"""Runs that an earlier version began go on with this one, or are refused with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import assert_close
from helpers.compatibility import PLACE, VERSIONS, Older, run, scripts_module

import llm_embeddings
from llm_embeddings import Encoder
from llm_embeddings.distributed import EmbedBatch, embed_dataset
from llm_embeddings.synthesis import Plan, Sampler, generate, rows_of
from llm_embeddings.training.weights import lora


def read_vectors(path: Path) -> Any:
    """The vectors of an output of `encode`."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    else:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == list(range(len(rows)))
    return np.array([row["embedding"] for row in rows], np.float32)


@pytest.mark.usefixtures("names_of_then")
@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_an_interrupted_encode_goes_on(older: Older, embedded: list[str], suffix: str) -> None:
    """As if it had been begun by this version, with the torch that is installed here."""
    journal = Path(f"interrupted.{suffix}.partial/journal.jsonl")
    begun, *chunks = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    settings = json.loads(begun) | {
        "version": llm_embeddings.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    journal.write_text(json.dumps(settings) + "\n" + "".join(chunks), encoding="utf-8")
    wanted = older.expected["encode"]
    output = Path(f"interrupted.{suffix}")
    done = run("encode", "passages.jsonl", "-o", str(output), *wanted["command"])
    assert f"going on after {wanted['finished']} finished texts" in done.stderr
    assert embedded == older.passages[wanted["finished"] :]
    assert_close(read_vectors(output), older.vectors["document"])
    assert_close(read_vectors(Path(f"finished.{suffix}")), older.vectors["document"])


@pytest.mark.parametrize("name", ["version", "torch"])
def test_an_encode_of_other_versions_is_refused_and_kept(
    older: Older, embedded: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(llm_embeddings, "__version__", older.expected["version"])
    monkeypatch.setattr(llm_embeddings if name == "version" else torch, "__version__", "99.0.0")
    partial = Path("interrupted.npy.partial")
    before = {path.name: path.read_bytes() for path in partial.iterdir()}
    command = older.expected["encode"]["command"]
    done = run("encode", "passages.jsonl", "-o", "interrupted.npy", *command, exit_code=1)
    assert f"was begun with {name} = " in done.stderr
    assert "drop what is finished with --restart" in done.stderr
    assert embedded == []
    kept = {path.name: path.read_bytes() for path in partial.iterdir() if path.suffix != ".lock"}
    assert kept == before
    run("encode", "passages.jsonl", "-o", "interrupted.npy", *command, "--restart")
    assert_close(read_vectors(Path("interrupted.npy")), older.vectors["document"])


def test_training_goes_on_from_its_checkpoint(
    older: Older, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the dropout of then, which drew other numbers of the same generator."""
    monkeypatch.setattr(lora, "Dropout", torch.nn.Dropout)
    wanted = older.expected["training"]
    metrics = Path("training/result/metrics.jsonl")
    before = metrics.read_text(encoding="utf-8")
    done = run(*wanted["command"], "--resume")
    after = metrics.read_text(encoding="utf-8")
    assert after.startswith(before), done.output
    losses = {str(line["step"]): line["loss"] for line in map(json.loads, after.splitlines())}
    assert losses == pytest.approx(wanted["losses"], rel=1e-4)
    Encoder.from_pretrained("training/result").close()


def test_synthesize_goes_on_with_its_journal(older: Older, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, journal = older.expected["synthesis"], Path("synthesis/journal.jsonl")
    before = journal.read_bytes()
    rows = list(rows_of(Path("synthesis")))
    lines = [json.loads(line) for line in before.splitlines()[1:]]
    made = {line["number"]: line["value"] for line in lines if line["kind"] == "example"}
    assert {row.number: [row.query, row.positive] for row in rows} == {
        number: texts[:2] for number, texts in made.items()
    }
    sampler = Sampler(wanted["seed"], groups=wanted["groups"], languages={"en": 1.0})
    plan = Plan(examples=wanted["examples"], sampler=sampler)
    generator = scripts_module("compatibility_models", monkeypatch).Scripted(calls=100)
    summary = generate(Path("synthesis"), plan, generator)
    assert (summary.made, 100 - generator.calls) == (plan.examples, plan.examples - len(made))
    assert journal.read_bytes().startswith(before)
    assert list(rows_of(Path("synthesis")))[: len(rows)] == rows


@pytest.mark.usefixtures("names_of_then")
def test_scores_are_kept(
    older: Older, embedded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same version; another one measures again and leaves them in the file."""
    wanted, scores = older.expected["evaluation"], Path("evaluation/scores/scores.json")
    before = json.loads(scores.read_text(encoding="utf-8"))
    monkeypatch.setattr(llm_embeddings, "__version__", older.expected["version"])
    assert json.loads(run(*wanted["command"]).stdout) == wanted["shown"]
    assert embedded == []
    monkeypatch.setattr(llm_embeddings, "__version__", "99.0.0")
    run(*wanted["command"])
    assert embedded != []
    after = json.loads(scores.read_text(encoding="utf-8"))
    kept = [{k: v for k, v in each.items() if k != "seal"} for each in after["results"][:-1]]
    assert kept == before["results"]


@pytest.mark.usefixtures("names_of_then")
def test_a_finished_folder_of_embed_dataset(
    older: Older, embedded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a cluster: this process says what a worker would say of the model."""
    pytest.importorskip("ray")
    for path in (Path("ray/output/_llm_embeddings.json"), Path("ray/output/_SUCCESS")):
        text = path.read_text(encoding="utf-8").replace(PLACE, str(older.folder))
        path.write_text(text, encoding="utf-8")
    home = "llm_embeddings.distributed.run"
    monkeypatch.setattr(f"{home}.connect", lambda address: None)
    monkeypatch.setattr(f"{home}.share_of", lambda *arguments, **options: None)
    monkeypatch.setattr(f"{home}.probe", lambda options, share: EmbedBatch(**options).facts)
    wanted = older.expected["ray"]
    data, output = "ray/passages.parquet", "ray/output"
    found = embed_dataset(data, output=output, model="model", **wanted["options"])
    assert (found.rows, found.blocks, found.computed) == (wanted["rows"], wanted["blocks"], 0)
    assert embedded == []
    tables = [pq.read_table(path) for path in sorted(Path(output).glob("part-*.parquet"))]
    vectors = [row for table in tables for row in table.column("embedding").to_pylist()]
    assert_close(vectors, older.vectors["document"])


@pytest.mark.slow
def test_the_script_still_makes_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But the output of a cluster, which takes long to start."""
    script = scripts_module("compatibility_files", monkeypatch)
    (tmp_path / "made").mkdir()
    script.write(tmp_path / "made", script.STEPS[:-1])
    made, kept = (
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "made", VERSIONS[-1])
    )
    assert made >= {name for name in kept if not name.startswith("ray")}
