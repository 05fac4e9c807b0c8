"""A second, shallow tree of modules around the same weights.

A backbone belongs to its owner: it is trained, saved, and has one attention direction in its
config. Passes that want another config, another layout of weights or another last layer run a twin:
modules of their own that hold the very parameters of the backbone. Neither tree writes to the
other.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from .attention import attention

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

PREFIX = "llm_embeddings_"  # of names in transformers' registry of attention
_KINDS = {"full_attention", "sliding_attention"}


def shared_copy(module: Any, config: PretrainedConfig) -> Any:
    """The same parameters in new modules that look into another config.

    Tables of parameters and hooks are shared, so a weight that is moved or replaced is so in both;
    tables of buffers are not, since some rotary embeddings write theirs on the way.
    """
    if not module._modules and not hasattr(module, "config"):
        return module
    twin = copy.copy(module)
    twin._modules = {
        name: None if child is None else shared_copy(child, config)
        for name, child in module._modules.items()
    }
    twin._buffers = dict(module._buffers)
    if hasattr(module, "config"):
        twin.config = config
    return twin


def can_have_twin(backbone: nn.Module) -> bool:
    """Whether modules run their own class's code: accelerate's `device_map` binds others to them.

    What is bound to a module would run that module, and not its twin.
    """
    return not any("forward" in vars(module) for module in backbone.modules())


def twin_of(backbone: PreTrainedModel) -> PreTrainedModel:
    """A twin with a copy of the config; the backbone itself where it can have none."""
    if not can_have_twin(backbone):
        return backbone
    found: PreTrainedModel = shared_copy(backbone, copy.deepcopy(backbone.config))
    return found


def enable(backbone: PreTrainedModel) -> None:
    """Let a backbone take an `attend` function; without one it goes on as before.

    Raises:
        ValueError: its attention is not called through transformers' registry, or is of a kind
            that a pack cannot express.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    name = backbone.config._attn_implementation.removeprefix(PREFIX)
    functions, masks = AttentionInterface(), AttentionMaskInterface()
    kinds = set(getattr(backbone.config, "layer_types", None) or ())
    if not backbone._supports_attention_backend or name not in functions or name not in masks:
        raise ValueError(f"{type(backbone).__name__} runs {name!r} attention of its own")
    if not kinds <= _KINDS:
        raise ValueError(f"its layers are of the kinds {sorted(kinds)}")
    AttentionInterface.register(PREFIX + name, partial(attention, plain=functions[name]))
    AttentionMaskInterface.register(PREFIX + name, masks[name])
    backbone.config._attn_implementation = PREFIX + name
