"""LoRA adapters: put on a backbone to train them, merged into its weights, or saved beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..options import LoraOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ADAPTER = "default"  # the adapter's name inside the backbone
# Where experts lie in one matrix, PEFT takes these names for theirs, whatever else bears them.
_EXPERTS = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})
_LEVELS = 2**16  # of 16 random bits
_PREFIX = "base_model.model."  # before every name in a file that PEFT writes


class Dropout(torch.nn.Dropout):
    """Dropout that on a CPU draws 16 random bits for an element, not 64.

    Where MKL does not draw them, as on processors of AMD, torch draws one after the other, which
    took 45 % of the time of an update. The probability is rounded to a multiple of 2**-16.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As in `torch.nn.Dropout`; the generator is torch's default one."""
        if not self.training or input.device.type != "cpu":
            return super().forward(input)
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        levels = words.view(torch.int16)[: input.numel()].view(input.shape)
        scale = _LEVELS / (_LEVELS - dropped)
        return torch.where(levels >= dropped - _LEVELS // 2, input * scale, 0)


def add_adapter(backbone: PreTrainedModel, lora: LoraOptions, base: str) -> None:
    """Put a new LoRA adapter on a backbone; only it is trained, in float32.

    Raises:
        ValueError: the backbone has no linear layer, or a target is none of them.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer
    from transformers.pytorch_utils import Conv1D

    layers = _linear_layers(backbone)
    if any(weight.ndim == 3 for weight in backbone.parameters()):
        layers = {n: each for n, each in layers.items() if n.rpartition(".")[2] not in _EXPERTS}
    names = {name.rpartition(".")[2] for name in layers}
    if missing := [name for name in lora.targets if name not in {*names, *layers}]:
        raise ValueError(
            f"lora targets={missing} names no linear layer of {type(backbone).__name__} that can "
            f"have an adapter: {', '.join(sorted(names))}"
        )
    if not layers:
        raise ValueError(
            f"{type(backbone).__name__} has no linear layer that an adapter could be put on: train "
            "all weights, lora=None"
        )
    transposed = [isinstance(layer, Conv1D) for layer in layers.values()]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float works as well
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or sorted(names),
        fan_in_fan_out=all(transposed),
        bias="none",
        base_model_name_or_path=_absolute(base),
    )
    inject_adapter_in_model(config, backbone, _ADAPTER)
    for module in backbone.modules():
        if isinstance(module, LoraLayer) and lora.dropout:
            module.lora_dropout[_ADAPTER] = Dropout(lora.dropout)
    for name, weight in backbone.named_parameters():
        weight.requires_grad_("lora_" in name)
        if "lora_" in name:
            weight.data = weight.data.float()


def coverage(backbone: torch.nn.Module) -> str:
    """On how many linear layers an adapter lies, and which other matrices have none, in words."""
    from peft.tuners.lora import LoraLayer

    modules = dict(backbone.named_modules())
    adapted = {name for name, module in modules.items() if isinstance(module, LoraLayer)}
    inside = tuple(f"{name}." for name in adapted)
    linear = [name for name in _linear_layers(backbone) if not name.startswith(inside)]
    left = {f"{name}.weight" for name in linear}
    for name, weight in backbone.named_parameters():
        module = modules[name.rpartition(".")[0]]
        other = weight.ndim > 1 and not isinstance(module, torch.nn.Embedding)
        if other and not name.startswith(inside):
            left.add(name)
    kinds = sorted({re.sub(r"\d+", "*", name).removesuffix(".weight") for name in left})
    said = f"adapters on {len(adapted)} of {len(adapted) + len(linear)} linear layers"
    return f"{said}; left out: {', '.join(kinds)}" if kinds else said


def _linear_layers(backbone: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The linear layers of a backbone by name, GPT-2's `Conv1D` among them."""
    from transformers.pytorch_utils import Conv1D

    return {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }


def merged_state(backbone: torch.nn.Module, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """The weights with adapters merged in float32, under the names of a model without any.

    Args:
        backbone: With or without adapters; not changed.
        dtype: What floating-point weights become; None = each keeps its own dtype.

    Returns:
        Tensor by name, as a backbone without adapters has them.
    """
    from peft.tuners.lora import LoraLayer

    layers: list[tuple[str, Any]] = [
        (name, layer) for name, layer in backbone.named_modules() if isinstance(layer, LoraLayer)
    ]
    deltas = {
        f"{name}.base_layer.weight": layer.get_delta_weight(_ADAPTER).float()
        for name, layer in layers
    }
    state = {}
    for name, weight in backbone.state_dict().items():
        if "lora_" in name:
            continue
        total = weight if name not in deltas else weight.float() + deltas.pop(name)
        kept = dtype if dtype is not None else weight.dtype
        state[name.replace(".base_layer.", ".")] = total.to(
            kept if total.is_floating_point() else total.dtype
        )
    return state


def save_adapter(backbone: PreTrainedModel, directory: Path) -> None:
    """Write the adapter that `add_adapter` put on, as PEFT does, ready for use."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    configs: Any = backbone.peft_config
    config = configs[_ADAPTER]
    with _inference(config):
        config.save_pretrained(directory)
    state = get_peft_model_state_dict(backbone, adapter_name=_ADAPTER)
    tensors = {f"{_PREFIX}{name}": tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt"})


@contextmanager
def _inference(config: Any) -> Iterator[None]:
    """Mark an adapter's config as "for inference" while it is saved, "for training" after."""
    config.inference_mode = True
    try:
        yield
    finally:
        config.inference_mode = False


def _absolute(model: str) -> str:
    """The name by which an adapter finds its base model: a directory's whole path, or a hub id."""
    local = Path(model).expanduser()
    return str(local.resolve()) if local.is_dir() else model
