"""How many tokens go through the model in one pass: as many as the free memory holds.

What a pass keeps for its backward pass is measured on a short one, not derived from an
architecture: adapters, dropout, dtypes and experts all count.
"""

from __future__ import annotations

from typing import Any

import torch

from ...arithmetic.memory import free_memory

MOST, FEWEST = 8192, 256
# Of the free memory: what a backward pass needs for a moment, and what the C library's allocator
# keeps, come on top (with adapters half as much again, in 30 layers on a CPU).
_SHARE = 0.5
_SHORT, _LONG = 32, 96  # tokens of the passes that are measured
_HEAD_ROWS = 1024  # states whose logits exist at a time, as in `losses.head_nll_sum`
_LOGITS = 4  # float32 arrays of them: themselves, their softmax and the gradients of both
_OPTIMIZER = 3 * 4  # bytes for each trained number: gradient and AdamW's two moments


def fitting_tokens(model: torch.nn.Module, *, free: int, checkpointing: bool) -> int:
    """How many tokens per pass fit into the free memory, `FEWEST` to `MOST`.

    Args:
        model: A stage's model, on its device: rows of token ids and the first pooled position of
            each -> vectors.
        free: Free memory in bytes.
        checkpointing: Whether its layers compute their activations twice, and so keep those of one
            layer at a time, and each a row of states. On a CPU the allocator's share remains, which
            was as much as half of what is kept without checkpointing.
    """
    weights = list(model.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    head = getattr(model, "head", None)  # a language model's; what follows a pooling is small
    words = len(head.weight) if isinstance(head, torch.nn.Linear) else 0
    logits = _HEAD_ROWS * words * 4 * _LOGITS
    model.train(not checkpointing)  # layers check their activations in training mode only
    each = (_kept_bytes(model, _LONG) - _kept_bytes(model, _SHORT)) / (_LONG - _SHORT)
    model.train()
    if checkpointing:
        encoding: Any = getattr(model, "encoding", model)
        config = encoding.backbone.config
        layers = config.num_hidden_layers
        one = each / (2 if weights[0].device.type == "cpu" else layers)
        each = one + 4 * config.hidden_size * layers
    room = _SHARE * (free - trained * _OPTIMIZER) - logits
    return int(min(max(room / max(each, 1), FEWEST), MOST))


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device, or of the machine or container; None = not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory() if device.type == "cpu" else None


def _kept_bytes(model: torch.nn.Module, tokens: int) -> int:
    """Bytes that a pass over one row keeps for its backward pass, weights not counted."""
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # a graph that held its own output would never be freed

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model([[0] * tokens], [0])
    return sum(kept.values())
