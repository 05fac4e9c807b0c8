"""A few layers of a backbone: what its class does with them it does with all of them.

Attention direction, kernels and the order of a layer's steps are properties of the class and its
config. They are asked of the backbone's own first layers, or, where those are large, of a narrow
model of the same class and config.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ..arithmetic.stored import MODEL_TYPES, computed_in, is_stored, widen
from .twin import can_have_twin, shared_copy, twin_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LARGE = 2**24  # values of a layer and of the embedding, from which a narrow model is asked
_ROWS, _WIDE = 64, 128  # embedding rows and intermediate values of that


def shallow(backbone: PreTrainedModel) -> PreTrainedModel:
    """A model of few layers, to be asked what does not depend on the values of the weights.

    A narrow one if the backbone is large, on a CPU, and made of stock modules alone; else a twin
    with the first layer, the last one and one of every kind around the backbone's own parameters,
    which are converted when they are used; else the backbone itself.
    """
    narrow = _narrow(backbone)
    if narrow is not None:
        return narrow
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


def _narrow(backbone: PreTrainedModel) -> PreTrainedModel | None:
    """A model of the same class and config, one layer of each kind, fewer heads, random weights.

    None where it would not do as the backbone does: another device chooses kernels by width, and a
    module that was replaced or hooked does what its class does not say.
    """
    config = backbone.config
    kind, device = getattr(config, "model_type", None), backbone.device
    if kind not in MODEL_TYPES or device.type != "cpu" or not can_have_twin(backbone):
        return None
    layers = getattr(backbone, "layers", ())
    if sum(weight.numel() for part in layers[:1] for weight in part.parameters()) < _LARGE:
        return None
    kinds = list(getattr(config, "layer_types", None) or [None] * len(layers))
    chosen = sorted({kinds.index(one) for one in kinds})
    with torch.device("meta"):
        narrow: Any = type(backbone)(_narrowed(config, chosen))
    narrow.rotary_emb = type(narrow.rotary_emb)(config=narrow.config)
    likes = {one: narrow.layers[number] for number, one in enumerate(kinds[n] for n in chosen)}
    around = [_make(model, without=model.layers) for model in (cast(Any, backbone), narrow)]
    if around[0] != around[1] or any(
        _make(layer) != _make(likes[one]) for layer, one in zip(layers, kinds, strict=True)
    ):
        return None
    _fill(narrow, computed_in(backbone))
    return narrow.eval()  # type: ignore[no-any-return]


def _narrowed(config: Any, chosen: list[int]) -> Any:
    """The config of a narrow model with these layers of a config's."""
    found = copy.deepcopy(config)
    heads = config.num_attention_heads
    groups = min(heads // (getattr(config, "num_key_value_heads", None) or heads), 2)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    found.num_attention_heads, found.num_key_value_heads = 2 * groups, 2
    found.head_dim, found.hidden_size = size, 2 * groups * size
    found.intermediate_size, found.vocab_size, found.pad_token_id = _WIDE, _ROWS, None
    found.num_hidden_layers, found.use_cache = len(chosen), False
    for name in ("layer_types", "no_rope_layers"):
        if getattr(config, name, None):
            setattr(found, name, [getattr(config, name)[number] for number in chosen])
    return found


def _make(part: nn.Module, *, without: nn.Module | None = None) -> list[Any]:
    """The classes of a part's modules by name, and whether anything hangs on them."""
    inside = set() if without is None else set(without.modules())
    return [
        (name, type(module), bool(module._forward_hooks or module._forward_pre_hooks))
        for name, module in part.named_modules()
        if module not in inside
    ]


def _fill(narrow: nn.Module, dtype: torch.dtype) -> None:
    """Random matrices that keep the size of states, and ones; torch's own generator stays as is.

    Numbers that are spread evenly between -a and a have a variance of a² / 3.
    """
    generator = torch.Generator().manual_seed(0)
    for module in narrow.modules():
        for name, weight in module._parameters.items():
            if weight is None:
                continue
            if weight.ndim > 1:
                most = math.sqrt(3 / weight.shape[-1])
                values = torch.empty(weight.shape, device="cpu")
                values.uniform_(-most, most, generator=generator)
            else:
                values = torch.ones(weight.shape, device="cpu")
            module._parameters[name] = nn.Parameter(values.to(dtype), requires_grad=False)
