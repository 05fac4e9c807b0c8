"""Learning a teacher's vectors: the loss against a plain loop, and where the vectors come from."""

from __future__ import annotations

import dataclasses
import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers import assert_close
from helpers.training import (
    assert_same_gradients,
    gradients,
    losses_of,
    quick,
    update,
    write_rows,
)
from helpers.training_distill import FAR, NEAR, teach
from helpers.training_processes import run_two
from safetensors.torch import load_file
from typer.testing import CliRunner

import llm_embeddings
from llm_embeddings import Encoder
from llm_embeddings.cli import app
from llm_embeddings.training import Distill, LoraOptions, distill, train_distill
from llm_embeddings.training.batches import teachers
from llm_embeddings.training.losses import cosine_distance


@pytest.fixture
def texts(tmp_path: Path) -> str:
    rows = [{"text": f"stone {i} is {'very ' * (i % 7)}old"} for i in range(24)]
    return write_rows(tmp_path / "texts.jsonl", rows)


def made(folder: Path, data: Any, **more: Any) -> Distill:
    values: dict[str, Any] = {
        "teacher": NEAR,
        "batch_size": 6,
        "log_every": 1,
        "learning_rate": 1e-2,
    }
    return Distill(**quick(folder, data, **values | more))


def batch_of(stage: Any, number: int = 0) -> list[Any]:
    found: list[Any] = next(islice(stage.batches(0), number, None))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("linear_map", [False, True])
def test_loss_and_gradients_are_those_of_a_plain_loop(
    linear_map: bool, texts: str, tmp_path: Path
) -> None:
    queries = write_rows(tmp_path / "queries.jsonl", [{"text": f"find {i}"} for i in range(6)])
    name = FAR if linear_map else NEAR
    changes: dict[str, Any] = {"linear_map": linear_map, "queries": queries, "teacher": name}
    lora = LoraOptions(dropout=0.0)
    stage = distill._Stage(made(tmp_path, texts, **changes, batch_tokens=24, lora=lora))
    batch = next(b for b in stage.batches(0) if len({lesson.role for lesson in b}) == 2)
    losses, found = update(stage, batch)

    teacher = Encoder.from_pretrained(name, dtype="float32")
    stage.model.zero_grad()
    total = torch.zeros(())
    for lesson in batch:
        (row,) = stage._trained.rows([lesson.text], lesson.role)
        vector = stage._encoding.vectors([row.ids], [row.start])[0]
        wanted = torch.from_numpy(teacher.encode(lesson.text, lesson.role))
        if linear_map:
            wanted = wanted @ stage._turn
        cosine = vector @ wanted / (vector.norm() * wanted.norm())
        total = total + (1 - cosine) / len(batch)
    total.backward()
    assert losses["loss"] == pytest.approx(float(total.detach()), rel=1e-5)
    assert_same_gradients(found, gradients(stage.model))


@pytest.mark.parametrize("wide", [24, 40])
def test_a_teacher_is_turned_to_where_the_student_is(wide: int) -> None:
    draw = torch.Generator().manual_seed(0)
    teacher = torch.randn(200, 32, generator=draw) * torch.arange(1, 33)
    other = torch.linalg.qr(torch.randn(40, 40, generator=draw)).Q
    nearest = torch.linalg.eigh(teacher.T @ teacher).eigenvectors[:, -min(wide, 32) :]
    student = teacher @ nearest @ other[: nearest.shape[1], :wide]  # the same, seen from elsewhere
    student = student if wide > 32 else teacher @ nearest @ torch.linalg.qr(other[:wide, :wide]).Q
    found = teacher @ teachers.turned(teacher, student)
    assert found.shape == student.shape
    assert float(cosine_distance(student, found)) == pytest.approx(0, abs=0.02)
    if wide > 32:
        unit = [torch.nn.functional.normalize(each, dim=-1) for each in (teacher, found)]
        assert_close((unit[1] @ unit[1].T).numpy(), (unit[0] @ unit[0].T).numpy())


@pytest.mark.slow
def test_a_student_that_knows_all_from_another_side_loses_nothing(
    texts: str, tmp_path: Path
) -> None:
    rows = [json.loads(line)["text"] for line in Path(texts).read_text().splitlines()]
    student = Encoder.from_pretrained(dtype="float32")
    before = student.encode_document(rows)
    turn = torch.linalg.qr(torch.randn(512, 512, generator=torch.Generator().manual_seed(0))).Q
    np.save(tmp_path / "wide.npy", before @ turn[: student.dimension].numpy())
    more: dict[str, Any] = {"model": str(Path(llm_embeddings.__file__).parent / "data/small")}
    more |= {"teacher": str(tmp_path / "wide.npy"), "linear_map": True}
    options = made(tmp_path, texts, **more, max_steps=5, learning_rate=1e-3)
    train_distill(options)
    after = Encoder.from_pretrained(str(options.output), dtype="float32").encode_document(rows)
    found, wanted = (one @ one.T for one in (after, before))
    assert_close(found, wanted, atol=0.01)


