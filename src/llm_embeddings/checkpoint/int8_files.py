"""Weights in int8 on disk, as an encoder on a CPU computes with them.

One file holds integers, scales and all that stays in floats, and says which MLPs are gated. Its
name is one that no other reader looks for: without the scales the integers mean nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModel

from ..arithmetic.memory import check_values
from ..arithmetic.quantization import activations_of, prepare_int8
from . import sidecar
from .converting import stock_class
from .files import INT8_NAME, Checkpoint
from .options import LoadOptions
from .report import without_load_report

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_INSTEAD = "or load the original checkpoint, with quantization='int8' if you like"


def form_of(checkpoint: Checkpoint, options: LoadOptions) -> sidecar.Form | None:
    """The form in which a checkpoint's weights lie if that is int8; None = they are plain.

    Raises:
        FileNotFoundError: the file of the weights is missing.
        ValueError: nothing says what the file is, or an option that such weights cannot follow.
    """
    root = checkpoint.root
    form, there = sidecar.read_form(root), (root / INT8_NAME).is_file()
    if form is None and there:
        raise ValueError(
            f"{root} holds {INT8_NAME}, and no {sidecar.NAME} that says what it is: the folder is "
            "incomplete, fetch or save it again"
        )
    if form is not None and not there:
        raise FileNotFoundError(
            f"{root / sidecar.NAME} says that the weights are {form.kind}, and {INT8_NAME} is "
            "missing: the folder is incomplete, fetch or save it again"
        )
    if form is not None:
        _check_options(checkpoint, options)
    return form


def _check_options(checkpoint: Checkpoint, options: LoadOptions) -> None:
    """Integers follow few options.

    Raises:
        ValueError: one that they do not; its value is named.
    """
    wrong: dict[str, Any] = {}
    if checkpoint.adapters:
        wrong["adapters"] = [str(path) for path in checkpoint.adapters]
    if options.quantization not in (None, "int8"):
        wrong["quantization"] = options.quantization
    if options.device_map is not None:
        wrong["device_map"] = options.device_map
    if options.device is not None and torch.device(options.device).type != "cpu":
        wrong["device"] = str(options.device)
    for name, value in wrong.items():
        raise ValueError(
            f"{name}={value!r:.200}: the weights in {checkpoint.root} were saved in int8, for a "
            f"CPU, and take nothing else in: leave {name} out, {_INSTEAD}"
        )


def write_int8(backbone: PreTrainedModel, path: Path) -> None:
    """Write an int8 backbone's weights and config.

    Args:
        backbone: What `quantize` made on a CPU.
        path: A directory.

    Raises:
        ValueError: a class that transformers does not have.
    """
    if stock_class(AutoModel, backbone.config) is not type(backbone):
        raise ValueError(
            f"{type(backbone).__name__} is not what transformers makes of its config: it cannot be "
            "saved in int8. Load it without quantization and save that"
        )
    weights = {name: one.contiguous() for name, one in backbone.state_dict().items()}
    # One entry alone: safetensors writes several in any order, and the same weights are one file.
    said = {"activations": json.dumps(activations_of(backbone))}
    partial = path / f".{INT8_NAME}.partial"
    save_file(weights, partial, said)
    partial.replace(path / INT8_NAME)  # a file that is mapped stays what it is
    config = copy.deepcopy(backbone.config)
    config.dtype = backbone.dtype
    config.architectures = [type(backbone).__name__]
    config.save_pretrained(path)


def read_int8(directory: Path, config: PretrainedConfig, options: LoadOptions) -> PreTrainedModel:
    """The backbone that was written, in evaluation mode, its weights mapped from their file.

    Args:
        directory: Holds the file.
        config: Of the backbone, from there.
        options: How it is loaded.

    Raises:
        ValueError: another dtype than it was saved in, more than there is memory for, or weights
            that are missing, left over, or of another shape or dtype.
        RuntimeError: no working C++ compiler.
    """
    path = directory / INT8_NAME
    _check_dtype(directory, config, options)
    check_values(path.stat().st_size, torch.int8, path)
    with safe_open(path, framework="pt") as opened:
        said = opened.metadata() or {}
        weights = {name: opened.get_tensor(name) for name in opened.keys()}
    backbone = _empty(config, options)
    prepare_int8(backbone, _activations(said, path))
    _check_fit(weights, backbone.state_dict(), path)
    backbone.load_state_dict(weights, assign=True)
    backbone.requires_grad_(False)
    backbone.name_or_path = backbone.config.name_or_path = str(directory)
    return backbone


def _check_dtype(directory: Path, config: PretrainedConfig, options: LoadOptions) -> None:
    """The dtype of what is not int8 is that of the encoder that was saved."""
    wanted = options.dtype
    saved, named = (str(one).removeprefix("torch.") for one in (config.dtype, wanted))
    if wanted != "auto" and named != saved:
        raise ValueError(
            f"dtype={wanted!r}: the int8 weights in {directory} compute in {saved} between their "
            f"products, as they were saved: leave dtype out, {_INSTEAD}"
        )


def _activations(said: Mapping[str, str], path: Path) -> dict[str, str]:
    """The activations of gated MLPs, which the header of the file names."""
    try:
        found = json.loads(said["activations"])
        return {str(name): str(value) for name, value in found.items()}
    except (KeyError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} does not say which activations its layers have: save or fetch it again"
        ) from error


def _empty(config: PretrainedConfig, options: LoadOptions) -> PreTrainedModel:
    """A backbone whose weights are zeros that take no memory; its buffers are what they must be."""
    class_: Any = stock_class(AutoModel, config)
    if class_ is None:
        raise ValueError(f"{config.model_type!r} models are not saved in int8")
    dtype: Any = config.dtype
    with torch.device("meta"):
        shapes = {
            name: one.shape for name, one in class_(copy.deepcopy(config)).state_dict().items()
        }
    zero = torch.zeros((), dtype=dtype)
    with without_load_report():
        found: PreTrainedModel = class_.from_pretrained(
            None,
            state_dict={name: zero.expand(shape) for name, shape in shapes.items()},
            config=config,
            dtype=dtype,
            attn_implementation=options.attn_implementation,
        )
    return found


def _check_fit(
    weights: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Each place has its weight, and each weight its place.

    Raises:
        ValueError: not so; some are named.
    """
    for names, what in (
        (wanted.keys() - weights.keys(), "lacks"),
        (weights.keys() - wanted.keys(), "holds, without a place for it,"),
        (
            {n for n in wanted.keys() & weights.keys() if not _alike(weights[n], wanted[n])},
            "has in another shape or dtype",
        ),
    ):
        if names:
            raise ValueError(
                f"{path} {what} {', '.join(sorted(names)[:3])} ({len(names)} in all) by its "
                "config.json: the files are not of one checkpoint, save or fetch them again"
            )


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype
