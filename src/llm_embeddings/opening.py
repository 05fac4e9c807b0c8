"""A checkpoint and the options of loading -> an encoder, on one device or on several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from .arithmetic.kinds import check_quantization
from .base_encoder import BaseEncoder
from .checkpoint.options import LoadOptions
from .vectors import Vectors

AnEncoder = TypeVar("AnEncoder", bound=BaseEncoder)
Make = Callable[..., AnEncoder]  # backbone, tokenizer, recipe, head -> encoder


def open_encoder(make: Make[AnEncoder], model: str | Path, options: LoadOptions) -> AnEncoder:
    """Load; what can be checked without the weights is checked first.

    Args:
        make: The class of the encoder.
        model: Hub id or directory.
        options: How it is loaded.

    Raises:
        FileNotFoundError: a directory, repository, base or weight file is missing.
        ValueError: anything else that does not fit; the message names it and the remedy.
    """
    from .vector_cache.store import VectorCache

    cache = options.vector_cache
    if isinstance(cache, str | Path):
        cache = VectorCache(cache)
    load: Make[AnEncoder] = partial(_load, make, model, replace(options, vector_cache=None))
    if options.devices is None:
        encoder = load(device=options.device)
    else:
        from .engine.processes import open_on

        encoder = open_on(options.devices, load)
    encoder.vector_cache = cache
    encoder.opened = (str(model), replace(options, token=None, vector_cache=None))
    return encoder


def _load(
    make: Make[AnEncoder], model: str | Path, options: LoadOptions, *, device: Any
) -> AnEncoder:
    """An encoder on one device."""
    from .checkpoint.loading import load

    loaded, ranges = load(model, replace(options, device=device, devices=None))
    encoder = make(loaded.backbone, loaded.tokenizer, loaded.recipe, loaded.head)
    encoder.ranges = ranges
    if isinstance(options.quantization, str):  # a config object has acted at load
        return _quantized(make, encoder, options.quantization)
    return encoder


def _quantized(make: Make[AnEncoder], encoder: AnEncoder, kind: str) -> AnEncoder:
    """An encoder that computes in `kind`; it takes over the backbone, and the given one is closed.

    Its `quantization_cosine` is the lowest cosine on a sample between vectors before and after.
    """
    from .arithmetic.calibration import sample
    from .arithmetic.quantization import quantize, sample_cosine

    before: Vectors = sample(encoder.encode)
    encoder.scheduler.close()
    model = encoder.model
    quantize(model.backbone, check_quantization(kind))
    found = make(model.backbone, model.tokenizer, model.recipe, model.head)
    found.ranges = encoder.ranges
    found.quantization_cosine = sample_cosine(before, sample(found.encode))
    return found
