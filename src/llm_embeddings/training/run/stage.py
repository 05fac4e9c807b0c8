"""The interface between a stage and the training loop: model, batches, update, saving."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import torch

from ...recipe import Role
from ...vectors import Vectors
from ..held_out import HeldOut

if TYPE_CHECKING:
    from accelerate import Accelerator

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Progress:
    """What one update did, all processes together.

    Attributes:
        losses: "loss" and its parts by name, each over the global batch, as the paper or code that
            the stage follows defines it.
        tokens: Tokens computed; padding, if any, is not counted.
        examples: Examples in the global batch.
    """

    losses: Mapping[str, float]
    tokens: int
    examples: int


class Stage(Protocol[Batch]):
    """One way to train, as the loop sees it.

    Attributes:
        name: The stage's name: "mntp", "simcse", "contrastive", "distill", "llara" or
            "grit".
        model: The module that the loop prepares; its parameters with `requires_grad` are trained.
        updates: How many batches the data has; None = without end.
        budget: Tokens per pass of one process; the loop sets it where the options do not.
    """

    name: str
    model: torch.nn.Module
    updates: int | None
    budget: int

    def batches(self, start: int) -> Iterator[Batch]:
        """Global batches from update number `start` on (the first is 0).

        They are the same on every process, and depend on the seed and the number alone. Ends with
        the data where epochs are counted.
        """
        ...

    def update(self, accelerator: Accelerator, model: torch.nn.Module, batch: Batch) -> Progress:
        """Forward and backward pass of a whole batch, of which this process computes its share.

        The gradients are those that one process would have on the whole batch. `model` is
        `self.model` as the loop prepared it, in training mode.
        """
        ...

    def save(self, model: torch.nn.Module, directory: Path) -> None:
        """Write a checkpoint that `Encoder.from_pretrained` loads.

        `model` is `self.model` with the trained weights (not always the same object), unwrapped.
        """
        ...

    def encode(self, model: torch.nn.Module, texts: list[str], role: Role) -> Vectors:
        """Vectors `[texts, dim]`, float32, of the prepared model, to evaluate during training."""
        ...

    def facts(self) -> Mapping[str, object]:
        """What the model card and provenance.json say beside the options.

        "data" is the fingerprint of the data, "source" where the method and its defaults come from;
        other entries are printed as they are, and must fit into JSON.
        """
        ...


@runtime_checkable
class HoldsOut(Protocol):
    """A stage that keeps some of its data from training, to be scored.

    Attributes:
        held_out: What is kept.
    """

    held_out: HeldOut

    def encode_as(
        self, model: torch.nn.Module, texts: list[str], role: Role, instruction: str | None
    ) -> Vectors:
        """`Stage.encode` with an instruction; None = the recipe's default for the role."""
        ...


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where it stopped and what is kept."""
