"""LoRA adapters with random weights, in the forms in which people keep them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel

from .random_architectures import Architecture

# "inside": in a folder of sentence-transformers; "merged": into the weights, which are saved again.
FORMS = ("inside", "merged")
KINDS = ("attention", "feed forward", "all", "embeddings", "patterns", "rank-stabilised")
REFUSED = ("dora", "biases", "other modules")


@dataclass(frozen=True)
class AdapterPlan:
    """What an adapter changes, and where it is kept."""

    form: str
    kind: str

    def __str__(self) -> str:
        return f"adapter {self.kind} {self.form}"


def plan_adapter(draw: random.Random) -> AdapterPlan | None:
    """Draw one for every sixth checkpoint or so."""
    if draw.random() > 0.18:
        return None
    kind = draw.choice(KINDS) if draw.random() < 0.93 else draw.choice(REFUSED)
    return AdapterPlan(draw.choice(FORMS), kind)


def lora_config(plan: AdapterPlan, architecture: Architecture, backbone: PreTrainedModel) -> Any:
    """The configuration of an adapter for a backbone without its head."""
    from peft import LoraConfig

    attention, forward = list(architecture.attention), list(architecture.feed_forward)
    table = next(
        name.rpartition(".")[2]
        for name, module in backbone.named_modules()
        if module is backbone.get_input_embeddings()
    )
    values: dict[str, Any] = {
        "attention": {"target_modules": attention},
        "feed forward": {"target_modules": forward},
        "all": {"target_modules": "all-linear"},
        "embeddings": {"target_modules": [*attention, table]},
        "patterns": {
            "target_modules": [*attention, *forward],
            "rank_pattern": {attention[0]: 2},
            "alpha_pattern": {forward[0]: 32},
        },
        "rank-stabilised": {"target_modules": attention, "use_rslora": True},
        "dora": {"target_modules": attention, "use_dora": True},
        "biases": {"target_modules": attention, "bias": "all"},
        "other modules": {"target_modules": attention, "modules_to_save": forward[:1]},
    }[plan.kind]
    return LoraConfig(r=4, lora_alpha=8, task_type="FEATURE_EXTRACTION", **values)


def shake(model: torch.nn.Module, seed: int) -> None:
    """Give all parts of an adapter random weights; B begins as zeros otherwise."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.normal_(std=0.2)


def merge(plan: AdapterPlan, architecture: Architecture, directory: Path, seed: int) -> None:
    """Put an adapter into the weights of a directory."""
    from peft import get_peft_model

    backbone = AutoModel.from_pretrained(directory, dtype=torch.float32)
    dtype = backbone.config.dtype
    model: Any = get_peft_model(backbone, lora_config(plan, architecture, backbone))
    shake(model, seed)
    merged = model.merge_and_unload()
    for path in directory.glob("model*"):
        path.unlink()
    merged.to(dtype).save_pretrained(directory)


def save_on_base(
    plan: AdapterPlan, architecture: Architecture, base: Path, directory: Path, seed: int
) -> None:
    """Write an adapter that names a local directory as its base, as peft does."""
    from peft import get_peft_model

    backbone = AutoModel.from_pretrained(base, dtype=torch.float32)
    model: Any = get_peft_model(backbone, lora_config(plan, architecture, backbone))
    shake(model, seed)
    model.save_pretrained(directory)
