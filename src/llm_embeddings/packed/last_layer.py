"""The last layer for pooled tokens only: of all others nobody reads more than keys and values.

A hook before the last layer runs the stock layer twice. The first time it sees all tokens, and
stops when it has come to its attention: that gives keys and values. The second time it sees the
wanted tokens alone, and attends to the keys and values of the first. What else an architecture does
in a layer stays its own affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .pack import Pack

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class _ReachedError(Exception):
    """A layer has come to its attention."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor) -> None:
        super().__init__("keys and values of a layer")
        self.states = key, value


class _Stop:
    """Stands for a pack: instead of attending, stops the layer."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any
    ) -> torch.Tensor:
        raise _ReachedError(key, value)


@dataclass(frozen=True, slots=True)
class _Last:
    """Stands for a pack: queries of the wanted tokens, keys and values of all."""

    pack: Pack
    key: torch.Tensor
    value: torch.Tensor

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any
    ) -> torch.Tensor:
        return self.pack.attend(layer, query, self.key, self.value, *rest)


def enable(backbone: PreTrainedModel) -> None:
    """Let a pass give the hidden states of wanted tokens only; nothing else changes.

    Raises:
        AttributeError: the backbone has no `layers`.
    """
    layers: Any = backbone.layers
    layer: nn.Module = layers[backbone.config.num_hidden_layers - 1]
    if _only_wanted not in layer._forward_pre_hooks.values():
        layer.register_forward_pre_hook(_only_wanted, with_kwargs=True)


def _only_wanted(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    last: Pack | None = kwargs.get("last")
    if last is None:
        return None
    hidden, *others = args
    try:
        layer.forward(*args, **{**kwargs, "pack": _Stop()})
    except _ReachedError as reached:
        pack = _Last(last, *reached.states)
    else:
        raise ValueError(f"{type(layer).__name__} does not attend through transformers' registry")
    cos, sin = (part[:, last.rows] for part in kwargs["position_embeddings"])
    positions = kwargs["position_ids"][:, last.rows]
    kwargs = {**kwargs, "pack": pack, "position_embeddings": (cos, sin), "position_ids": positions}
    return (hidden[:, last.rows], *others), kwargs
