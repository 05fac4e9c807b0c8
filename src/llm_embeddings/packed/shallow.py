"""A few layers of a backbone: what its class does with them it does with all of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from ..arithmetic.stored import is_stored, widen
from .twin import can_have_twin, shared_copy, twin_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shallow(backbone: PreTrainedModel) -> PreTrainedModel:
    """A twin with the first layer, the last one and one of every kind; else the backbone itself.

    Architectures whose weights stay as they are stored have no last layer of its own kind.

    Attention direction, kernels and the order of a layer's steps are properties of the class and
    its config, so they are asked of this. The parameters are the backbone's own, and converted
    when they are used where passes compute in another dtype.
    """
    twin = _with_few_layers(backbone)
    if is_stored(backbone):
        twin = twin_of(backbone) if twin is backbone else twin
        widen(twin)
    return twin


def _with_few_layers(backbone: PreTrainedModel) -> PreTrainedModel:
    depth = getattr(backbone.config, "num_hidden_layers", 0)
    kinds = list(getattr(backbone.config, "layer_types", None) or [None] * depth)
    last = () if is_stored(backbone) else (depth - 1,)
    chosen = sorted({0, *last, *(kinds.index(kind) for kind in kinds)})
    if not can_have_twin(backbone) or len(kinds) != depth or len(chosen) >= depth:
        return backbone
    config = copy.deepcopy(backbone.config)
    config.use_cache = False
    config.num_hidden_layers = len(chosen)
    if kinds != [None] * depth:
        config.layer_types = [kinds[number] for number in chosen]
    twin: PreTrainedModel = shared_copy(backbone, config)
    modules: list[Any] = list(twin.modules())
    for module in modules:
        for name, child in module._modules.items():
            if isinstance(child, nn.ModuleList) and len(child) == depth:
                module._modules[name] = nn.ModuleList([child[number] for number in chosen])
    return twin
