"""The files that weights are about to be read from, and what is made of them."""

from __future__ import annotations

from typing import Any

from ..storage.hashing import stamp
from ..vector_cache.origin import Origin
from .adapters import WEIGHTS, settings_of
from .files import INDEX, Checkpoint, shards_of


def origin_of(checkpoint: Checkpoint, quantization: Any) -> Origin:
    """Where a model comes from; call it before its weights are read.

    Args:
        checkpoint: Its directories.
        quantization: A quantization config of transformers, or None.
    """
    index = checkpoint.root / INDEX
    files = [*([index] if index.is_file() else []), *shards_of(checkpoint.root)]
    adapters = [directory / WEIGHTS for directory in checkpoint.adapters]
    files += [path for path in adapters if path.is_file()]  # the adapter itself names a lack
    facts = {
        "adapters": [settings_of(directory) for directory in checkpoint.adapters],
        "quantization": repr(quantization) if quantization is not None else None,
    }
    return Origin(tuple(map(stamp, files)), facts)