@pytest.mark.slow
def test_vectors_may_lie_in_files(texts: str, tmp_path: Path) -> None:
    """As `encode` writes them: alone, or beside the texts."""
    stage = distill._Stage(made(tmp_path, texts))
    batch = batch_of(stage, 3)
    accelerator = Accelerator(cpu=True)
    wanted = stage._lessons.vectors(batch, accelerator)
    for name in ("v.npy", "v.parquet", "v.jsonl"):
        command = ["encode", texts, "-o", str(tmp_path / name), "--model", NEAR]
        result = CliRunner().invoke(app, [*command, "--dtype", "float32"])
        assert result.exit_code == 0, result.output
        data, teacher = (
            (texts, str(tmp_path / name)) if name == "v.npy" else (tmp_path / name, None)
        )
        other = distill._Stage(made(tmp_path, (str(data),), teacher=teacher))
        again = batch_of(other, 3)
        assert [lesson.text for lesson in again] == [lesson.text for lesson in batch]
        assert_close(other._lessons.vectors(again, accelerator).numpy(), wanted.numpy())


@pytest.mark.slow
def test_an_interrupted_run_goes_on(
    texts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {"teacher": FAR, "linear_map": True, "max_steps": 6}
    more["save_every"] = 2
    whole = made(tmp_path / "whole", texts, **more)
    train_distill(whole)
    found = losses_of(whole.output)
    real, calls = distill._Stage.update, []

    def stopped(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    options = made(tmp_path / "stopped", texts, **more)
    with monkeypatch.context() as patch:
        patch.setattr(distill._Stage, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            train_distill(options)
    train_distill(dataclasses.replace(options, resume=True))
    assert losses_of(options.output) == found
    one, other = (load_file(run.output / "model.safetensors") for run in (whole, options))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads((options.output / "provenance.json").read_bytes())["facts"]["teacher"]


@pytest.mark.slow
def test_two_processes_share_the_teachers_work(texts: str, tmp_path: Path) -> None:
    train_distill(teach(texts, tmp_path / "single"))
    run_two("helpers.training_distill", texts, tmp_path / "double")
    one, two = (losses_of(tmp_path / name) for name in ("single", "double"))
    assert one == pytest.approx(two, rel=1e-5)


@pytest.mark.slow
def test_what_does_not_fit_is_named(texts: str, tmp_path: Path) -> None:
    np.save(tmp_path / "five.npy", np.ones((5, 16), np.float32))
    np.save(tmp_path / "many.npy", np.ones((25, 16), np.float32))
    np.save(tmp_path / "bytes.npy", np.ones((24, 16), np.int8))
    np.save(tmp_path / "wide.npy", np.ones((24, 9), np.float32))
    (tmp_path / "text.npy").write_text("no array")
    rows: list[Any] = [{"text": "a", "embedding": [1.0, 2.0]}, {"text": "b", "embedding": [1.0]}]
    ragged = write_rows(tmp_path / "ragged.jsonl", rows)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"teacher": "five.npy"}, r"texts.jsonl, line 6: '.*five.npy' has only 5 vectors"),
        ({"teacher": "many.npy"}, "has 25 vectors, and the data 24 texts: embed the same file"),
        ({"teacher": "bytes.npy"}, r"holds int8 of shape \(24, 16\), not a float vector"),
        ({"teacher": "text.npy"}, "is not a .npy file"),
        ({"teacher": "five.npy", "queries": (ragged,)}, "holds the vectors of one file, and"),
        ({"teacher": "wide.npy"}, r"the teacher's vectors have 9 dimensions and"),
        ({"teacher": None}, "line 1: column 'embedding' is None, not a vector: embed the texts"),
        (
            {"teacher": None, "data": (ragged,)},
            r"line 2: column 'embedding' is \[1.0\], not a .* 2",
        ),
        ({"queries": (texts,)}, "texts.jsonl is among data and among queries: name it once"),
        ({"max_length": 0}, "max_length=0 must be 1 or more"),
        ({"teacher": FAR}, "teacher's vectors have 32 dimensions and the model's 24: let them"),
    )
    for changes, message in cases:
        teacher = changes.get("teacher")
        if teacher is not None and teacher.endswith(".npy"):
            changes["teacher"] = str(tmp_path / teacher)
        with pytest.raises(ValueError, match=message):
            distill._Stage(made(tmp_path, **{"data": texts, **changes}))
