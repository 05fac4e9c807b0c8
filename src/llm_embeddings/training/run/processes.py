"""The processes of a run: their precision, and what accelerate's configuration may ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ...faces import require
from .. import begun
from ..options import StageOptions
from ..weights.loading import chosen_dtype, compute_dtype
from .state import is_sharded

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(options: StageOptions) -> Accelerator:
    """The processes of the run, with the dtype of its matrix products."""
    accelerate = require("accelerate", "training needs accelerate", extra="train")
    from accelerate.state import AcceleratorState

    half = compute_dtype(options) == torch.bfloat16
    # A stage before this one in the same process may have had another precision.
    AcceleratorState._reset_state()
    # `batch_size` says what an update is: a number of steps in the environment would only divide
    # its gradients.
    once = accelerate.utils.GradientAccumulationPlugin(num_steps=1)
    accelerator: Accelerator = accelerate.Accelerator(
        mixed_precision="bf16" if half else "no", gradient_accumulation_plugin=once
    )
    return accelerator


def computing(accelerator: Accelerator, model: torch.nn.Module) -> dict[str, Any]:
    """What a run computes with, as JSON-ready values: devices, and dtypes of weights and products.

    Args:
        accelerator: Of the run.
        model: A stage's, as it was loaded.
    """
    encoding: Any = getattr(model, "encoding", model)
    half = accelerator.mixed_precision == "bf16"
    return {
        "device": f"{accelerator.num_processes} x {accelerator.device.type}",
        "weights": str(encoding.backbone.config.dtype).removeprefix("torch."),
        "products": "bfloat16" if half else "float32",
    }


def moved(options: StageOptions, now: Mapping[str, Any]) -> str:
    """A remark on a run that goes on elsewhere than it began; "" = it does not.

    Args:
        options: Of the run.
        now: What it computes with, as `computing` tells.
    """
    before = begun.computing(options)
    remarks = []
    if before and before["device"] != now["device"]:
        remarks.append(
            f"began with {before['device']} and goes on with {now['device']}: dropout draws other "
            "numbers from here on"
        )
    chosen = str(chosen_dtype(options)).removeprefix("torch.")
    if before and before["products"] != chosen:
        remarks.append(
            f"computes in {before['products']}, as it began; {chosen} would be faster here"
        )
    return "; ".join(remarks)


def check_strategy(accelerator: Accelerator, model: torch.nn.Module, options: StageOptions) -> None:
    """Make a strategy of accelerate's configuration do what the options say.

    Raises:
        ValueError: it cannot.
    """
    plugin: Any = accelerator.state
    fsdp = getattr(plugin, "fsdp_plugin", None)
    if options.quantization is not None and is_sharded(accelerator):
        raise ValueError(
            f"quantization={options.quantization!r}: quantised weights are not sharded: let each "
            "process have all of them (DDP), which are small"
        )
    frozen = any(not weight.requires_grad for weight in model.parameters())
    if fsdp is not None and fsdp.fsdp_version == 1 and frozen and not fsdp.use_orig_params:
        raise ValueError(
            "FSDP 1 mixes trained and frozen weights only with fsdp_use_orig_params: true in "
            "accelerate's configuration: set it, or take fsdp_version: 2"
        )
    kinds = sorted({str(w.dtype) for w in model.parameters() if w.is_floating_point()})
    if fsdp is not None and fsdp.fsdp_version == 1 and len(kinds) > 1:
        raise ValueError(
            f"FSDP 1 shards weights of one dtype only, and these are {' and '.join(kinds)}: take "
            "fsdp_version: 2 in accelerate's configuration, or dtype='float32' here"
        )
    deepspeed = getattr(plugin, "deepspeed_plugin", None)
    if deepspeed is not None:
        config = deepspeed.deepspeed_config
        steps = config.get("gradient_accumulation_steps", 1)
        if steps not in (1, "auto"):
            raise ValueError(
                f"DeepSpeed's gradient_accumulation_steps is {steps}, and batch_size says what an "
                "update is: set it to 1 in accelerate's configuration"
            )
        # There is no data loader from which accelerate could read them.
        config["train_micro_batch_size_per_gpu"] = config["gradient_accumulation_steps"] = 1
        config["train_batch_size"] = accelerator.num_processes
        config["gradient_clipping"] = options.max_grad_norm
