"""Heads on disk: as sentence-transformers' module folders, and as one file beside a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..model import Model, state_length
from ..packed.heads import build
from ..recipe import Head, Recipe
from . import sidecar
from .bounds import inside
from .files import check_safetensors, read_json, read_json_list

NAME = "heads.safetensors"
# Modules that may follow a pooling; the last is pplx-embed-v1's own.
FOLLOWING = ("Dense", "LayerNorm", "Dropout", "Normalize", "FlexibleQuantizer")
_WEIGHTLESS = ("Normalize", "FlexibleQuantizer")
_WEIGHTED = ("dense", "layer_norm")  # kinds of heads
_VECTOR = ("sentence_embedding",)
ANY = None
_KEYS: dict[str, dict[str, Any]] = {
    "Dense": {
        "in_features": ANY,
        "out_features": ANY,
        "bias": ANY,
        "activation_function": ANY,
        "use_residual": ANY,
        "module_input_name": _VECTOR,
        "module_output_name": (*_VECTOR, None),
    },
    "LayerNorm": {"dimension": ANY},
    "Normalize": {"module_input_name": _VECTOR, "module_output_name": (*_VECTOR, None)},
    "Dropout": {"dropout": ANY},
}


def check_keys(
    path: Path, values: Mapping[str, Any], known: Mapping[str, tuple[Any, ...] | None]
) -> None:
    """Every key of a file of sentence-transformers is known, with a value that is.

    Args:
        path: The file, for messages.
        values: What it holds.
        known: By key the values that are honoured or change no vector; None = all are.

    Raises:
        ValueError: a key that would change vectors and is not honoured.
    """
    for key, value in values.items():
        allowed = known.get(key, ())
        if allowed is not None and value not in allowed:
            raise ValueError(
                f"{path}: {key} = {json.dumps(value):.80} is not honoured here, and vectors would "
                "be others without it: load the directory with SentenceTransformer, or pass "
                "recipe=Recipe(...) that says what you want"
            )


def read_heads(directory: Path) -> tuple[tuple[Head, ...], bool]:
    """The heads that modules.json names behind the pooling, and whether vectors are normalised.

    Raises:
        ValueError: a module, a key or an activation that is not understood.
    """
    heads: list[Head] = []
    for kind, folder in head_folders(directory):
        if kind == "FlexibleQuantizer":
            # It has no files, and takes "int8" where a call names nothing else.
            heads.append(Head(kind="tanh_int8"))
            continue
        config = read_json(folder / "config.json")
        check_keys(folder / "config.json", config, _KEYS[kind])
        if kind == "Dense":
            heads.append(_dense(folder, config))
        elif kind == "LayerNorm":
            heads.append(Head(kind="layer_norm", width=config.get("dimension")))
        elif kind == "Normalize":
            heads.append(Head(kind="normalize"))
    normalized = bool(heads) and heads[-1].kind == "normalize"
    return tuple(heads[:-1] if normalized else heads), normalized


def head_folders(directory: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each module behind the pooling."""
    path = directory / "modules.json"
    if not path.is_file():
        return []
    modules = read_json_list(path)[2:]
    return [
        (str(one["type"]).rsplit(".", 1)[-1], inside(directory, one.get("path"), path))
        for one in modules
    ]


def have_weights(heads: Sequence[Head]) -> bool:
    """Whether some heads hold weights, and are not sums alone."""
    return any(head.kind in _WEIGHTED for head in heads)


def names_heads(directory: Path) -> bool:
    """Whether a checkpoint's directory holds heads with weights, or files that say it has some."""
    saved = sidecar.read(directory)
    return (
        (directory / NAME).is_file()
        or (saved is not None and have_weights(saved.recipe.heads))
        or any(kind not in (*_WEIGHTLESS, "Dropout") for kind, _ in head_folders(directory))
    )


def refuse_heads(adapters: Iterable[Path]) -> None:
    """Check adapters that are put on a model, whose own heads stay.

    Raises:
        ValueError: one was trained with heads.
    """
    for adapter in adapters:
        if (adapter / NAME).is_file():
            raise ValueError(
                f"{adapter} holds heads that were trained with its adapter, and adapters=[...] "
                "would leave them out: load it as the model"
            )


