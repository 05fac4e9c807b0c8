"""Run by `torch.distributed.run`: trains with FSDP on the CPU, which accelerate alone would not.

Both versions of FSDP, each whole and resumed. Arguments: the model, the texts, an output folder.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import _init_utils

from helpers.training_processes import options
from llm_embeddings.training.mntp import train_mntp
from llm_embeddings.training.run.checkpoints import METRICS


class Sharding(accelerate.Accelerator):
    """Takes a CPU's processes for those that FSDP can have."""

    version = 2

    def __init__(self, **given: Any) -> None:
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=self.version,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["MistralDecoderLayer"],
            state_dict_type="SHARDED_STATE_DICT",
            use_orig_params=True if self.version == 1 else None,
            cpu_ram_efficient_loading=False,
        )
        super().__init__(fsdp_plugin=plugin, **given)
        self.state.fsdp_plugin = plugin

    @property
    def distributed_type(self) -> DistributedType:
        """What `accelerate launch` would set up for GPUs."""
        return DistributedType.FSDP

    @property
    def is_fsdp2(self) -> bool:
        """The same."""
        return self.version == 2


def main(model: str, data: str, output: Path) -> None:
    torch.set_num_threads(1)
    accelerate.Accelerator = Sharding  # type: ignore[misc]
    # FSDP1 compares "cpu" with accelerate's "cpu:0".
    _init_utils._get_device_from_device_id = lambda *_: torch.device("cpu")  # type: ignore[assignment]
    for Sharding.version in (1, 2):
        made = options(model, data, output / f"fsdp{Sharding.version}")
        train_mntp(made)
        if accelerate.PartialState().is_main_process:
            shutil.copytree(made.output, output / f"resumed{Sharding.version}")
            (output / f"resumed{Sharding.version}" / METRICS).write_text("")
        accelerate.PartialState().wait_for_everyone()
        resumed = output / f"resumed{Sharding.version}"
        train_mntp(dataclasses.replace(made, output=resumed, resume=True))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
