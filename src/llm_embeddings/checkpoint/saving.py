"""A model back on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..arithmetic.quantization import refuse_quantized
from ..model import Model
from ..vectors import Vectors
from . import sidecar
from .adapters import without_adapters
from .head_files import save_head


def save(model: Model, path: Path, ranges: Mapping[tuple[int, bool], Vectors]) -> None:
    """Write weights (trained adapters merged), heads, tokenizer and recipe; the recipe last.

    Args:
        model: What is written.
        path: Directory; made if it does not exist.
        ranges: Ranges of int8 and uint8 vectors, `[2, dim]` by (dim, normalize).

    Raises:
        ValueError: quantised weights.
    """
    refuse_quantized(model.backbone)
    backbone = without_adapters(model.converted())
    if any("lora_" in name for name, _ in backbone.named_parameters()):
        raise ValueError(
            "adapters lie unmerged on this model (quantised weights cannot take them in): load it "
            "without quantization and save that"
        )
    path.mkdir(parents=True, exist_ok=True)
    (path / sidecar.NAME).unlink(missing_ok=True)
    backbone.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    save_head(model.head, path)
    sidecar.write(path, sidecar.Sidecar(model.recipe.replace(base=None), ranges=dict(ranges)))
