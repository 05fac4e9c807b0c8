"""What tests run in interpreters of their own, which find it by its module's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_embeddings import Encoder


def encode(model: Path, texts: list[str], role: Any) -> Any:
    """float32 vectors `[n, dim]` of an encoder loaded there."""
    return Encoder.from_pretrained(model, dtype="float32").encode(texts, role)
