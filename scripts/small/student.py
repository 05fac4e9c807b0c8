"""The student as it is saved and released."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaModel, PreTrainedTokenizerFast

from llm_embeddings import Encoder, Recipe, Template

PREFIX = "query: "
RECIPE = Recipe(
    name="llm-embeddings-small",
    causal=False,
    pooling="mean",
    pool_span="all",
    query=Template(PREFIX),
    bos=True,
    eos=True,
    normalize=True,
    max_length=512,
    source="scripts/small/train.py",
)
NARROW = ("embed_tokens", ".mlp.")  # weights that are stored in float8


def save(model: LlamaModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """As an encoder that `Encoder.from_pretrained` loads."""
    model.config.is_causal = False
    Encoder(model, tokenizer, RECIPE).save_pretrained(directory)


@torch.no_grad()
def balance(model: torch.nn.Module) -> None:
    """Scale weights by powers of two; what the model computes stays the same.

    float8 loses what is under 2**-6 and has nothing over 448: the gates' largest weight comes to
    128 to 256, and the weights of both other maps to equal medians. Before that the columns that
    read one norm's channels are brought near each other: int8 has one step for a whole row, which
    a few large columns, on channels that hold little, took from all others.
    """
    for layer in model.get_submodule("layers").children():
        parts = (layer.get_submodule(f"mlp.{name}_proj") for name in ("gate", "up", "down"))
        gate, up, down = (dict(part.named_parameters()) for part in parts)
        norm = layer.get_submodule("post_attention_layernorm").get_parameter("weight")
        _even(norm, [gate["weight"], up["weight"]])
        attention = [layer.get_submodule(f"self_attn.{name}_proj") for name in "qkv"]
        _even(
            layer.get_submodule("input_layernorm").get_parameter("weight"),
            [part.get_parameter("weight") for part in attention],
        )
        factor = 2.0 ** (7 - gate["weight"].abs().max().log2().floor())
        share = down["weight"].abs().median() / (up["weight"].abs().median() * factor)
        inner = 2.0 ** (share.log2() / 2).round()
        norm.div_(factor)
        gate["weight"].mul_(factor)
        up["weight"].mul_(factor * inner)
        down["weight"].div_(inner)
        if "bias" in up:
            up["bias"].mul_(inner)


def _even(norm: torch.Tensor, readers: list[torch.Tensor]) -> None:
    """Move half of what a channel's largest weight is above the usual into the norm before it."""
    peaks = torch.stack([weight.abs().amax(0) for weight in readers]).amax(0).log2()
    factors = 2.0 ** ((peaks.mean() - peaks) / 2).round()
    norm.div_(factors)
    for weight in readers:
        weight.mul_(factors)


def store(source: Path, target: Path) -> None:
    """Copy a saved encoder with its `NARROW` weights in float8 and all else in float16.

    Four bits of exponent and three of mantissa suit word vectors, whose errors average out over a
    text, and the many weights of an MLP. Arithmetic stays float32, as config.json says:
    transformers converts on loading.
    """
    partial = target.with_suffix(".partial")
    encoder = Encoder.from_pretrained(source, dtype="float32")
    balance(encoder.model.backbone)
    encoder.save_pretrained(partial)
    path = partial / "model.safetensors"
    weights = {
        name: tensor.to(torch.float8_e4m3fn if _is_narrow(name) else torch.float16)
        for name, tensor in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)
    config = json.loads((partial / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    partial.rename(target)


def _is_narrow(name: str) -> bool:
    return name.endswith("weight") and any(part in name for part in NARROW)
