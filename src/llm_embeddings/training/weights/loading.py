"""A model on disk -> one that can be trained."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from ...arithmetic.dtype import default_device
from ...checkpoint import sidecar
from ...checkpoint.checks import prepare
from ...checkpoint.detect import named
from ...checkpoint.ends import without_foreign_bos
from ...checkpoint.files import Source, find, is_adapter, read_json
from ...checkpoint.loading import load
from ...checkpoint.options import LoadOptions
from ...model import Model
from ...recipe import Recipe
from ..options import StageOptions
from .lora import add_adapter


def load_backbone_for_training(options: StageOptions, default: Recipe | None = None) -> Model:
    """Load `options.model` with the adapters it names merged, and put new adapters on it.

    The recipe is `options.recipe`, else the one the model was saved or is listed with, else
    `default`.

    Raises:
        FileNotFoundError: a directory, repository, base or weight file is missing.
        ValueError: no recipe, or a model that does not attend as the recipe asks.
    """
    torch.manual_seed(options.seed)  # new adapters and embeddings are drawn at random
    weights = "float32" if options.lora is None else options.dtype
    recipe = recipe_for(options, default)
    where = training_device()
    model, *_ = load(options.model, LoadOptions(recipe=recipe, device=where, dtype=weights))
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


def training_device() -> str:
    """The device of this process; accelerate numbers a machine's processes in LOCAL_RANK."""
    device = default_device()
    return f"{device}:{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else device
