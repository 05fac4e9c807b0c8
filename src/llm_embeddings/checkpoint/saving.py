"""A model back on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..arithmetic.quantization import is_int8_on_cpu, refuse_quantized
from ..model import Model
from ..vectors import Vectors
from . import sidecar
from .adapters import without_adapters
from .files import INT8_NAME, shards_of
from .head_files import save_head
from .int8_files import write_int8


def save(
    model: Model,
    path: Path,
    ranges: Mapping[tuple[int, bool], Vectors],
    cosine: float | None = None,
) -> None:
    """Write weights (trained adapters merged), heads, tokenizer and recipe; the recipe last.

    Args:
        model: What is written; int8 weights of a CPU as they are.
        path: Directory; made if it does not exist.
        ranges: Ranges of int8 and uint8 vectors, `[2, dim]` by (dim, normalize).
        cosine: How close quantised weights stay to the plain ones, kept beside them.

    Raises:
        ValueError: weights that cannot be written, or a directory that holds others.
    """
    backbone, form = without_adapters(model.converted()), None
    if is_int8_on_cpu(backbone):
        form = sidecar.Form("int8", cosine)
    else:
        refuse_quantized(
            backbone,
            "saved here: load it without quantization, or on a CPU with quantization='int8', and "
            "save that",
        )
    if any("lora_" in name for name, _ in backbone.named_parameters()):
        raise ValueError(
            "adapters lie unmerged on this model (quantised weights cannot take them in): load it "
            "without quantization and save that"
        )
    _check_place(path, form)
    path.mkdir(parents=True, exist_ok=True)
    (path / sidecar.NAME).unlink(missing_ok=True)
    if form is None:
        backbone.save_pretrained(path)
    else:
        write_int8(backbone, path)
    model.tokenizer.save_pretrained(path)
    save_head(model.head, path)
    recipe = model.recipe.replace(base=None)
    sidecar.write(path, sidecar.Sidecar(recipe, ranges=dict(ranges), form=form))


def _check_place(path: Path, form: sidecar.Form | None) -> None:
    """A directory holds weights in one form."""
    others = [one.name for one in shards_of(path) if (one.name == INT8_NAME) == (form is None)]
    if others:
        raise ValueError(
            f"{path} holds {others[0]}, weights in another form: name another directory, or delete "
            "that file first"
        )
