"""Which files a checkpoint is made of: local directories and hub snapshots. Reads no weights."""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .bounds import inside

_WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt"]
INDEX = "model.safetensors.index.json"
INT8_NAME = "model_int8.safetensors"  # what `int8_files` writes
_UNWANTED = ["consolidated*", "original/*", "onnx/*", "openvino/*", "lora/*", "checkpoint-*/*"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where repositories come from; the options of `huggingface_hub.snapshot_download`."""

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """The directories a model is built from.

    Attributes:
        root: Holds the full weights.
        adapters: Adapter directories, in the order they are applied.
        tokenizer: Holds tokenizer.json.
    """

    root: Path
    adapters: tuple[Path, ...]
    tokenizer: Path

    @cached_property
    def tokenizer_settings(self) -> dict[str, Any]:
        """What tokenizer.json says beside the vocabulary, read once."""
        values = read_json(self.tokenizer / "tokenizer.json")
        values.pop("model", None)
        return values


def find(model: str | Path, source: Source) -> Path:
    """The directory of a checkpoint, downloaded if it is a hub id.

    Raises:
        FileNotFoundError: neither a directory nor a repository that can be reached.
    """
    local, name = Path(model).expanduser(), str(model)
    if local.is_dir():
        return local.resolve()
    if local.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        said = f"{name!r} is neither a directory nor a hub id like 'org/name'"
        raise FileNotFoundError(f"{said}: it only embeds" if local.suffix == ".gguf" else said)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = snapshot_download(
            name,
            revision=source.revision,
            token=source.token,
            cache_dir=source.cache_dir,
            local_files_only=source.local_files_only,
            allow_patterns=_WANTED,
            ignore_patterns=_UNWANTED,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        from ..families import nearest

        raise FileNotFoundError(
            f"cannot get {name!r} from the hub: {error}. If it is a private or gated repository "
            f"pass token=...; if the name is wrong: {nearest(name)}"
        ) from error
    return Path(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, {} where the file does not exist.

    Raises:
        ValueError: the file is not a JSON object.
    """
    values = _parse(path) if path.is_file() else {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return values


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """A JSON array of objects.

    Raises:
        ValueError: the file is not one.
    """
    values = _parse(path)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{path} must hold a JSON array of objects")
    return values


def _parse(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply: fetch it again") from error
    except ValueError as error:  # of JSON, of UTF-8, or of integers that are too long
        raise ValueError(f"{path} is not JSON ({error}): fetch it again") from error


def check_weights(directory: Path) -> None:
    """Every shard must be there and readable.

    Raises:
        FileNotFoundError: no weights, only .bin weights, or a missing shard.
        ValueError: a file is not a whole safetensors file.
    """
    shards = [path.name for path in shards_of(directory)]
    if not shards:
        binary = any(directory.glob("*.bin"))
        raise FileNotFoundError(
            f"{directory} has only .bin weights, which can run code when read. Convert them once: "
            "AutoModel.from_pretrained(path).save_pretrained(new_path) writes safetensors"
            if binary
            else f"{directory} holds no model: no model.safetensors and no index of shards"
        )
    missing = [shard for shard in shards if not (directory / shard).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{directory} lacks {len(missing)} of {len(shards)} weight files "
            f"({', '.join(missing)}): the download is incomplete, fetch it again"
        )
    for shard in shards:
        check_safetensors(directory / shard)


def shards_of(directory: Path) -> list[Path]:
    """The files of a checkpoint's weights, sorted; none where it has none."""
    index = directory / INDEX
    if index.is_file():
        return sorted(set(_weight_map(directory).values()))
    names = (INT8_NAME, "model.safetensors")
    return [directory / name for name in names if (directory / name).is_file()][:1]


def check_safetensors(path: Path) -> None:
    """Read the header of a safetensors file, which says how long the file must be.

    Raises:
        ValueError: the file is not whole.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}): fetch it again"
        ) from error


def weight_names(directory: Path) -> set[str]:
    """Names of all weights of a checkpoint, read off the headers of its files."""
    from safetensors import safe_open

    found: set[str] = set()
    for shard in shards_of(directory):
        with safe_open(shard, framework="pt") as opened:
            found.update(opened.keys())
    return found


def weight_files(directory: Path) -> dict[str, Path]:
    """Which file of a checkpoint holds each weight; empty where it holds none.

    Raises:
        ValueError: the one file of weights is not a whole safetensors file.
    """
    if (directory / INDEX).is_file():
        return _weight_map(directory)
    path = directory / "model.safetensors"
    if not path.is_file():
        return {}
    check_safetensors(path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        return dict.fromkeys(opened.keys(), path)


def _weight_map(directory: Path) -> dict[str, Path]:
    """The file of each weight, as the index of shards says.

    Raises:
        ValueError: it says something else, or names a file elsewhere.
    """
    index = directory / INDEX
    values = read_json(index)
    named = values.get("weight_map")
    if index.read_bytes().startswith(codecs.BOM_UTF8):  # transformers cannot read it then
        raise ValueError(f"{index} begins with a byte order mark: save it without one")
    if not isinstance(values.get("metadata") or {}, dict):
        raise ValueError(f"{index}: metadata must be an object")
    if not isinstance(named, dict) or not named:
        raise ValueError(f"{index} has no weight_map of names and files: fetch it again")
    return {name: inside(directory, file, index) for name, file in named.items()}


def is_adapter(directory: Path) -> bool:
    """Whether the directory holds a PEFT adapter and no full weights.

    LLM2Vec's MNTP repositories hold a config.json beside the adapter, which is why transformers 5
    takes local copies of them for full models.

    Raises:
        ValueError: it holds both.
    """
    if not (directory / "adapter_config.json").is_file():
        return False
    if any(directory.glob("model*.safetensors")):
        raise ValueError(
            f"{directory} holds full weights and an adapter: move one of them away, and give the "
            "adapter by adapters=[...] if it belongs on top"
        )
    return True


def resolve(
    model: Path, adapters: Sequence[str | Path], source: Source, *, base: str | None = None
) -> Checkpoint:
    """Follow a checkpoint down to its full weights.

    Args:
        model: The checkpoint's directory.
        adapters: More adapters, applied last.
        source: Where hub ids are looked up.
        base: What the checkpoint goes on if it is an adapter, instead of what its
            adapter_config.json names (`Recipe.base`).
    """
    if isinstance(adapters, str | Path):
        raise TypeError(f"adapters must be a list, not the single {str(adapters)!r}: put it in one")
    root = model
    chain: list[Path] = []
    upper = Source(None, source.token, source.cache_dir, source.local_files_only)
    while is_adapter(root):
        if root in chain:
            raise ValueError(f"{root} names itself as its base")
        chain.insert(0, root)
        root = _base_of(root, base if root == model else None, upper)
    extra = [find(adapter, upper) for adapter in adapters]
    for directory in extra:
        if not (directory / "adapter_config.json").is_file():
            raise FileNotFoundError(f"adapters: {directory} has no adapter_config.json")
    candidates = [*reversed(chain), root, *extra]
    tokenizer = next((d for d in candidates if (d / "tokenizer.json").is_file()), model)
    return Checkpoint(root, (*chain, *extra), tokenizer)


def _base_of(adapter: Path, instead: str | None, source: Source) -> Path:
    where = adapter / "adapter_config.json"
    named = instead or read_json(where).get("base_model_name_or_path")
    if named and instead is None and adapter.parent.name == "snapshots":
        inside(adapter, named, where)  # what comes from the hub names no folder of this machine
    if not named or not isinstance(named, str):
        raise ValueError(
            f"the adapter_config.json in {adapter} names no base: pass the base as the model and "
            "this directory by adapters=[...]"
        )
    beside = (adapter / named).resolve()
    try:
        return beside if beside.is_dir() else find(named, source)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the base {named!r} of the adapter {adapter} is missing: {error}"
        ) from error