def load_head(directory: Path, recipe: Recipe, width: int) -> nn.Module | None:
    """The layers that follow the pooling, their weights read, in float32; None = there are none.

    Args:
        directory: The checkpoint's directory.
        recipe: Says which layers.
        width: Length of a pooled vector.

    Raises:
        FileNotFoundError: the recipe has heads, and there are no weights for them.
        ValueError: lengths that do not chain, or weights that do not fit.
    """
    head = build(recipe.heads, width)
    if head is None or not head.state_dict():
        return head
    place = directory / NAME
    weights = _read(place) if place.is_file() else _from_folders(directory)
    try:
        head.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights of the heads in {directory} do not fit: {error}") from error
    return head.eval()


def save_head(head: nn.Module | None, directory: Path) -> None:
    """Write the weights of heads, if there are any, to one file."""
    weights = {} if head is None else head.state_dict()
    (directory / NAME).unlink(missing_ok=True)
    if weights:
        _write(weights, directory / NAME)


def write_head_folders(model: Model, path: Path, *, first: int) -> list[str]:
    """Write a model's heads as sentence-transformers' modules, the first as `{first}_{kind}`.

    Returns:
        The kinds of the modules; a last head that cuts is none of them, but a setting.
    """
    written = []
    weights = {} if model.head is None else model.head.state_dict()
    given = len(model.recipe.poolings) * state_length(model.backbone.config)
    for number, head in enumerate(model.recipe.heads):
        length = head.length(given)
        if head.kind == "truncate":
            continue
        kind, config = _as_module(head, given, length)
        folder = path / f"{first + number}_{kind}"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        prefix = f"{number}."
        own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        if own:
            _write(own, folder / "model.safetensors")
        written.append(kind)
        given = length
    return written


def _as_module(head: Head, given: int, length: int) -> tuple[str, dict[str, Any]]:
    """Kind and config of a head as a module of sentence-transformers."""
    if head.kind == "layer_norm":
        return "LayerNorm", {"dimension": length}
    if head.kind == "normalize":
        return "Normalize", {}
    config = {
        "in_features": given,
        "out_features": length,
        "bias": head.bias,
        "activation_function": f"torch.nn.modules.activation.{head.activation}",
    }
    if head.activation == "Identity":
        config["activation_function"] = "torch.nn.modules.linear.Identity"
    return "Dense", {**config, "use_residual": True} if head.residual else config


def _dense(folder: Path, config: Mapping[str, Any]) -> Head:
    # What sentence-transformers takes where the file names none.
    named = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if not named.startswith("torch.nn."):
        raise ValueError(
            f"{folder / 'config.json'}: activation_function = {named!r} is not a class of torch.nn"
        )
    return Head(
        kind="dense",
        width=config.get("out_features"),
        activation=named.rsplit(".", 1)[-1],
        bias=bool(config.get("bias", True)),
        residual=bool(config.get("use_residual", False)),
    )


def _from_folders(directory: Path) -> dict[str, torch.Tensor]:
    """Weights from the folders of sentence-transformers' modules, numbered as heads are."""
    kinds = [(kind, folder) for kind, folder in head_folders(directory) if kind != "Dropout"]
    if not any(kind not in _WEIGHTLESS for kind, _ in kinds):
        raise FileNotFoundError(
            f"the recipe has heads, and {directory} holds no weights for them: neither {NAME} nor "
            "modules of sentence-transformers"
        )
    weights: dict[str, torch.Tensor] = {}
    for number, (kind, folder) in enumerate(kinds):
        if kind not in _WEIGHTLESS:
            read = _read(folder / "model.safetensors")
            weights |= {f"{number}.{name}": weight for name, weight in read.items()}
    return weights


def _write(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    contiguous = {name: weight.cpu().contiguous() for name, weight in weights.items()}
    save_file(contiguous, path, {"format": "pt"})


def _read(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing. Weights in a .bin file can run code when read: load the model "
            "with SentenceTransformer and save it, which writes safetensors"
        )
    check_safetensors(path)
    return {name: weight.float() for name, weight in load_file(path).items()}
