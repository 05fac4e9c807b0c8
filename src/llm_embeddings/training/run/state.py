"""The state of a run, written to disk and read back: trained weights and optimizer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

_WEIGHTS, _OPTIMIZER, _SHARDED = "trained.safetensors", "optimizer.pt", "sharded"


def trained_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name; one that two modules share appears once."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def state_bytes(model: torch.nn.Module) -> int:
    """About how many bytes a checkpoint takes: the trained weights and AdamW's two moments."""
    return 3 * sum(weight.numel() * weight.itemsize for weight in trained_weights(model).values())


def result_bytes(model: torch.nn.Module) -> int:
    """About how many bytes a result takes at most: all weights."""
    return sum(weight.numel() * weight.itemsize for weight in model.parameters())


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether no process holds all weights (FSDP, DeepSpeed)."""
    return _kind(accelerator) in {"FSDP", "DEEPSPEED"}


def save_state(
    accelerator: Accelerator, model: torch.nn.Module, optimizer: Any, directory: Path
) -> None:
    """Write weights and optimizer into a folder; called by every process if weights are sharded."""
    if _kind(accelerator) == "DEEPSPEED":
        accelerator.save_state(str(directory / _SHARDED))
        return
    if is_sharded(accelerator):
        from torch.distributed.checkpoint.state_dict_saver import save

        save(_shards(model, optimizer), checkpoint_id=directory / _SHARDED)
        return
    from safetensors.torch import save_file

    weights = trained_weights(accelerator.unwrap_model(model))
    tensors = {name: weight.detach().contiguous() for name, weight in weights.items()}
    save_file(tensors, directory / _WEIGHTS)
    torch.save(optimizer.state_dict(), directory / _OPTIMIZER)


def load_state(
    accelerator: Accelerator, model: torch.nn.Module, optimizer: Any, directory: Path
) -> None:
    """Read what `save_state` wrote, on every process.

    Raises:
        ValueError: the weights are not those of this model, or an earlier version wrote them.
    """
    if _kind(accelerator) == "DEEPSPEED":
        accelerator.load_state(str(directory / _SHARDED))
        return
    if is_sharded(accelerator):
        _load_shards(model, optimizer, directory / _SHARDED)
        return
    from safetensors.torch import load_file

    weights = trained_weights(accelerator.unwrap_model(model))
    tensors = load_file(directory / _WEIGHTS)
    if {name: weight.shape for name, weight in weights.items()} != {
        name: tensor.shape for name, tensor in tensors.items()
    }:
        raise ValueError(f"{directory} is a checkpoint of another model: resume with that one")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[name])
    stored = torch.load(directory / _OPTIMIZER, map_location="cpu", weights_only=True)
    optimizer.load_state_dict(stored)


def _shards(model: torch.nn.Module, optimizer: Any) -> dict[str, Any]:
    """What each process has of the trained weights, and of the optimizer's moments.

    By torch's own functions: accelerate brings back no moments of FSDP1.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    options = StateDictOptions(ignore_frozen_params=True)
    weights, moments = get_state_dict(model, optimizer.optimizer, options=options)
    return {"model": weights, "optimizer": moments}


def _load_shards(model: torch.nn.Module, optimizer: Any, directory: Path) -> None:
    """Read what `_shards` gave.

    Raises:
        ValueError: the folder was written by another version, or is one of another model.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    if not (directory / ".metadata").is_file():
        raise ValueError(
            f"{directory} was written by an earlier version: go on with that one, or start anew"
        )
    shards = _shards(model, optimizer)
    try:
        load(shards, checkpoint_id=directory)
    except CheckpointException as error:
        raise ValueError(
            f"{directory} is a checkpoint of another model: resume with that one"
        ) from error
    set_state_dict(
        model,
        optimizer.optimizer,
        model_state_dict=shards["model"],
        optim_state_dict=shards["optimizer"],
        options=StateDictOptions(ignore_frozen_params=True, strict=False),
    )


def skeleton_of(accelerator: Accelerator, model: torch.nn.Module) -> torch.nn.Module | None:
    """A copy of the model on the meta device, to be filled by `whole`; None = no sharding."""
    if not is_sharded(accelerator):
        return None
    empty: dict[int, Any] = {}
    for weight in model.parameters():
        placed = torch.empty_like(weight, device="meta")
        empty[id(weight)] = torch.nn.Parameter(placed, requires_grad=weight.requires_grad)
    return copy.deepcopy(model, empty)


@contextmanager
def whole(
    accelerator: Accelerator, model: torch.nn.Module, skeleton: torch.nn.Module | None
) -> Iterator[torch.nn.Module]:
    """The unwrapped model with all its weights.

    Every process has to call it; where weights are sharded, only the main one gets them.

    Args:
        accelerator: The run's processes.
        model: The prepared model.
        skeleton: What `skeleton_of` gave before the model was prepared.
    """
    if skeleton is None:
        yield accelerator.unwrap_model(model)
        return
    state = _gathered(accelerator, model)
    if accelerator.is_main_process:
        skeleton.load_state_dict(state, assign=True)
    yield skeleton


def _gathered(accelerator: Accelerator, model: torch.nn.Module) -> Any:
    """All weights of a sharded model by name, on the main process."""
    if _kind(accelerator) == "DEEPSPEED":
        return accelerator.get_state_dict(model)
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    # On a CPU, weights that were moved there would share the memory that is freed after.
    moved = accelerator.device.type != "cpu"
    return get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=moved)
    )


def _kind(accelerator: Accelerator) -> str:
    """The name of the strategy for several processes, as accelerate spells it."""
    return str(accelerator.distributed_type).rsplit(".", 1)[-1]
