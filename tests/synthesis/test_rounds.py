"""Rounds of mining and training: what each mines with, what is held out, what is kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.training import WORDS, quick, write_rows
from typer.testing import CliRunner

from llm_embeddings import Encoder
from llm_embeddings.cli import app
from llm_embeddings.synthesis import Rounds, mine, train_rounds
from llm_embeddings.synthesis.mining.mine import REPORT
from llm_embeddings.synthesis.rounds import summary


def made(folder: Path, **more: Any) -> Rounds:
    rows = [
        {"query": f"which stone is {WORDS[i % 10]} {i}", "pos": f"stone {i} is {WORDS[i % 10]}"}
        for i in range(40)
    ]
    data = write_rows(folder / "pairs.jsonl", rows)
    values = {"mined": 3, "ratio": None, "held_out": 0.3, "batch_size": 4, "learning_rate": 1e-2}
    return Rounds(**quick(folder, (f"{data}@2",), **(values | more)))


def mined(output: Path, number: int) -> list[dict[str, Any]]:
    text = (output / f"round-{number}/mined/pairs.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def scorer(output: Path, number: int) -> str:
    about = json.loads((output / f"round-{number}/mined/mining.json").read_bytes())
    return str(about["scorer"])


@pytest.mark.slow
def test_each_round_mines_with_the_model_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = made(tmp_path)
    whole = dataclasses.replace(options, output=tmp_path / "whole")
    result = train_rounds(whole)
    assert result == whole.output / "round-2/model"
    models = [options.model, whole.output / "round-1/model", result]
    for number, model in enumerate(models[:2], 1):
        fingerprint = Encoder.from_pretrained(str(model)).fingerprint()
        assert fingerprint in scorer(whole.output, number)
    rows = mined(whole.output, 1)
    assert 20 < len(rows) < 36
    assert {len(row["negative"]) for row in rows} == {3}
    provenance = json.loads((result / "provenance.json").read_bytes())
    assert provenance["options"]["data"][0]["weight"] == 2
    assert provenance["before"]["stage"] == "contrastive"

    scores = [json.loads((whole.output / f"round-{n}/scores.json").read_bytes()) for n in range(3)]
    assert len({len(part) for part in scores}) == 1
    assert len(rows) + len(scores[0]) == 40
    lines = summary(result).splitlines()
    assert f"{np.mean(scores[0]):.3f}" in lines[0]
    assert f"{np.mean(scores[2]):.3f}" in lines[2]
    assert f"{np.mean(np.subtract(scores[2], scores[0])):+.3f}" in lines[2]

    def stopped(sources: Any, output: Path, *arguments: Any, **more: Any) -> Any:
        if output.parent.name == "round-2":
            output.mkdir(parents=True)
            (output / "pairs.jsonl").write_text("{")
            raise KeyboardInterrupt
        return mine(sources, output, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr("llm_embeddings.synthesis.rounds.mine", stopped)
        with pytest.raises(KeyboardInterrupt):
            train_rounds(options)
    first = (options.output / "round-1/model/model.safetensors").stat()
    with pytest.raises(ValueError, match="holds rounds: go on with resume=True"):
        train_rounds(options)
    for change, message in (
        ({"mined": 4}, "mined was 3 and is 4"),
        ({"data": (str(tmp_path / "pairs.jsonl"),)}, "data was "),
    ):
        with pytest.raises(ValueError, match=message):
            train_rounds(dataclasses.replace(options, resume=True, **change))
    again = train_rounds(dataclasses.replace(options, resume=True))
    assert (options.output / "round-1/model/model.safetensors").stat() == first
    for number in (1, 2):
        assert mined(options.output, number) == mined(whole.output, number)
    assert summary(again) == summary(result)

    longer = train_rounds(dataclasses.replace(options, resume=True, rounds=3, max_steps=2))
    assert longer.parent.name == "round-3"
    assert summary(longer).splitlines()[:3] == summary(result).splitlines()
    (tmp_path / "pairs.jsonl").write_text('{"query": "q", "pos": "p"}\n')
    with pytest.raises(ValueError, match="the data files are others"):
        train_rounds(dataclasses.replace(options, resume=True))


@pytest.mark.slow
def test_the_command_ends_with_what_each_round_brought(tmp_path: Path) -> None:
    options = made(tmp_path)
    arguments = ["train", "rounds", "--model", options.model, "--data", options.data[0]]
    arguments += ["--output", str(options.output), "--rounds", "1", "--held-out", "0.3"]
    arguments += ["--batch-size", "4", "--max-steps", "1", "--warmup", "0", "--mined", "2"]
    arguments += ["--ranks", "1", "--ranks", "20", "--bm25-first", "--dtype", "float32"]
    result = CliRunner().invoke(app, [*arguments, "--no-show-progress"])
    assert result.exit_code == 0, result.output
    assert "held-out queries: nDCG@10" in result.output
    assert "round 1: nDCG@10" in result.output
    assert scorer(options.output, 1) == "BM25"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 0}, "rounds=0 must be 1 or more"),
        ({"held_out": 0.0}, "held_out=0.0 leaves nothing to report"),
        ({"negatives": 4}, "negatives=4 must be 1 to mined=3"),
        ({"negatives": 0}, "negatives=0 must be 1 to mined=3"),
        ({"ranks": (1,)}, r"ranks=\(1,\) are not a first and a last one"),
        ({"ranks": (1, 2)}, "ranks 1-2 are fewer than the 3 negatives"),
        ({"distillation": "kl"}, "distillation='kl' has no teacher in rounds"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(tmp_path, **changes)


def test_rounds_need_one_process_and_negatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(sources: Any, output: Path, *arguments: Any, **more: Any) -> None:
        output.mkdir(parents=True)
        (output / REPORT).write_text("{}")

    with monkeypatch.context() as patch:
        patch.setattr("llm_embeddings.synthesis.rounds.mine", nothing)
        with pytest.raises(ValueError, match="round 1 found no negative for any query: widen"):
            train_rounds(made(tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="rounds run in one process"):
        train_rounds(made(tmp_path))
