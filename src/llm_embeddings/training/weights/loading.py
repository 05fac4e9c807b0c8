"""A model on disk -> one that can be trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...arithmetic.dtype import bfloat16_pays, default_device
from ...checkpoint import sidecar
from ...checkpoint.checks import prepare
from ...checkpoint.detect import named
from ...checkpoint.files import Source, find, is_adapter, read_json, resolve, weight_files
from ...checkpoint.loading import load
from ...checkpoint.options import LoadOptions
from ...model import Model
from ...recipe import Recipe, Role
from ...vectors import Vectors
from ..options import LoraOptions, StageOptions
from ..passes.encoding import Encoding
from ..passes.gradcache import plan
from ..run.checkpoints import check_output
from .saving import ADAPTER, save_result

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Encoding",
    "encode_texts",
    "load_backbone_for_training",
    "load_head",
    "save_result",
]


def load_backbone_for_training(options: StageOptions, default: Recipe | None = None) -> Model:
    """Load `options.model` with the adapters it names merged, and put new adapters on it.

    The recipe is `options.recipe`, else the one the model was saved or is listed with, else
    `default`.

    Raises:
        FileNotFoundError: a directory, repository, base or weight file is missing.
        ValueError: no recipe, a model that does not attend as the recipe asks, or an output folder
            that cannot be used.
    """
    check_output(options.output, options.to_dict(), resume=options.resume)
    torch.manual_seed(options.seed)  # of adapters and new embeddings
    weights = "float32" if options.lora is None else options.dtype
    recipe = recipe_for(options, default)
    model, _ = load(options.model, LoadOptions(recipe=recipe, device=_device(), dtype=weights))
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
    """What to ask the loader for; None = let it look at the model's own files.

    A language model that nobody made an embedder of gets the stage's default.
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


def compute_dtype(options: StageOptions, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: what is asked for, or bfloat16 where it pays."""
    if options.dtype != "auto":
        return torch.bfloat16 if options.dtype == "bfloat16" else torch.float32
    fast = bfloat16_pays() if device.type == "cpu" else device.type == "cuda"
    return torch.bfloat16 if fast else torch.float32


def add_adapter(backbone: PreTrainedModel, lora: LoraOptions, base: str) -> None:
    """Put a new LoRA adapter on a backbone; only it is trained, in float32.

    Raises:
        ValueError: none of the target layers is in the model.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # a float works as well
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
        base_model_name_or_path=_absolute(base),
    )
    inject_adapter_in_model(config, backbone, ADAPTER)
    for name, weight in backbone.named_parameters():
        weight.requires_grad_("lora_" in name)
        if "lora_" in name:
            weight.data = weight.data.float()


def load_head(options: StageOptions, backbone: PreTrainedModel) -> torch.nn.Linear:
    """The language-model head of `options.model`, frozen; tied heads share the embeddings' weight.

    Raises:
        ValueError: the model has no head, or one that is not a plain matrix.
    """
    config: Any = backbone.config
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise ValueError(f"the head of {options.model!r} has {name}, which is not trained here")
    root = resolve(find(options.model, Source()), (), Source()).root
    embedding: Any = backbone.get_input_embeddings()
    weight = _tensor(root, "lm_head.weight")
    if weight is None and not config.tie_word_embeddings:
        raise ValueError(
            f"{options.model!r} has no lm_head.weight: it is a backbone alone. Start from the "
            "language model it was made of"
        )
    rows, width = embedding.weight.shape
    head = torch.nn.Linear(width, rows, bias=False, device="meta")
    if weight is None or config.tie_word_embeddings:
        head.weight = embedding.weight
    else:
        placed = weight.to(embedding.weight.device, embedding.weight.dtype)
        head.weight = torch.nn.Parameter(placed, requires_grad=False)
    head.out_features = len(head.weight)
    return head


def encode_texts(
    encode: Callable[[list[list[int]], list[int]], torch.Tensor],
    trained: Model,
    texts: list[str],
    role: Role,
    *,
    max_length: int | None = None,
    budget: int,
) -> Vectors:
    """Vectors `[texts, dim]`, float32, of a model that is being trained.

    Args:
        encode: Rows of ids and their starts -> vectors.
        trained: The model.
        texts: Strings.
        role: Of all of them.
        max_length: Limit in tokens; None = the recipe's.
        budget: Tokens per pass.
    """
    rows = trained.rows(texts, role, None, max_length)
    parts, order = [], []
    with torch.no_grad():
        for chunk in plan([len(row.ids) for row in rows], budget)[0]:
            found = encode([rows[row].ids for row in chunk], [rows[row].start for row in chunk])
            parts.append(found.float().cpu())
            order.extend(chunk)
    vectors: Vectors = torch.cat(parts)[torch.tensor(order).argsort()].numpy()
    return vectors


def _tensor(root: Path, name: str) -> torch.Tensor | None:
    """One tensor of a checkpoint."""
    from safetensors import safe_open

    file = weight_files(root).get(name)
    if file is None:
        return None
    with safe_open(file, framework="pt") as tensors:
        found: torch.Tensor = tensors.get_tensor(name)
    return found


def _device() -> str:
    """The process's own device: accelerate numbers processes by LOCAL_RANK."""
    import os

    device = default_device()
    return f"{device}:{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else device


def _absolute(model: str) -> str:
    """Where an adapter finds its base: a directory by its whole path, a hub id as it is."""
    local = Path(model).expanduser()
    return str(local.resolve()) if local.is_dir() else model
