"""Weights that stay in two bytes, as their files have them, and are converted when multiplied.

A checkpoint in half precision whose passes compute in another dtype takes its own size in memory,
nearly all of it mapped from its files, and is there at once. Each product converts its weight into
a room that all layers share, which is about as much work as reading it once more, until weights are
laid out for good (`prepacking`).
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from .mapped import leave, mapped_places

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HALF = (torch.float16, torch.bfloat16)
# Their weights are those of `nn.Linear`, `nn.Embedding` and norms, and no module looks at another's
# dtype. A test compares each, bit by bit, with converted weights.
MODEL_TYPES = frozenset("granite llama mistral olmo2 phi3 qwen2 qwen3 smollm3".split())
_MARK, _ROOM = "llm_embeddings_computes_in", "llm_embeddings_room"
_PIECE = 2**20  # values that are converted at once: they stay in the processor's cache


def leave_stored(backbone: PreTrainedModel, dtype: torch.dtype, *, once: bool = False) -> None:
    """Note that a backbone keeps the dtype of its files, while passes compute in another.

    What is converted is kept at first: a few layers are asked many things. See `use_one_room`.

    Args:
        backbone: Its weights are those of the files.
        dtype: What passes compute in; it may be the same.
        once: Whether pages of the files shall leave memory as soon as they have been read.
    """
    setattr(backbone, _MARK, dtype)
    setattr(backbone, _ROOM, _Room(once=once))


def use_one_room(backbone: nn.Module) -> None:
    """From now on a weight that is converted takes the place of the one before."""
    if is_stored(backbone):
        vars(backbone)[_ROOM].kept = None


def is_stored(backbone: nn.Module) -> bool:
    """Whether passes compute in another dtype than the weights have."""
    return _MARK in vars(backbone)


def computed_in(backbone: PreTrainedModel) -> torch.dtype:
    """The dtype that passes compute in."""
    found: torch.dtype = vars(backbone).get(_MARK, backbone.dtype)
    return found


def convert(backbone: PreTrainedModel) -> None:
    """Give a backbone's weights the dtype that its passes compute in, one after the other."""
    if not is_stored(backbone):
        return
    dtype = computed_in(backbone)
    convert_part(backbone, dtype)
    backbone.config.dtype = dtype
    delattr(backbone, _MARK)
    delattr(backbone, _ROOM)


def convert_part(part: nn.Module, dtype: torch.dtype) -> None:
    """Give the weights of a module in half precision another dtype, one after the other."""
    mapped = mapped_places()
    for weight in part.parameters():
        if weight.dtype in HALF and weight.dtype != dtype:
            before, weight.data = weight.data, converted(weight.data, dtype)
            leave(before, mapped)


def dtype_of(weight: torch.Tensor, module: nn.Module) -> torch.dtype:
    """The dtype in which passes use a weight of a module."""
    found: torch.dtype = weight.dtype
    return vars(module).get(_MARK, found) if found in HALF else found


def widen(twin: PreTrainedModel) -> None:
    """Let a twin's modules convert what they need of stored weights."""
    if not is_stored(twin):
        return
    dtype, room = computed_in(twin), vars(twin)[_ROOM]
    for parent in list(twin.modules()):
        for name, child in parent._modules.items():
            if type(child) is nn.Linear and child.weight.dtype in HALF:
                parent._modules[name] = StoredLinear.of(child, dtype, room)
            elif type(child) is nn.Embedding and child.weight.dtype in HALF:
                parent._modules[name] = StoredEmbedding.of(child, dtype)
            elif child is not None and any(w.dtype in HALF for w in _own(child)):
                parent._modules[name] = _with_converted(child, dtype)


class StoredLinear(nn.Linear):
    """A linear layer that computes in another dtype than its weight has.

    Attributes:
        dtype: What it computes in.
    """

    dtype: torch.dtype
    _room: _Room

    @classmethod
    def of(cls, layer: nn.Linear, dtype: torch.dtype, room: _Room) -> StoredLinear:
        """One around the same weight; the bias is converted."""
        found = cls.__new__(cls)
        found.__dict__.update(vars(layer))
        found._parameters = dict(layer._parameters)
        if layer.bias is not None:
            found._parameters["bias"] = _parameter(layer.bias, dtype)
        found.dtype, found._room = dtype, room
        return found

    def computed_weight(self) -> torch.Tensor:
        """The weight in the dtype of the product, until this thread asks for another."""
        return self._room.converted(self.weight.detach(), self.dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The product with the converted weight."""
        return functional.linear(input, self.computed_weight(), self.bias)


class StoredEmbedding(nn.Embedding):
    """An embedding whose rows are converted when they are looked up."""

    dtype: torch.dtype

    @classmethod
    def of(cls, layer: nn.Embedding, dtype: torch.dtype) -> StoredEmbedding:
        """One around the same weight."""
        found = cls.__new__(cls)
        found.__dict__.update(vars(layer))
        found.dtype = dtype
        return found

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The rows of these ids."""
        return super().forward(input).to(self.dtype)


def converted(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A weight in another dtype, in new memory; itself if it has that."""
    if weight.dtype == dtype:
        return weight
    return _into(torch.empty(weight.shape, dtype=dtype), weight)


class _Room:
    """Memory for converted weights: for all that are asked for, or one for each thread.

    Attributes:
        kept: What was converted, by where it comes from; None = only the last is kept.
    """

    def __init__(self, *, once: bool = False) -> None:
        """Keep all; `once`: what has been read is to leave memory."""
        self.kept: dict[int, torch.Tensor] | None = {}
        self._leaving = mapped_places() if once else []
        self._own = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Room, ()

    def converted(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """`weight` in another dtype, until the same thread asks for another."""
        if self.kept is not None:
            if weight.data_ptr() not in self.kept:
                self.kept[weight.data_ptr()] = converted(weight, dtype)
            return self.kept[weight.data_ptr()]
        flat, size = getattr(self._own, "flat", None), weight.numel()
        if flat is None or len(flat) < size:
            flat = self._own.flat = torch.empty(size, dtype=dtype)
        found = _into(flat[:size].view(weight.shape), weight)
        leave(weight, self._leaving)
        return found


def _into(found: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Fill a tensor with a weight's values; half to half goes through float32, as in torch.

    There torch converts one value at a time, and here many.
    """
    if found.dtype == weight.dtype or not {found.dtype, weight.dtype} <= set(HALF):
        return found.copy_(weight)
    wide = torch.empty(min(_PIECE, math.prod(weight.shape)))
    pieces = zip(found.view(-1).split(_PIECE), weight.reshape(-1).split(_PIECE), strict=True)
    for part, piece in pieces:
        part.copy_(wide[: len(piece)].copy_(piece))
    return found


def _own(module: nn.Module) -> Iterator[torch.Tensor]:
    return (weight for weight in module._parameters.values() if weight is not None)


def _with_converted(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The same module around converted parameters of its own."""
    found = copy.copy(module)
    found._parameters = {
        name: None if weight is None else _parameter(weight, dtype)
        for name, weight in module._parameters.items()
    }
    return found


def _parameter(weight: torch.Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(converted(weight.detach(), dtype), requires_grad=False)
