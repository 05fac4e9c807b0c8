"""LoadOptions: what loads a model, the same for every entry."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar

from ..arithmetic.kinds import Quantization, check_quantization
from ..faces import init_checked
from ..recipe import Recipe
from ..vectors import Vectors

if TYPE_CHECKING:
    import torch

    from ..vector_cache.store import VectorCache


class LoadKeywords(TypedDict, total=False):
    """The fields of `LoadOptions`, for signatures that pass them on."""

    recipe: Recipe | str | None
    adapters: Sequence[str | Path] | None
    device: str | torch.device | None
    devices: Sequence[str] | None
    dtype: str | torch.dtype
    attn_implementation: str | None
    quantization: Quantization | Any
    device_map: str | Mapping[str, Any] | None
    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    trust_remote_code: bool
    vector_cache: VectorCache | str | Path | None


@init_checked
@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a checkpoint is found, read and placed.

    Attributes:
        recipe: A `Recipe`, or a name from `list_recipes()`. None = the one saved beside the
            weights, listed under the hub id, or recognised from the files.
        adapters: LoRA adapters to apply on top, in order. An adapter repository named as the model
            brings its own base and the stages before it.
        device: None = CUDA, Apple's GPU or the CPU, whichever there is.
        devices: Several instead, such as `["cuda:0", "cuda:1"]`: a process with the model for each
            but the first shares the work. `["cpu", "cpu"]` divides the cores.
        dtype: "auto" = the checkpoint's; on a CPU bfloat16 where it is native, else float32.
        attn_implementation: As in transformers.
        quantization: "int8" (CPU, CUDA) or "fp8" (CUDA): linear layers in 8 bits, weights and
            activations; `Encoder.quantization_cosine` says how close the vectors stay. Or a
            transformers quantization config.
        device_map: As in transformers; overrides `device`.
        revision: Branch, tag or commit of the model.
        token: Hub token.
        cache_dir: Hub cache.
        local_files_only: Never ask the network.
        trust_remote_code: Run code from the repository; no listed checkpoint needs it.
        vector_cache: File that keeps vectors for the next call, run or process.

    Raises:
        TypeError: one name where a list of names belongs.
        ValueError: options that exclude each other, or an unknown quantization.
    """

    recipe: Recipe | str | None = None
    adapters: Sequence[str | Path] | None = None
    device: str | torch.device | None = None
    devices: Sequence[str] | None = None
    dtype: str | torch.dtype = "auto"
    attn_implementation: str | None = None
    quantization: Quantization | Any = None
    device_map: str | Mapping[str, Any] | None = None
    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    vector_cache: VectorCache | str | Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.adapters, str | Path):
            given = str(self.adapters)
            raise TypeError(f"adapters must be a list, not the single {given!r}: put it in one")
        if self.devices is not None and (self.device is not None or self.device_map is not None):
            raise ValueError("devices says where the model goes: leave out device and device_map")
        if isinstance(self.quantization, str):
            check_quantization(self.quantization)


class Opening(Protocol):
    """What a ticket asks of an encoder."""

    ranges: dict[tuple[int, bool], Vectors]

    def fingerprint(self, role: str = "document", instruction: str | None = None) -> str:
        """Of its vectors."""


_IMPORTED_IN = os.getpid()
AnOpening = TypeVar("AnOpening", bound=Opening)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a pickle holds in place of weights: where they lie, and whose vectors they must give.

    Attributes:
        model: Hub id or directory.
        options: How they were loaded, but for the token.
        fingerprint: Of documents without an instruction.
        ranges: Those of the encoder, calibrated ones included.
    """

    model: str
    options: LoadOptions
    fingerprint: str
    ranges: dict[tuple[int, bool], Vectors]

    def open(
        self, load: Callable[[str, LoadOptions], AnOpening], token: str | bool | None = None
    ) -> AnOpening:
        """An encoder with the same vectors; `load` is `Encoder.open`.

        Raises:
            FileNotFoundError: the files are not there any more.
            ValueError: they give other vectors, or as `load`.
        """
        tame_forked_torch()
        encoder = load(self.model, replace(self.options, token=token))
        if encoder.fingerprint("document", "") != self.fingerprint:
            raise ValueError(
                f"{self.model!r} does not give the vectors of the object that was pickled: its "
                "files are others, or this machine computes in another dtype"
            )
        encoder.ranges.update(self.ranges)
        return encoder


def tame_forked_torch() -> None:
    """In a forked process, compute in one thread: torch's others stayed behind in the parent.

    Its first parallel region would wait for them for ever, or find its pool invalid.
    """
    if os.getpid() != _IMPORTED_IN:
        import torch

        torch.set_num_threads(1)


def plain(name: str, value: Any) -> Any:
    """The value of a field of `LoadOptions` as JSON holds it, for hosts that write their objects.

    Paths, devices and dtypes become strings, recipes and quantization configs what their `to_dict`
    gives. What has no such form comes back as it is, for the host to refuse.

    Raises:
        TypeError: a recipe or a quantization config that is none.
        ValueError: a recipe's dictionary with a field that recipes do not have.
    """
    if value is None:
        return None
    if name == "recipe":
        return _plain_recipe(value)
    if name == "quantization":
        return _plain_quantization(value)
    if isinstance(value, Mapping):
        return {str(key): plain(name, each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(name, each) for each in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__module__ == "torch" or (name == "dtype" and isinstance(value, str)):
        return str(value).removeprefix("torch.")
    return value


def from_plain(values: Mapping[str, Any]) -> LoadOptions:
    """Options from what `plain` made of their values.

    Raises:
        TypeError: as `LoadOptions`.
        ValueError: as `LoadOptions`.
    """
    given = dict(values)
    if isinstance(given.get("recipe"), Mapping):
        given["recipe"] = Recipe.from_dict(dict(given["recipe"]))
    return LoadOptions(**given)


def _plain_recipe(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        value = Recipe.from_dict(dict(value))
    if not isinstance(value, Recipe):
        raise TypeError(f"recipe={value!r:.80} is not a name, a Recipe or a Recipe's to_dict()")
    return json.loads(json.dumps(value.to_dict()))


def _plain_quantization(value: Any) -> Any:
    if isinstance(value, str):
        return value
    fields = value.to_dict() if hasattr(value, "to_dict") else value
    try:
        if isinstance(fields, Mapping):
            return json.loads(json.dumps(dict(fields)))
    except TypeError as error:
        raise TypeError(f"quantization={value!r:.80} cannot be written: {error}") from error
    raise TypeError(
        f"quantization={value!r:.80} is not a name, a quantization config of transformers or its "
        "to_dict()"
    )
