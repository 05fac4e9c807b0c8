"""A checkpoint and the options of loading -> an encoder, on one device or on several."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .arithmetic.kinds import check_quantization
from .base_encoder import BaseEncoder
from .checkpoint.options import LoadOptions
from .vectors import Vectors

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from .recipe import Recipe

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
    from .checkpoint.gguf import gguf_of, load_gguf
    from .checkpoint.loading import load

    options = replace(options, device=device, devices=None)
    file = gguf_of(model)
    if file is None:
        loaded, ranges, origin, form = load(model, options, keep=True)
    else:
        loaded, ranges, origin, form = load_gguf(file, options), {}, None, None
    parts = _Parts(loaded.backbone, loaded.tokenizer, loaded.recipe, loaded.head)
    del loaded  # it knows every weight, and would keep those that are quantized
    # A config object has acted at load, and int8 weights of a file are what they shall be.
    kind = options.quantization if form is None else None
    encoder = _quantized(make, parts, kind) if isinstance(kind, str) else make(*parts)
    if isinstance(kind, str) and origin is not None:
        origin = origin.but(quantization=kind)
    if form is not None:
        encoder.quantization_cosine = form.cosine
    encoder.ranges, encoder.origin = ranges, origin
    return encoder


class _Parts(NamedTuple):
    """What an encoder is made of."""

    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    recipe: Recipe
    head: nn.Module | None


def _quantized(make: Make[AnEncoder], parts: _Parts, kind: str) -> AnEncoder:
    """An encoder that computes in `kind`; a plain one is there before it, for the sample alone.

    Nothing of that may outlive it: each float weight shall go when its integers are there. Its
    `quantization_cosine` is the lowest cosine on a sample between vectors before and after.
    """
    from .arithmetic.calibration import passages_for, sample
    from .arithmetic.quantization import quantize, sample_cosine

    passages = passages_for(parts.backbone.num_parameters())
    before = _sample_of_plain(make, parts, passages)
    gc.collect()  # modules and what is bound to them refer to each other
    quantize(parts.backbone, check_quantization(kind))
    found = make(*parts)
    found.quantization_cosine = sample_cosine(before, sample(found.encode, passages))
    return found


def _sample_of_plain(make: Make[AnEncoder], parts: _Parts, passages: int) -> Vectors:
    from .arithmetic.calibration import sample

    encoder = make(*parts)
    vectors = sample(encoder.encode, passages)
    encoder.scheduler.close()
    return vectors
