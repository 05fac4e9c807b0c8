"""LoRA adapters onto a backbone: merged in order in float32 and rounded once, or left unmerged."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .bounds import check_lora
from .files import check_safetensors, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel


WEIGHTS = "adapter_model.safetensors"
# Of an adapter_config.json: where it comes from, who wrote it, what it was trained for.
_IDLE = frozenset(
    "auto_mapping base_model_name_or_path inference_mode peft_version revision task_type".split()
)


def settings_of(directory: Path) -> dict[str, Any]:
    """What an adapter's config says of the update that it makes."""
    config = read_json(directory / "adapter_config.json")
    return {key: value for key, value in config.items() if key not in _IDLE}


def apply_adapters(
    backbone: PreTrainedModel, directories: Sequence[Path], *, merge: bool
) -> PreTrainedModel:
    """Apply LoRA adapters in order.

    Low-rank updates add up: W + s1*B1@A1 + s2*B2@A2. Merged, the sum is taken in float32 and
    rounded to the weight's dtype once. Quantised weights cannot take it, so there the updates stay
    beside them (`merge=False`), which is the same function.

    Args:
        backbone: Decoder without a head; changed in place.
        directories: Each with adapter_config.json and adapter_model.safetensors.
        merge: Whether to merge.

    Raises:
        FileNotFoundError: a directory has no safetensors weights.
        ValueError: an adapter that is not plain LoRA, or does not fit the backbone.
    """
    from peft import PeftModel, set_peft_model_state_dict

    model: Any = None
    names = []
    for index, directory in enumerate(directories):
        config = _config(directory)
        weights = _weights(directory, backbone)
        check_lora(config, weights, directory)
        config.inference_mode = True
        name = f"adapter{index}"
        try:
            if model is None:
                with warnings.catch_warnings():
                    # peft asks transformers for a property under its old name.
                    warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated")
                    model = PeftModel(backbone, config, adapter_name=name)
            else:
                model.add_adapter(name, config)
            result: Any = set_peft_model_state_dict(model, weights, name)
        except Exception as error:  # of any kind: peft acts on what the files say
            raise ValueError(
                f"the adapter {directory} does not fit {type(backbone).__name__}: {error}"
            ) from error
        lost = [key for key in result.missing_keys if f".{name}." in key] + result.unexpected_keys
        if lost:
            raise ValueError(
                f"the adapter {directory} does not fit {type(backbone).__name__}: "
                f"{len(lost)} weights have no partner ({', '.join(lost[:3])}, ...)"
            )
        names.append(name)
    if model is None:
        return backbone
    if not merge:
        model.base_model.set_adapter(names, inference_mode=True)
        return model.base_model.model  # type: ignore[no-any-return]
    _merge(model, names)
    merged: PreTrainedModel = model.unload()
    merged.requires_grad_(True)
    return merged


def without_adapters(backbone: PreTrainedModel) -> PreTrainedModel:
    """The backbone itself, or a copy of it in which trained PEFT layers are merged.

    Quantised weights cannot take them in and are returned as they are.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if getattr(backbone, "hf_quantizer", None) is not None:
        return backbone
    if not any(isinstance(layer, BaseTunerLayer) for layer in backbone.modules()):
        return backbone
    merged = copy.deepcopy(backbone)
    layers: list[tuple[str, Any]] = list(merged.named_modules())
    for name, layer in layers:
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(merged.get_submodule(parent), child, layer.get_base_layer())
    merged._hf_peft_config_loaded = False
    return merged


def _merge(model: Any, names: Sequence[str]) -> None:
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    owners = Counter(
        id(weight) for module in model.modules() for weight in module._parameters.values()
    )
    for layer in layers:
        weight = layer.get_base_layer().weight
        if owners[id(weight)] > 1:
            raise ValueError(
                "an adapter changes a weight that stands in two places of the model (tied "
                "embeddings) in one of them: merge it with peft's merge_and_unload() into a model "
                "whose weights are not tied, and load that"
            )
        total = weight.data.to(torch.float32, copy=True)
        for name in names:
            if name in layer.lora_A or name in layer.lora_embedding_A:
                total += layer.get_delta_weight(name).float()
        # In place: a page of a mapped file becomes one of the weight, not one beside it.
        weight.data.copy_(total)


def _config(directory: Path) -> Any:
    """The settings of an adapter, which is plain LoRA.

    Raises:
        ValueError: it is not, or the file is not what peft writes.
    """
    from peft import PeftConfig

    read_json(directory / "adapter_config.json")
    try:
        config = PeftConfig.from_pretrained(str(directory))
    except Exception as error:  # of any kind: what the file holds is passed to a class
        raise ValueError(
            f"{directory / 'adapter_config.json'} is not what peft writes "
            f"({type(error).__name__}: {error}): fetch it again"
        ) from error
    _check_plain_lora(config, directory)
    return config


def _check_plain_lora(config: object, directory: Path) -> None:
    kind = getattr(config, "peft_type", None)
    unknown = (
        "use_dora",
        "modules_to_save",
        "lora_bias",
        "trainable_token_indices",
        "target_parameters",
    )
    extras = [field for field in unknown if getattr(config, field, None)]
    if getattr(config, "bias", "none") != "none":
        extras.append("bias")
    if str(getattr(kind, "value", kind)) != "LORA" or extras:
        what = f"{kind} with {', '.join(extras)}" if extras else str(kind)
        raise ValueError(
            f"the adapter {directory} is {what}; only plain LoRA is applied here. Merge it with "
            "peft's merge_and_unload() and load the merged model"
        )


def _weights(directory: Path, backbone: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The adapter's tensors, named from the bare decoder.

    Adapters trained on a model with a head carry one more "model." than those trained on the bare
    decoder, which is what is loaded here.
    """
    from safetensors.torch import load_file

    path = directory / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} has no adapter_model.safetensors. Weights in adapter_model.bin can run "
            "code when read: load them with peft and save_pretrained(), which writes safetensors"
        )
    check_safetensors(path)
    tensors = load_file(path)
    prefix = "base_model.model."
    head = f"{prefix}{backbone.base_model_prefix}."
    if not hasattr(backbone, backbone.base_model_prefix) and all(
        k.startswith(head) for k in tensors
    ):
        return {prefix + key.removeprefix(head): tensor for key, tensor in tensors.items()}
    return tensors
