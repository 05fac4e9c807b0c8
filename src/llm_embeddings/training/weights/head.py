"""The language-model head of a checkpoint, for stages that predict tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...checkpoint.files import Source, find, resolve, weight_files
from ..options import StageOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_head(options: StageOptions, backbone: PreTrainedModel) -> torch.nn.Linear:
    """The language-model head of `options.model`, frozen; tied heads share the embeddings' weight.

    Raises:
        ValueError: the model has no head, or one that is not a plain matrix.
    """
    config: Any = backbone.config
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise ValueError(f"the head of {options.model!r} has {name}, which is not trained here")
    root = resolve(find(options.model, Source()), (), Source()).root
    embedding: Any = backbone.get_input_embeddings()
    weight = _tensor(root, "lm_head.weight")
    if weight is None and not config.tie_word_embeddings:
        raise ValueError(
            f"{options.model!r} has no lm_head.weight: it is a backbone alone. Start from the "
            "language model it was made of"
        )
    rows, width = embedding.weight.shape
    head = torch.nn.Linear(width, rows, bias=False, device="meta")
    if weight is None or config.tie_word_embeddings:
        head.weight = embedding.weight
    else:
        placed = weight.to(embedding.weight.device, embedding.weight.dtype)
        head.weight = torch.nn.Parameter(placed, requires_grad=False)
    head.out_features = len(head.weight)
    return head


def _tensor(root: Path, name: str) -> torch.Tensor | None:
    """One tensor of the safetensors files in a checkpoint's folder; None = no file has it."""
    from safetensors import safe_open

    file = weight_files(root).get(name)
    if file is None:
        return None
    with safe_open(file, framework="pt") as tensors:
        found: torch.Tensor = tensors.get_tensor(name)
    return found
