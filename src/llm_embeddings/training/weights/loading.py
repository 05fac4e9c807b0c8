"""A model on disk -> one that can be trained."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any

import torch

from ...arithmetic.dtype import bfloat16_pays, default_device
from ...arithmetic.quantization import refuse_quantized
from ...checkpoint import sidecar
from ...checkpoint.checks import prepare
from ...checkpoint.detect import named
from ...checkpoint.ends import without_foreign_bos
from ...checkpoint.files import Source, find, is_adapter, read_json, resolve
from ...checkpoint.head_files import have_weights, names_heads
from ...checkpoint.loading import load
from ...checkpoint.module_files import transformer_folder
from ...checkpoint.options import LoadOptions
from ...faces import require
from ...model import Model
from ...packed.heads import build
from ...recipe import Head, Recipe
from ..begun import computing
from ..options import StageOptions
from .lora import add_adapter

_NOT_TAKEN_IN = (
    "is an adapter, which quantised weights cannot take in: load it on whole weights, save that by "
    "Encoder.save_pretrained, and start from there"
)


def load_backbone_for_training(
    options: StageOptions, default: Recipe | None = None, *, trains_heads: bool = True
) -> Model:
    """Load `options.model` with the adapters it names merged, and put new adapters on it.

    The recipe is `options.recipe`, else the one the model was saved or is listed with, else
    `default`.

    Args:
        options: What is loaded, and how.
        default: The stage's own recipe.
        trains_heads: Whether the stage trains what follows the pooling; else it is frozen.

    Raises:
        FileNotFoundError: a directory, repository, base or weight file is missing.
        ValueError: no recipe, a model that does not attend as the recipe asks, quantised weights
            that cannot do what is asked, or new heads that the stage would not train.
    """
    torch.manual_seed(options.seed)  # new adapters and embeddings are drawn at random
    frozen = computing(options).get("weights", options.dtype)
    weights = "float32" if options.lora is None else frozen
    recipe, heads = recipe_for(options, default), new_heads(options)
    if heads and not trains_heads:
        raise ValueError(
            f"{options.model!r} has no heads, and this run would not train the new ones of its "
            "recipe: add them by one that learns vectors, contrastive say"
        )
    if heads and isinstance(recipe, Recipe):
        recipe = recipe.replace(heads=())
    where = training_device()
    wanted = LoadOptions(recipe=recipe, device=where, dtype=weights)
    if options.quantization is not None:
        wanted = replace(wanted, quantization=_rounded(options), device_map={"": where})
    model, *_ = load(options.model, wanted)
    refuse_quantized(model.backbone, "trained: name the original checkpoint")
    if heads:
        model = _with_heads(model, heads)
    if model.head is not None:
        model.head.requires_grad_(trains_heads)
    _check_quantized(model.backbone, options)
    _keep_trainable(model.backbone)
    if recipe is default and recipe is not None:
        fitted = without_foreign_bos(model.recipe, model.tokenizer)
        model = replace(model, recipe=fitted)
    prepare(model)
    backbone = model.backbone
    if options.lora is not None:
        add_adapter(backbone, options.lora, options.model)
    if options.gradient_checkpointing:
        older = backbone.gradient_checkpointing_enable  # the older name, deprecated by now
        enable = getattr(backbone, "activation_checkpointing_enable", older)
        enable({"use_reentrant": False})
    return model


def recipe_for(options: StageOptions, default: Recipe | None) -> Recipe | str | None:
    """The recipe to load `options.model` with; None = the loader reads it from the model's files.

    A plain language model, whose files name no recipe, gets the stage's `default`.
    """
    if options.recipe is not None or default is None:
        return options.recipe
    directory = find(options.model, Source())
    own = (
        named(options.model, None) is not None
        or (directory / sidecar.NAME).is_file()
        or (directory / "modules.json").is_file()
        or is_adapter(directory)
        or "auto_map" in read_json(directory / "config.json")
    )
    return None if own else default


def new_heads(options: StageOptions) -> tuple[Head, ...]:
    """The heads of `options.recipe`, if it is to put the first ones on a model; they are drawn.

    Only a `Recipe` does so, which is a user's own. Where files of the model hold heads or speak of
    them, these are read, and it is an error that they are missing or do not fit.
    """
    recipe = options.recipe
    if not isinstance(recipe, Recipe) or not have_weights(recipe.heads):
        return ()
    directory = find(options.model, Source())
    checkpoint = resolve(transformer_folder(directory), (), Source(), base=recipe.base)
    places = {directory, checkpoint.root, *checkpoint.adapters}
    return () if any(map(names_heads, places)) else recipe.heads


def _with_heads(model: Model, heads: tuple[Head, ...]) -> Model:
    """A model without heads -> one with some, their weights as torch draws those of its layers."""
    head = build(heads, model.dimension)
    assert head is not None
    placed = head.eval().to(model.backbone.device)
    return replace(model, recipe=model.recipe.replace(heads=heads), head=placed)


def _rounded(options: StageOptions) -> Any:
    """How transformers is to load weights in 8 or 4 bits.

    Raises:
        ImportError: bitsandbytes is missing.
        ValueError: the model is an adapter, or holds such weights already.
    """
    need = f"quantization={options.quantization!r}"
    # It says of every product of matrices that it rounds to float16.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    require("bitsandbytes", f"{need} needs bitsandbytes", extra="qlora")
    from transformers import BitsAndBytesConfig

    folder = transformer_folder(find(options.model, Source()))
    if is_adapter(folder):
        raise ValueError(f"{need}: {options.model!r} {_NOT_TAKEN_IN}")
    if read_json(folder / "config.json").get("quantization_config"):
        raise ValueError(f"{options.model!r} holds quantised weights already: leave out {need}")
    if options.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    dtype = compute_dtype(options)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def _check_quantized(backbone: torch.nn.Module, options: StageOptions) -> None:
    """Check what is asked of a model whose files hold quantised weights.

    Raises:
        ValueError: such weights cannot do it.
    """
    stored = getattr(backbone, "hf_quantizer", None) is not None
    if not stored or options.quantization is not None:
        return
    if is_adapter(transformer_folder(find(options.model, Source()))):
        raise ValueError(f"{options.model!r} {_NOT_TAKEN_IN}")
    if options.lora is None or options.save == "merged":
        raise ValueError(
            f"{options.model!r} holds quantised weights, which are not trained themselves nor "
            "merged with an adapter: pass lora and save='adapter', or start from whole weights"
        )


def _keep_trainable(backbone: torch.nn.Module) -> None:
    """See that 4-bit weights have gradients on a CPU.

    Where that has bfloat16, the first pass without gradients would put them into another layout
    for good, in which passes have no gradients.
    """
    for layer in backbone.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            setattr(layer, "support_avx512bf16_for_cpu", False)  # noqa: B010


def compute_dtype(options: StageOptions) -> torch.dtype:
    """The dtype of matrix products: that of a run that goes on, else `chosen_dtype`."""
    begun = computing(options).get("products")
    return chosen_dtype(options) if begun is None else getattr(torch, begun)


def chosen_dtype(options: StageOptions) -> torch.dtype:
    """The dtype of a new run's products: the one asked for; by "auto", bfloat16 where it pays."""
    if options.dtype != "auto":
        return torch.bfloat16 if options.dtype == "bfloat16" else torch.float32
    device = default_device()
    fast = bfloat16_pays() if device == "cpu" else device == "cuda"
    return torch.bfloat16 if fast else torch.float32


def training_device() -> str:
    """The device of this process; accelerate numbers a machine's processes in LOCAL_RANK."""
    device = default_device()
    return f"{device}:{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else device
