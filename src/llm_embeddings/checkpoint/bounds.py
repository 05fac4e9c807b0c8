"""What a checkpoint may name, hold and ask for, checked before anything is built of it.

A checkpoint is written by others. Its files lie in its folder; what its config says of sizes is
held against the headers of its weights, so that nothing larger than these is allocated.
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from ..arithmetic.memory import stored_values

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig

_FILES = (".json", ".safetensors", ".jinja", ".model", ".txt")
_DEPTH = 2  # folders below a checkpoint's own that are looked into
_COUNTS = re.compile(r"(num|n)_.*(layers?|experts|blocks|heads)$")
_SIZES = re.compile(r"(hidden|intermediate|vocab|head)_(size|dim)$")
_LARGEST = 2**31
_SLACK = 2**25  # numbers that a model may have beside those of its files
_MOST_ADDED = 2**16  # tokens
_QUANTIFIER = re.compile(r"[*+]|\{\d*,\}")
_RESERVED = re.compile(r"[*+{|(]")  # in a name that is matched as a pattern


def inside(directory: Path, name: object, where: Path) -> Path:
    """A file that a file of the checkpoint names.

    Args:
        directory: The checkpoint's folder.
        name: The name.
        where: The file that names it, for the message.

    Raises:
        ValueError: it is not the name of something in the folder.
    """
    text = name if isinstance(name, str) else ""
    paths = PurePosixPath(text), PureWindowsPath(text)
    leaves = any(path.anchor or ".." in path.parts for path in paths)
    if not isinstance(name, str) or leaves or "\0" in text:
        raise ValueError(
            f"{where} names {name!r:.100}, which does not lie in its folder: a checkpoint is read "
            "from its own folder alone. Put the file there and name it without a path"
        )
    return directory / name


def check_links(directory: Path) -> None:
    """Links lead into the folder, or into the hub's cache that the folder is part of.

    Raises:
        ValueError: one leads elsewhere.
    """
    allowed = [directory.resolve()]
    if directory.resolve().parent.name == "snapshots":
        allowed.append(directory.resolve().parents[1] / "blobs")
    for place, folders, files in os.walk(directory):
        depth = len(Path(place).relative_to(directory).parts)
        for name in [*folders, *(file for file in files if file.endswith(_FILES))]:
            path = Path(place, name)
            target = path.resolve()
            if path.is_symlink() and not any(target.is_relative_to(one) for one in allowed):
                raise ValueError(
                    f"{path} is a link to {target}, outside of the checkpoint: copy the file to "
                    "where the link is"
                )
        if depth >= _DEPTH:
            folders.clear()


def check_config(values: Mapping[str, Any], path: Path, tensors: int) -> None:
    """The numbers of a config.json are numbers that a model can have.

    Args:
        values: The content of the file.
        path: The file.
        tensors: How many weights the checkpoint has.

    Raises:
        ValueError: one is not; the key is named.
    """
    for key, value in _leaves(values):
        last = key.rpartition(".")[2]
        wrong = isinstance(value, float) and not math.isfinite(value)
        if isinstance(value, int) and not isinstance(value, bool):
            wrong = abs(value) > _LARGEST
        if _COUNTS.match(last) or _SIZES.match(last):
            whole = isinstance(value, int) and not isinstance(value, bool)
            wrong = wrong or (value is not None and not (whole and value >= 1))
        if last.endswith(("layers", "blocks", "n_layer")) and _COUNTS.match(last) and not wrong:
            wrong = value is not None and value > max(tensors, 1)
        if wrong:
            raise ValueError(
                f"{path}: {key} = {value!r:.60} is no value that a model with {tensors} weights "
                "can have: fetch the file again"
            )


def check_size(config: PretrainedConfig, directory: Path) -> None:
    """What the config describes is no larger than the weights in the files.

    Raises:
        ValueError: it is, or transformers cannot make a model of it.
    """
    import torch
    from transformers import AutoModel

    if getattr(config, "hidden_size", None) is None or config.is_encoder_decoder:
        return  # one of several parts or halves is loaded
    try:
        with torch.device("meta"):
            made = AutoModel.from_config(copy.deepcopy(config))
    except Exception as error:
        raise ValueError(
            f"transformers makes no model of {directory / 'config.json'} "
            f"({type(error).__name__}: {error}): fetch the file again"
        ) from error
    wanted = sum(one.numel() for one in (*made.parameters(), *made.buffers()))
    there = stored_values(directory)
    if wanted > 2 * there + _SLACK:
        raise ValueError(
            f"{directory / 'config.json'} describes a model of {wanted:,} numbers, and its weights "
            f"are {there:,}: they are not of one checkpoint"
        )


@contextmanager
def reading_tokenizer(directory: Path, values: Mapping[str, Any]) -> Iterator[None]:
    """Read a tokenizer whose tokenizer.json holds these values.

    Raises:
        ValueError: it cannot be, or may run for ever.
    """
    path = directory / "tokenizer.json"
    _check_tokenizer(values, path)
    try:
        yield
    except FileNotFoundError:
        raise
    except BaseException as error:  # among them the panics of the library, which are no `Exception`
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(
            f"the tokenizer library cannot read {path} and the files beside it "
            f"({type(error).__name__}: {error!s:.200}): fetch them again"
        ) from error


def _check_tokenizer(values: Mapping[str, Any], path: Path) -> None:
    """A tokenizer.json has no more tokens than can be, and no pattern that may run for ever.

    Raises:
        ValueError: it has.
    """
    added = values.get("added_tokens") or ()
    if len(added) > _MOST_ADDED:
        raise ValueError(f"{path} adds {len(added):,} tokens, and {_MOST_ADDED:,} are the most")
    for part in ("normalizer", "pre_tokenizer"):
        for key, value in _leaves({part: values.get(part)}):
            if key.endswith("pattern.Regex") and isinstance(value, str) and _backtracks(value):
                raise ValueError(
                    f"{path}: the pattern {value!r:.80} repeats what repeats, which can take for "
                    "ever on some texts: no tokenizer needs that"
                )


def check_lora(config: Any, tensors: Mapping[str, Tensor], directory: Path) -> None:
    """An adapter is as large as its matrices, and names modules without patterns.

    A pattern for modules is replaced by the names of those that the adapter has matrices for.

    Raises:
        ValueError: a rank is larger than the matrices, or names are patterns.
    """
    where = directory / "adapter_config.json"
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(getattr(config, key), dict):
            raise ValueError(f"{where}: {key} = {getattr(config, key)!r:.80} must be an object")
    for key, alpha in {"lora_alpha": config.lora_alpha, **config.alpha_pattern}.items():
        if not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise ValueError(f"{where}: {key} = {alpha!r:.60} must be a finite number")
    down = {key: one for key, one in tensors.items() if ".lora_A" in key or "_embedding_A" in key}
    most = max([min(one.shape) for one in down.values() if one.ndim == 2], default=0)
    ranks = {"r": config.r, **{f"rank_pattern.{k}": v for k, v in config.rank_pattern.items()}}
    for key, rank in ranks.items():
        if not isinstance(rank, int) or not 1 <= rank <= most:
            raise ValueError(f"{where}: {key} = {rank!r:.60}, and its matrices have {most} rows")
    layers = config.layers_pattern or ()
    names = [*config.rank_pattern, *config.alpha_pattern]
    names += list(layers) if isinstance(layers, list | tuple) else [layers]
    names += [config.exclude_modules] if isinstance(config.exclude_modules, str) else []
    for name in names:
        if not isinstance(name, str) or _RESERVED.search(name):
            raise ValueError(f"{where}: {name!r:.80} is a pattern: give the modules by name")
    if isinstance(config.target_modules, str) and config.target_modules != "all-linear":
        found = {key.partition(".lora_")[0].removeprefix("base_model.model.") for key in down}
        config.target_modules = found


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested objects with their keys, joined by dots."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value


def _backtracks(pattern: str) -> bool:
    """Whether a group that repeats without bound is repeated without bound."""
    plain = re.sub(r"\\.", "x", pattern)
    plain = re.sub(r"\[[^\]]*\]", "x", plain)
    repeats = [False]
    for place, character in enumerate(plain):
        if character == "(":
            repeats.append(False)
        elif character == ")" and len(repeats) > 1:
            inner = repeats.pop()
            again = _QUANTIFIER.match(plain, place + 1)
            if inner and again:
                return True
            repeats[-1] |= inner or bool(again)
        elif _QUANTIFIER.match(plain, place):
            repeats[-1] = True
    return False
