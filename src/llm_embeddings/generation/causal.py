"""The causal twin of a backbone: a second, shallow tree of modules around the same weights.

An encoder's backbone has one attention direction, which stands in its config for good. Text is
generated in the causal one, so generation runs modules of its own, with a config of their own, that
hold the very parameters of the encoder's. Neither tree ever writes to the other.
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
        backbone: An encoder's.
        checkpoint: Directory whose files hold the head.

    Returns:
        A transformers `...ForCausalLM` on the backbone's device, which attends causally. Memory is
        only taken for a head that is not the embedding matrix.

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
    twin: Any = copy.deepcopy(config)
    twin.is_causal = twin.use_cache = True
    twin._attn_implementation = str(twin._attn_implementation).removeprefix(PREFIX)
    return twin  # type: ignore[no-any-return]


def _head_weights(
    checkpoint: Path, names: list[str], backbone: PreTrainedModel
) -> dict[str, torch.Tensor]:
    """The head's own weights by name, in the backbone's dtype and on its device.

    A tied head is the embedding matrix; it counts as there only where the checkpoint calls itself
    a language model, since every embedding matrix could be one.
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
    return (
        f"{checkpoint} has no language model head ({reason}), so it embeds and cannot generate. "
        "Use a checkpoint that does both, as GritLM/GritLM-7B, or pass checkpoint=... if the head "
        "lies elsewhere: a saved encoder is without it"
    )
