"""How much memory there is is asked before weights are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import BUNDLED

from llm_embeddings import Encoder
from llm_embeddings.arithmetic import dtype, memory

E5 = BUNDLED / "e5-mistral/model"


def test_total_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[str, int] = {}
    monkeypatch.setattr(memory, "_limit", lambda file: limits.get(file.name))
    machine = memory.total_memory()
    assert machine > 2**28
    limits["memory.max"] = 5000
    assert memory.total_memory() == 5000
    limits["memory.limit_in_bytes"] = 4000
    assert memory.total_memory() == 4000
    limits.update({name: 2**62 for name in limits})  # what version 1 says when there is none
    assert memory.total_memory() == machine


def test_limits(tmp_path: Path) -> None:
    file = tmp_path / "memory.max"
    assert memory._limit(file) is None
    for text, number in (("max\n", None), ("123\n", 123)):
        file.write_text(text)
        assert memory._limit(file) == number


def test_weights_that_cannot_be_held_are_refused_with_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = Encoder.from_pretrained(E5, dtype="float32")
    count = sum(weight.numel() for weight in encoder.backbone.parameters())
    assert memory.stored_values(E5) == count
    monkeypatch.setattr(memory, "total_memory", lambda: 4 * count - 1)
    known = r"take 0\.0 GiB in float32.* bfloat16 \(0\.0 GiB\) or int8"
    with pytest.raises(ValueError, match=known):
        Encoder.from_pretrained(E5, dtype="float32", device="cpu")
    Encoder.from_pretrained(E5, dtype="bfloat16", device="cpu")
    monkeypatch.setattr(memory, "total_memory", lambda: 4 * count)
    Encoder.from_pretrained(E5, dtype="float32", device="cpu")


def test_half_precision_stays_where_twice_the_bytes_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Encoder.from_pretrained(E5, dtype="float16").save_pretrained(tmp_path / "half")
    monkeypatch.setattr(dtype, "bfloat16_pays", lambda: False)
    loaded = Encoder.from_pretrained(tmp_path / "half", device="cpu")
    assert loaded.backbone.dtype == torch.float32
    count = memory.stored_values(tmp_path / "half")
    monkeypatch.setattr(memory, "total_memory", lambda: 4 * count)
    loaded = Encoder.from_pretrained(tmp_path / "half", device="cpu")
    assert loaded.backbone.dtype == torch.bfloat16
