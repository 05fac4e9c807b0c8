"""An encoder back on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..arithmetic.quantization import refuse_quantized
from . import sidecar
from .adapters import without_adapters

if TYPE_CHECKING:
    from ..encoder import Encoder


def save(encoder: Encoder, path: Path) -> None:
    """Write weights (trained adapters merged), tokenizer and recipe; the recipe last."""
    refuse_quantized(encoder.backbone)
    backbone = without_adapters(encoder.backbone)
    if any("lora_" in name for name, _ in backbone.named_parameters()):
        raise ValueError(
            "adapters lie unmerged on this model (quantised weights cannot take them in): load it "
            "without quantization and save that"
        )
    path.mkdir(parents=True, exist_ok=True)
    (path / sidecar.NAME).unlink(missing_ok=True)
    backbone.save_pretrained(path)
    encoder.tokenizer.save_pretrained(path)
    sidecar.write(path, sidecar.Sidecar(encoder.recipe.replace(base=None), encoder.ranges))
