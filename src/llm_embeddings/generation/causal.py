"""A causal language model over an encoder's backbone: other modules around the same weights.

The config of an encoder's backbone fixes its attention direction. Text is generated causally, so
generation runs modules of its own, with a config of their own, which hold the parameters of the
encoder's modules. Neither set of modules writes to the other.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from ..checkpoint.files import read_json, weight_files
from ..packed.twin import PREFIX, can_have_twin, shared_copy

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def causal_model(backbone: PreTrainedModel, checkpoint: Path) -> PreTrainedModel:
    """A language model over the weights of a backbone, with its head read from a checkpoint.

    Args:
        backbone: An encoder's backbone.
        checkpoint: Directory whose files hold the head.

    Returns:
        A transformers `...ForCausalLM` on the backbone's device, with causal attention. It takes
        memory only for a head that is not the embedding matrix.

    Raises:
        FileNotFoundError: the directory holds no weights.
        ValueError: the architecture or the checkpoint has no head, or the backbone is spread over
            devices.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    if not can_have_twin(backbone):
        raise ValueError(
            "this backbone is spread over devices by device_map, and generation cannot share such "
            "modules: load it with device=... on one device"
        )
    if type(backbone.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{type(backbone).__name__} has no language model in transformers")
    config = _causal_config(backbone.config)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    inner = model.base_model_prefix
    heads = [name for name, _ in model.named_parameters() if not name.startswith(f"{inner}.")]
    weights = _head_weights(checkpoint, heads, backbone)
    setattr(model, inner, shared_copy(backbone, config))
    embedding: Any = backbone.get_input_embeddings()
    if config.tie_word_embeddings:
        model.get_output_embeddings().weight = embedding.weight
    for name, weight in weights.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if getattr(module, leaf).shape != weight.shape:
            raise ValueError(
                f"{name} in {checkpoint} has the shape {tuple(weight.shape)} and the model needs "
                f"{tuple(getattr(module, leaf).shape)}: it is the head of another checkpoint"
            )
        setattr(module, leaf, torch.nn.Parameter(weight, requires_grad=False))
    model.eval()
    return model  # type: ignore[no-any-return]


def _causal_config(config: PretrainedConfig) -> PretrainedConfig:
    """A copy of a config with causal attention, a cache and an attention of transformers."""
    twin: Any = copy.deepcopy(config)
    twin.is_causal = twin.use_cache = True
    twin._attn_implementation = str(twin._attn_implementation).removeprefix(PREFIX)
    return twin  # type: ignore[no-any-return]


def _head_weights(
    checkpoint: Path, names: list[str], backbone: PreTrainedModel
) -> dict[str, torch.Tensor]:
    """The head's own weights by name, in the backbone's dtype and on its device.

    A tied head is the embedding matrix. Since any embedding matrix could be one, it is taken only
    if the checkpoint's config names a language model.
    """
    config: Any = backbone.config
    if config.tie_word_embeddings:
        architectures = read_json(checkpoint / "config.json").get("architectures") or []
        if not any("LM" in name for name in architectures):
            raise ValueError(_without_head(checkpoint, f"it is a {', '.join(architectures)}"))
        return {}
    files = weight_files(checkpoint)
    if not files:
        raise FileNotFoundError(
            f"{checkpoint} holds no model.safetensors to read a language model head from: pass "
            "checkpoint=..., the model the encoder was made of"
        )
    missing = [name for name in names if name not in files]
    if missing:
        raise ValueError(_without_head(checkpoint, f"no weight {missing[0]!r}"))
    found = {}
    for name in names:
        with safe_open(files[name], framework="pt") as opened:
            found[name] = opened.get_tensor(name).to(backbone.device, backbone.dtype)
    return found


def _without_head(checkpoint: Path, reason: str) -> str:
    """The message of the error for a checkpoint without a head."""
    return (
        f"{checkpoint} has no language model head ({reason}), so it embeds and cannot generate. "
        "Use a checkpoint that does both, as GritLM/GritLM-7B, or pass checkpoint=... if the head "
        "lies elsewhere: a saved encoder is without it"
    )
