"""Encoders that a device's process can load by name and that go wrong there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from helpers import BUNDLED
from llm_embeddings import Encoder

E5 = BUNDLED / "e5-mistral/model"


def load(*, device: str) -> Encoder:
    """As it should be."""
    return Encoder.from_pretrained(E5, device=device, dtype="float32")


def load_frail(*, device: str) -> Encoder:
    """It has memory for 60 tokens, fails over rows of 30 and dies over rows of 60."""
    encoder = load(device=device)
    run = encoder.scheduler.runner.run

    def frail(units: Sequence[Any], *, pooled: bool = True) -> list[torch.Tensor]:
        longest = max(unit.longest for unit in units)
        if longest > 60:
            os.kill(os.getpid(), 9)
        if longest > 30:
            raise ZeroDivisionError("of the model")
        if sum(unit.tokens for unit in units) > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(units, pooled=pooled)

    encoder.scheduler.runner.run = frail  # type: ignore[method-assign]
    return encoder


def load_other(*, device: str) -> Encoder:
    """Other weights than `load`."""
    encoder = load(device=device)
    with torch.no_grad():
        encoder.backbone.norm.weight.mul_(2)
    return encoder
