"""What can be known of a model without reading its weights or asking the network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.options import LoadOptions
from ..recipe import Recipe
from .console import suggest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from ..checkpoint.files import Checkpoint
    from ..checkpoint.sidecar import Form

BYTES = {"float32": 4, "bfloat16 or float16": 2}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model's recipe, and those of its files that are on this disk.

    Attributes:
        recipe: How the model embeds.
        origin: Where the recipe comes from, in words.
        checkpoint: Its directories; None = they are not on this disk.
        config: The content of its config.json; None = it is not on this disk.
        tokenizer: Its tokenizer; None = its files are not on this disk.
        numbers: How many parameters a GGUF file has; None = it is none.
        form: That of its weights; None = plain numbers, or they are not on this disk.
    """

    recipe: Recipe
    origin: str
    checkpoint: Checkpoint | None = None
    config: dict[str, Any] | None = None
    tokenizer: PreTrainedTokenizerFast | None = None
    numbers: int | None = None
    form: Form | None = None


def look(model: str | None, options: LoadOptions) -> Subject:
    """Find a model's recipe and its files, as `Encoder.from_pretrained` would.

    Raises:
        FileNotFoundError: the model is neither on this disk nor listed; near names are given.
        ValueError: an unknown or refused name, or files that do not say how it embeds.
    """
    from ..checkpoint import sidecar
    from ..checkpoint.detect import is_observed, is_plain, named, settle
    from ..checkpoint.files import Source, find, read_json, resolve
    from ..checkpoint.gguf import gguf_of, read_gguf
    from ..checkpoint.int8_files import form_of
    from ..checkpoint.loading import recipe_and_tokenizer
    from ..encoder import BUNDLED_MODEL

    name, wanted = str(BUNDLED_MODEL if model is None else model), options.recipe
    if (file := gguf_of(name)) is not None:
        held = read_gguf(file, options)
        origin = f"{sidecar.NAME} beside the file" if wanted is None else _listed(held.recipe)
        config = held.config.to_dict()
        return Subject(held.recipe, origin, None, config, held.tokenizer, held.numbers)
    listed = named(name, wanted)
    local = Source(options.revision, options.token, options.cache_dir, local_files_only=True)
    try:
        directory = find(name, local)
        saved = sidecar.read(directory) if wanted is None else None
        recipe = saved.recipe if saved else listed
        checkpoint = resolve(
            directory, options.adapters or (), local, base=recipe.base if recipe else None
        )
    except FileNotFoundError as error:
        if listed is not None:
            return Subject(listed, _listed(listed))
        raise _not_here(name, error) from error
    recipe = settle(name, directory, checkpoint, recipe, trusted=isinstance(wanted, Recipe))
    if saved is not None:
        origin = f"{sidecar.NAME} beside the weights"
    else:
        origin = _listed(recipe) if listed else f"recognised by {recipe.source}"
    tokenizer = None
    if (checkpoint.tokenizer / "tokenizer.json").is_file():
        observed = is_observed(recipe, wanted, saved)
        recipe, tokenizer = recipe_and_tokenizer(
            directory, checkpoint, recipe, observed=observed, plain=is_plain(recipe, wanted, saved)
        )
    config = read_json(checkpoint.root / "config.json")
    form = form_of(checkpoint, options)
    return Subject(recipe, origin, checkpoint, config, tokenizer, form=form)


def count_parameters(subject: Subject) -> tuple[int, str] | None:
    """How many parameters a backbone has, and what says so; None = no file does.

    Counted in the headers of the weights' files; without these, by building the architecture of
    config.json on the meta device.
    """
    if subject.numbers is not None:
        return subject.numbers, "the GGUF file"
    if subject.checkpoint is None:
        return None
    root = subject.checkpoint.root
    files = sorted(root.glob("model*.safetensors"))
    if files:
        return sum(map(_parameters_of, files)), "headers of the weights"
    if not subject.config:
        return None
    import torch
    from transformers import AutoModel

    from ..checkpoint.stock import read_config

    with torch.device("meta"):
        backbone = AutoModel.from_config(read_config(root, trust_remote_code=False))
    return sum(weight.numel() for weight in backbone.parameters()), "config.json"


def in_memory(subject: Subject, options: LoadOptions, count: int) -> str | None:
    """What `count` parameters take on this machine, in words; None = they are not on this disk."""
    import torch
    from rich.filesize import decimal

    from ..arithmetic.dtype import default_device
    from ..checkpoint.converting import dtypes
    from ..checkpoint.files import INT8_NAME, shards_of
    from ..checkpoint.stock import read_config

    if subject.checkpoint is None or not shards_of(subject.checkpoint.root):
        return None
    root, device = subject.checkpoint.root, torch.device(options.device or default_device())
    if subject.form is not None:
        return f"{decimal((root / INT8_NAME).stat().st_size)}, mapped from {INT8_NAME}"
    config = read_config(root, trust_remote_code=options.trust_remote_code)
    keep = not subject.checkpoint.adapters
    kept, computed = dtypes(root, config, options, device, keep=keep)
    held = kept or computed
    size, name = decimal(count * held.itemsize), str(held).removeprefix("torch.")
    if options.quantization is not None:
        return f"{size} in {name} before it is quantised"
    if held == computed:
        return f"{size} in {name} on {device}"
    wanted = str(computed).removeprefix("torch.")
    return f"{size} in {name}, mapped from the files and converted to {wanted} when multiplied"


def _parameters_of(path: Path) -> int:
    """How many numbers a safetensors file has, but for the head's, which encoders do not load."""
    from ..checkpoint.files import check_safetensors

    check_safetensors(path)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        scales = header.get(f"{name.removesuffix('.scale')}.weight", {}).get("dtype") == "I8"
        if name != "__metadata__" and not name.startswith("lm_head.") and not scales:
            count = 1
            for size in tensor["shape"]:
                count *= size
            total += count
    return total


def _listed(recipe: Recipe) -> str:
    """The origin of a recipe that is in the table of recipes."""
    return f"the table of recipes, which follows: {recipe.source}"


def _not_here(name: str, error: FileNotFoundError) -> FileNotFoundError:
    """The error for a model that is neither on this disk nor listed."""
    if name.startswith((".", "/", "~")):
        return error
    return FileNotFoundError(
        f"{name!r} is neither on this disk nor a known recipe, and `info` downloads nothing. "
        f"{suggest(name)}"
    )
