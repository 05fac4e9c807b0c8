"""Run by `torch.distributed.run`: trains as told, and leaves gradients of a shared batch.

Arguments: the model, the texts, an output folder.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from llm_embeddings.training.losses import info_nce
from llm_embeddings.training.mntp import MNTP, MNTP_RECIPE, train_mntp
from llm_embeddings.training.options import LoraOptions
from llm_embeddings.training.passes.encoding import Encoding
from llm_embeddings.training.passes.gradcache import backward_sum, backward_vectors, plan
from llm_embeddings.training.weights.loading import load_backbone_for_training

from . import child_environment


def options(model: str, data: str, output: Path) -> MNTP:
    return MNTP(
        model=model,
        data=data,
        output=output,
        dtype="float32",
        lora=LoraOptions(dropout=0.0),
        max_steps=3,
        batch_size=5,
        block_length=16,
        batch_tokens=32,
        log_every=1,
        learning_rate=1e-2,
        schedule="constant",
        save_every=2,
        show_progress=False,
    )


def open_adapters(backbone: torch.nn.Module) -> None:
    """New adapters do nothing, and half of their gradients are 0: give them other weights."""
    torch.manual_seed(1)
    for name, weight in backbone.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()


def gradients(model: str, output: Path, *, budget: int) -> dict[str, torch.Tensor]:
    """Of InfoNCE between seven texts and seven others, and of a sum over all rows."""
    trained = load_backbone_for_training(options(model, "unused", output), MNTP_RECIPE)
    open_adapters(trained.backbone)
    rows = [[1, *range(5 + row, 9 + 3 * row)] for row in range(14)]
    accelerator = Accelerator()
    encoding = accelerator.prepare(Encoding(trained.backbone, trained.recipe).train())
    starts = [0] * len(rows)

    def loss(vectors: torch.Tensor) -> dict[str, torch.Tensor]:
        unit = torch.nn.functional.normalize(vectors, dim=-1)
        return {"loss": info_nce(unit[:7], unit[7:], torch.arange(7), temperature=0.1)}

    def part(chunk: list[int]) -> torch.Tensor:
        vectors = encoding([rows[row] for row in chunk], [0] * len(chunk))
        return vectors.square().sum() / 1000

    backward_vectors(accelerator, encoding, rows, starts, loss, budget=budget, last=False)
    shares = plan([len(row) for row in rows], budget, accelerator.num_processes)
    backward_sum(accelerator, encoding, shares[accelerator.process_index], part)
    weights = accelerator.unwrap_model(encoding).named_parameters()
    return {name: weight.grad for name, weight in weights if weight.grad is not None}


def run_two(module: str, *arguments: object, **environment: str) -> None:
    """Let two processes run a module of the helpers."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(
        [*command, "--nproc_per_node=2", "-m", module, *map(str, arguments)],
        env=child_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr


def main(model: str, data: str, output: Path) -> None:
    torch.set_num_threads(1)
    torch.save(gradients(model, output, budget=64), f"{output}-{Accelerator().process_index}.pt")
    train_mntp(options(model, data, output))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
