"""The loop that all stages share: updates, metrics, evaluation, checkpoints, and the result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from ...evaluation.own import evaluate
from ...packed.heads import in_words
from .. import begun
from ..held_out import scores_before, write_scores
from ..options import StageOptions
from ..weights.loading import new_heads
from ..weights.lora import coverage
from . import checkpoints, memory, processes, state
from .card import write_card
from .metrics import MetricsWriter
from .schedule import learning_rate, still_rising, updates_of
from .stage import Batch, HoldsOut, Stage, TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator

_Options = TypeVar("_Options", bound=StageOptions)
_SEED_STEP = 1_000_003  # a prime: seeds of neighbouring runs and updates stay apart


def run_stage(make_stage: Callable[[_Options], Stage[Batch]], options: _Options) -> Path:
    """Train a stage from its first update, or its newest checkpoint, to the saved result.

    Args:
        make_stage: _Options -> the stage; called once the output folder is known to be usable, as
            it loads the model.
        options: The stage's options.

    Returns:
        `options.output`, which `Encoder.from_pretrained` loads.

    Raises:
        TrainingError: a loss or a gradient is not finite, or the disk is full. Checkpoints stay.
        ValueError: the output folder is not empty, or another run's; options that do not fit.
    """
    output = options.output
    options = begun.as_begun(options)
    resumed = checkpoints.check_output(output, options.to_dict(), resume=options.resume)
    stage = make_stage(options)
    total = updates_of(options, stage.updates)
    accelerator = processes.make_accelerator(options)
    processes.check_strategy(accelerator, stage.model, options)
    accelerator.wait_for_everyone()
    output.mkdir(parents=True, exist_ok=True)
    skeleton = state.skeleton_of(accelerator, stage.model)
    encoding: Any = getattr(stage.model, "encoding", stage.model)
    told = {} if options.lora is None else {"adapters": coverage(encoding.backbone)}
    if heads := new_heads(options):
        told["new heads"] = f"heads drawn at random, as the model has none: {in_words(heads)}"
    now = processes.computing(accelerator, stage.model)
    remarks = [*told.values(), processes.moved(options, now), still_rising(options, total)]
    if options.batch_tokens is None:
        stage.budget, note = _budget(stage, options, accelerator, resumed)
        remarks.append(note)
        options = dataclasses.replace(options, batch_tokens=stage.budget)
    model, optimizer = accelerator.prepare(stage.model, _optimizer(stage.model, options))
    trainer = _Trainer(stage, options, accelerator, model, optimizer, total, now)
    first = trainer.resume(resumed)
    with MetricsWriter(options, total, first, visible=accelerator.is_main_process) as metrics:
        for remark in remarks:
            metrics.tell(remark)
        before = trainer.score_held_out(first)
        last = trainer.train(first, metrics)
        trainer.tell_gain(last, before, metrics)
    with state.whole(accelerator, model, skeleton) as trained:
        if accelerator.is_main_process:
            checkpoints.check_space(output, state.result_bytes(trained))
            with checkpoints.result_folder(output) as partial:
                stage.save(trained, partial)
                told["arithmetic"] = f"{now['products']}, on {now['device']}"
                write_card(partial, stage, options, updates=last, output=output, more=told)
    accelerator.wait_for_everyone()
    return output


def _budget(
    stage: Stage[Batch], options: StageOptions, accelerator: Accelerator, resumed: Path | None
) -> tuple[int, str]:
    """Tokens per pass, the same on every process, and a remark about them.

    A run that goes on keeps those it had, as dropout depends on what shares a pass.
    """
    before = None if resumed is None else begun.options_of(resumed).get("batch_tokens")
    if before is not None:
        return int(before), ""
    free = memory.free_bytes(accelerator.device)
    if free is None:
        return memory.MOST, ""
    if accelerator.device.type == "cpu":
        free //= accelerator.num_processes
    stage.model.train()
    with accelerator.autocast():
        fitting = memory.fitting_tokens(
            stage.model, free=free, checkpointing=options.gradient_checkpointing
        )
    each: Any = accelerator.gather(torch.tensor([fitting], device=accelerator.device))
    chosen = int(each.min())
    return chosen, f"{chosen:,} tokens per pass, by {free / 1e9:.1f} GB of free memory"


@dataclass(frozen=True, slots=True)
class _Trainer(Generic[Batch]):
    """A run in progress: the prepared model and optimizer, and what steers them."""

    stage: Stage[Batch]
    options: StageOptions
    accelerator: Accelerator
    model: torch.nn.Module
    optimizer: Any
    total: int | None
    computing: Mapping[str, Any]

    def resume(self, checkpoint: Path | None) -> int:
        """Load a checkpoint, if there is one, and return how many updates were done before it."""
        first = 0
        if checkpoint is not None:
            first = begun.step_of(checkpoint)
            state.load_state(self.accelerator, self.model, self.optimizer, checkpoint)
        if self.accelerator.is_main_process:
            checkpoints.rewind(self.options.output, first)
        return first

    def train(self, first: int, metrics: MetricsWriter) -> int:
        """Do all updates from number `first` on; return how many the run has in the end."""
        options = self.options
        step = first
        left = None if self.total is None else self.total - first
        for batch in islice(self.stage.batches(first), left):
            self.model.train()
            self._update(step, batch, metrics)
            step += 1
            if options.eval_every and step % options.eval_every == 0:
                self._evaluate(step, metrics)
            if options.save_every and step % options.save_every == 0:
                metrics.flush(step, self._rate(step - 1))
                self._save(step)
        metrics.flush(step, self._rate(step - 1))
        if options.evaluation and not (options.eval_every and step % options.eval_every == 0):
            self._evaluate(step, metrics)
        return step

    def _update(self, step: int, batch: Batch, metrics: MetricsWriter) -> None:
        """Do one update. Its randomness depends on seed, number and process alone.

        Raises:
            TrainingError: the loss or the gradient is not finite; the weights are left as they are.
        """
        options, rank = self.options, self.accelerator.process_index
        torch.manual_seed((options.seed + _SEED_STEP * step) * (rank + 1) % 2**63)
        rate = self._rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        progress = self.stage.update(self.accelerator, self.model, batch)
        # All parameters: by these, and no others, accelerate knows a model of FSDP, and asks it for
        # the norm over all shards.
        weights = list(self.model.parameters())
        norm = self.accelerator.clip_grad_norm_(weights, options.max_grad_norm or math.inf)
        size = 0.0 if norm is None else float(norm)  # DeepSpeed clips by itself
        for name, value in {**progress.losses, "gradient norm": size}.items():
            if not math.isfinite(value):
                raise TrainingError(self._stopped(step, name, value, batch))
        self.optimizer.step()
        self.optimizer.zero_grad()
        metrics.update(step + 1, progress, rate=rate, norm=size)

    def _stopped(self, step: int, name: str, value: float, batch: Batch) -> str:
        """The message of a run that stops because `name` (a loss, the gradient) is not finite."""
        kept = begun.newest(self.options.output)
        return (
            f"{name} is {value} in update {step + 1}, on batch {step} ({batch!r:.200}...). Lower "
            "the learning rate, or look at that batch. "
            + (f"The last good checkpoint is {kept}" if kept else "There is no checkpoint yet")
        )

    def _rate(self, step: int) -> float:
        return learning_rate(self.options, step, self.total)

    def _evaluate(self, step: int, metrics: MetricsWriter) -> None:
        """Score the evaluation files. Every process does: shards need all in every forward."""
        self.model.eval()
        scores = evaluate(
            lambda texts, role: self.stage.encode(self.model, texts, role),
            self.options.evaluation,
            resamples=0,
        )
        metrics.scores(step, {name: score.value for name, score in scores.items()})

    def score_held_out(self, done: int) -> list[float] | None:
        """The scores of held-out queries before training; None = nothing is, or not known."""
        stage, main = self.stage, self.accelerator.is_main_process
        if not isinstance(stage, HoldsOut) or not stage.held_out.examples:
            return None
        return scores_before(self.options.output, done, self._held_out, writes=main)

    def tell_gain(self, step: int, before: list[float] | None, metrics: MetricsWriter) -> None:
        """Score held-out queries after the last update, and write what training brought."""
        if not isinstance(self.stage, HoldsOut) or not self.stage.held_out.examples:
            return
        after = self._held_out()
        if self.accelerator.is_main_process:
            metrics.write(step, write_scores(self.options.output, before, after))

    def _held_out(self) -> list[float]:
        """Score held-out queries by the model as it is, on every process."""
        stage = self.stage
        assert isinstance(stage, HoldsOut)
        self.model.eval()
        return stage.held_out.scores(partial(stage.encode_as, self.model))

    def _save(self, step: int) -> None:
        """Write a checkpoint after update `step`, and remove old ones.

        Raises:
            TrainingError: the disk is full.
        """
        main = self.accelerator.is_main_process
        output = self.options.output
        directory = output / begun.FOLDER / f"step-{step:08d}"
        partial = checkpoints.partial_of(directory)
        if main:
            checkpoints.check_space(output, state.state_bytes(self.model))
        self.accelerator.wait_for_everyone()
        content = {"step": step, "stage": self.stage.name, "options": self.options.to_dict()}
        content |= {"computing": self.computing, "data": self.stage.facts()["data"]}
        with (
            checkpoints.checkpoint_folder(directory, content)
            if main
            else nullcontext(partial) as partial
        ):
            self.accelerator.wait_for_everyone()  # none writes before the folder is there
            if main or state.is_sharded(self.accelerator):
                state.save_state(self.accelerator, self.model, self.optimizer, partial)
            self.accelerator.wait_for_everyone()
        if main:
            checkpoints.prune(output, self.options.keep)
        self.accelerator.wait_for_everyone()


def _optimizer(model: torch.nn.Module, options: StageOptions) -> torch.optim.Optimizer:
    """AdamW; vectors (norms, biases) do not decay.

    Raises:
        ValueError: nothing is to be trained.
    """
    weights = list(state.trained_weights(model).values())
    if not weights:
        raise ValueError("no weight of this stage's model is trained: check lora and its targets")
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=options.learning_rate,
        betas=(options.beta1, options.beta2),
        fused=weights[0].device.type in ("cpu", "cuda"),
    )
