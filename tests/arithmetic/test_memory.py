"""How much memory there is is asked before weights are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import BUNDLED

from llm_embeddings import Encoder
from llm_embeddings.arithmetic import dtype, memory

E5 = BUNDLED / "e5-mistral/model"


@pytest.mark.parametrize(
    ("limit", "used"),
    [
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_a_container_may_have_less_memory_than_the_machine(
    limit: str, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    machine, free = memory.total_memory(), memory.free_memory()
    assert machine > 2**28
    assert machine > free > 2**20
    (tmp_path / "memory").mkdir()
    (tmp_path / used).write_text("400000\n")
    (tmp_path / limit).write_text("1000000\n")
    assert memory.total_memory() == 1000000
    assert memory.free_memory() == 600000
    (tmp_path / limit).write_text("300000\n")
    assert memory.free_memory() == 0
    for none in ("max\n", f"{2**62}\n"):  # as versions 2 and 1 say it
        (tmp_path / limit).write_text(none)
        assert memory.total_memory() == machine
        assert memory.free_memory() > 2**20


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
