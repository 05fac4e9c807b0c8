"""The language-model head of a checkpoint, for stages that predict tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...checkpoint.files import Source, find, resolve, weight_files
from ..options import StageOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Head(torch.nn.Linear):
    """A language-model head with what some models do to its logits (Cohere, Granite, Gemma 2)."""

    def __init__(self, width: int, rows: int, config: Any) -> None:
        """A head without weights; `config` is the model's."""
        super().__init__(width, rows, bias=False, device="meta")
        self._factor = getattr(config, "logit_scale", None) or 1.0
        self._factor /= getattr(config, "logits_scaling", None) or 1.0
        self._cap: float | None = getattr(config, "final_logit_softcapping", None)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits `[..., vocabulary]` of states `[..., dim]`."""
        logits = super().forward(hidden)
        if self._factor != 1:
            logits = logits * self._factor
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap


def load_head(options: StageOptions, backbone: PreTrainedModel) -> torch.nn.Linear:
    """The language-model head of `options.model`, frozen; tied heads share the embeddings' weight.

    Raises:
        ValueError: the model has no head, or one with a bias.
    """
    config: Any = backbone.config
    root = resolve(find(options.model, Source()), (), Source()).root
    embedding: Any = backbone.get_input_embeddings()
    weight = _tensor(root, "lm_head.weight")
    if weight is None and not config.tie_word_embeddings:
        raise ValueError(
            f"{options.model!r} has no lm_head.weight: it is a backbone alone. Start from the "
            "language model it was made of"
        )
    if _tensor(root, "lm_head.bias") is not None:
        raise ValueError(f"the head of {options.model!r} has a bias, which is not trained here")
    rows, width = embedding.weight.shape
    head = Head(width, rows, config)
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
