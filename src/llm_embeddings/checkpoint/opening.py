"""A checkpoint, devices and a cache -> an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arithmetic.prepacking import prepack
from ..calibration import quantized
from ..engine.processes import open_on
from ..inputs import check_quantization
from ..recipe import Recipe
from ..vector_cache.store import VectorCache
from .files import Source
from .loading import LoadOptions, load

if TYPE_CHECKING:
    from ..encoder import Encoder


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is to be loaded; the names are those of `Encoder.from_pretrained`."""

    model: str
    recipe: Recipe | str | None
    adapters: Sequence[str | Path]
    quantization: Any
    source: Source
    options: LoadOptions


def open_encoder(
    kind: type[Encoder],
    checkpoint: Checkpoint,
    devices: Sequence[str] | None,
    vector_cache: VectorCache | str | Path | None,
) -> Encoder:
    """Load; what can be checked without the weights is checked first.

    Raises:
        ValueError: `devices` beside `device` or `device_map`, or what the parts raise.
    """
    options = checkpoint.options
    if devices is not None and (options.device is not None or options.device_map is not None):
        raise ValueError("devices says where the model goes: leave out device and device_map")
    if isinstance(checkpoint.quantization, str):
        check_quantization(checkpoint.quantization)
    if isinstance(vector_cache, str | Path):
        vector_cache = VectorCache(vector_cache)
    load_on = partial(_load, kind, checkpoint)
    encoder = load_on(device=options.device) if devices is None else open_on(devices, load_on)
    encoder.vector_cache = vector_cache
    return encoder


def _load(kind: type[Encoder], checkpoint: Checkpoint, *, device: Any) -> Encoder:
    quantization = checkpoint.quantization
    ours = isinstance(quantization, str)  # else transformers quantises while it loads
    loaded = load(
        checkpoint.model,
        checkpoint.recipe,
        checkpoint.adapters,
        checkpoint.source,
        replace(checkpoint.options, device=device, quantization=None if ours else quantization),
    )
    if quantization is None:
        prepack(loaded.backbone)
    encoder = kind(loaded.backbone, loaded.tokenizer, loaded.recipe)
    encoder.ranges = loaded.ranges
    return quantized(encoder, check_quantization(quantization)) if ours else encoder
