"""The student: a small Llama whose untouched residual stream is a weighted bag of words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedTokenizerFast,
)

from llm_embeddings import Encoder, Recipe, Template

Floats = npt.NDArray[np.float32]
HIDDEN, LAYERS, HEADS, KEY_HEADS, MLP = 384, 3, 6, 2, 512
SMOOTH, SMOOTH_LANGUAGE = 2e-4, 5e-4  # a of start_as_bag_of_words
RECIPE = Recipe(
    name="llm-embeddings-small",
    causal=False,
    pooling="mean",
    pool_span="all",
    query=Template("query: "),
    bos=True,
    eos=False,
    normalize=True,
    max_length=512,
    source="scripts/small/train.py",
)
DEEP_RECIPE = replace(RECIPE, eos=True, source="scripts/small/deepen.py")


def make_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Heads of 64, one key/value head for three query heads."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=False,
        dtype="float32",
    )


def make_language_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The student and a head, with random weights in float32."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(make_config(tokenizer))
    model.float()
    return model


def load_tokenizer(work: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of the run in `work`."""
    found: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
    return found


def principal_axes(vectors: Floats) -> Floats:
    """[384, 383]: a rotation of the teacher's space that drops its least used direction."""
    _, _, right = np.linalg.svd(vectors, full_matrices=False)
    return np.ascontiguousarray(right[: HIDDEN - 1].T)


@torch.no_grad()
def start_as_bag_of_words(
    model: LlamaModel, directions: Floats, share: npt.NDArray[np.float64], smooth: float
) -> None:
    """Write weight * direction of every token into the embeddings; weight = a / (a + p(token)).

    The final RMSNorm gives every position the same length, which would undo weights; so each
    embedding is (weight * direction, rest) with unit length, and the norm's gain for the one
    "rest" coordinate is zero. Layers start close to the identity.

    Args:
        model: its weights are replaced.
        directions: rows of length at most one, [entries, 383].
        share: how much of the corpus each entry is, [entries].
        smooth: a; entries rarer than this keep most of their weight.
    """
    weight = torch.tensor(smooth / (smooth + share), dtype=torch.float32).unsqueeze(1)
    scaled = weight * torch.from_numpy(directions)
    rest = (1.0 - scaled.square().sum(1, keepdim=True)).clamp(min=0.0).sqrt()
    model.embed_tokens.weight.copy_(torch.cat([scaled, rest], dim=1) * HIDDEN**0.5)
    model.norm.weight[-1] = 0.0
    for layer in model.layers:
        for name, parameter in layer.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.normal_(0.0, 0.1 * HIDDEN**-0.5)
            elif parameter.dim() == 2:
                parameter.normal_(0.0, HIDDEN**-0.5)


def centred(found: Mapping[str, npt.NDArray[np.generic]]) -> Floats:
    """The teacher's vectors for the entries without what all have in common, at most unit long."""
    vectors, share = np.asarray(found["vectors"]), np.asarray(found["share"])
    weight = np.sqrt(share)
    moved = vectors - (weight / weight.sum()) @ vectors
    moved /= np.maximum(1.0, np.linalg.norm(moved, axis=1, keepdims=True))
    return np.asarray(moved, np.float32)


@torch.no_grad()
def join(layers: Path, words: Path) -> LlamaModel:
    """Layers of one model, word vectors and final norm of another.

    What the layers look at is kept, what they add is forgotten (their output projections start at
    zero): the result begins as exactly the bag of words that `words` is.
    """
    model: LlamaModel = LlamaModel.from_pretrained(layers, dtype=torch.float32)
    table = load_file(words / "model.safetensors")
    model.embed_tokens.weight.copy_(table["embed_tokens.weight"])
    model.norm.weight.copy_(table["norm.weight"])
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.zero_()
    return model


def save(model: LlamaModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """As an encoder that `Encoder.from_pretrained` loads."""
    model.config.is_causal = False
    Encoder(model, tokenizer, RECIPE).save_pretrained(directory)


@torch.no_grad()
def balance(model: torch.nn.Module) -> None:
    """Scale the weights of MLPs by powers of two; what the model computes stays the same.

    float8 loses what is under 2**-6 and has nothing over 448: the gates' largest weight comes to
    128 to 256, and the weights of both other maps to equal medians.
    """
    for layer in model.get_submodule("layers").children():
        parts = (layer.get_submodule(f"mlp.{name}_proj") for name in ("gate", "up", "down"))
        gate, up, down = (dict(part.named_parameters()) for part in parts)
        norm = layer.get_submodule("post_attention_layernorm").get_parameter("weight")
        factor = 2.0 ** (7 - gate["weight"].abs().max().log2().floor())
        share = down["weight"].abs().median() / (up["weight"].abs().median() * factor)
        inner = 2.0 ** (share.log2() / 2).round()
        norm.div_(factor)
        gate["weight"].mul_(factor)
        up["weight"].mul_(factor * inner)
        down["weight"].div_(inner)
        if "bias" in up:
            up["bias"].mul_(inner)


def store(source: Path, target: Path, narrow: tuple[str, ...] = ("embed_tokens",)) -> None:
    """Copy a saved encoder with its `narrow` weights in float8 and all else in float16.

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
        name: tensor.to(torch.float8_e4m3fn if _fits(name, narrow) else torch.float16)
        for name, tensor in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)
    config = json.loads((partial / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    partial.rename(target)


def _fits(name: str, narrow: tuple[str, ...]) -> bool:
    return name.endswith("weight") and any(part in name for part in narrow)
