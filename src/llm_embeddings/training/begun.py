"""What the newest checkpoint of a run says of how it began, for a run that goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..checkpoint.files import read_json
from ..storage.blocks import changed_values
from .options import StageOptions

_Options = TypeVar("_Options", bound=StageOptions)
FOLDER = "checkpoints"
STATE = "checkpoint.json"
CHANGED = (
    "is not what the run wrote: the disk has changed it. Remove that checkpoint's folder, and the "
    "run goes on from the one before it, or from the beginning"
)
# What runs of versions without the option did.
ABSENT: Mapping[str, Any] = {
    "skip_duplicates": False,
    "router_weight": 0.0,
    "chat_format": None,
    "distillation": None,
    "teacher_temperature": 1.0,
    "distillation_weight": 1.0,
    "contrastive_weight": 1.0,
    "held_out": 0.0,
    "quantization": None,
}
# The layers that got adapters by default before all did.
_NAMED_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def options_of(checkpoint: Path) -> Mapping[str, Any]:
    """The options of the run that wrote a checkpoint, as JSON-ready values."""
    options: Mapping[str, Any] = state_of(checkpoint)["options"]
    return options


def counted(options: StageOptions) -> list[Mapping[str, Any]]:
    """The fingerprint of the data with which a run began that goes on; [] = none is known."""
    return _begun(options).get("data") or []


def computing(options: StageOptions) -> Mapping[str, Any]:
    """What a run began to compute with that goes on, as `processes.computing`; {} = not known."""
    return _begun(options).get("computing") or {}


def as_begun(options: _Options) -> _Options:
    """The options of a run, where it goes on as it was begun by a version that lacked some."""
    before = _begun(options).get("options") or {}
    named = tuple((before.get("lora") or {}).get("targets", ()))
    if options.lora is not None and not options.lora.targets and named == _NAMED_LAYERS:
        lora = dataclasses.replace(options.lora, targets=named)
        options = dataclasses.replace(options, lora=lora)
    absent: dict[str, Any] = {
        name: value
        for name, value in ABSENT.items()
        if before and name not in before and hasattr(options, name)
    }
    return dataclasses.replace(options, **absent)


def _begun(options: StageOptions) -> Mapping[str, Any]:
    """What the newest checkpoint says of itself, where a run goes on; {} = it starts."""
    checkpoint = newest(options.output) if options.resume else None
    return {} if checkpoint is None else state_of(checkpoint)


def newest(output: Path) -> Path | None:
    """The last checkpoint in a run's folder; None = there is none."""
    found = all_of(output)
    return found[-1] if found else None


def step_of(checkpoint: Path) -> int:
    """How many updates had been done when a checkpoint was written."""
    return int(state_of(checkpoint)["step"])


def all_of(output: Path) -> list[Path]:
    """All whole checkpoints of a run, oldest first."""
    return sorted(path.parent for path in (output / FOLDER).glob(f"step-*[0-9]/{STATE}"))


def state_of(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        ValueError: that is not what was written.
    """
    found = read_json(checkpoint / STATE)
    if changed_values(found):
        raise ValueError(f"{checkpoint / STATE} {CHANGED}")
    return found
