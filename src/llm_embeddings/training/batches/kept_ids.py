"""Token ids of a large corpus, kept on disk: made once for all processes, passes and runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...storage.blocks import seal, unseal
from ...storage.files import waited, write_whole

Ids = NDArray[np.int32]


def kept_ids(texts: Sequence[str], maker: str, make: Callable[[Sequence[str]], Ids]) -> Ids:
    """What is kept for these texts, or else what `make` gives, kept from then on.

    It lies in the user's cache directory, under a hash of the texts; processes that want the same
    wait for the one that makes it. Where nothing can be written, nothing is kept.

    Args:
        texts: The texts.
        maker: What else decides the ids: a tokenizer and its settings.
        make: Texts -> their ids, all in one row.
    """
    from huggingface_hub.constants import HF_ASSETS_CACHE

    key = hashlib.sha256(json.dumps([maker, *texts]).encode()).hexdigest()
    path = Path(HF_ASSETS_CACHE) / "llm-embeddings" / "tokens" / key[:2] / key
    with waited(path.parent):
        with contextlib.suppress(OSError):
            known = unseal(path.read_bytes(), key, older=False)
            if known is not None:
                return np.frombuffer(known, np.int32)
        found = make(texts)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, seal(found.tobytes(), key))
        return found
