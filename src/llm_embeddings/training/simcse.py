"""The stage `simcse`: two vectors of one text under different dropout are pulled together.

LLM2Vec (BehnamGhader et al. 2024, arXiv 2404.05961), step 3, after Gao et al. 2021 (arXiv
2104.08821); hyper-parameters as in its train_configs/simcse (llm2vec 0.2.3). The other texts of the
batch are negatives, equal ones left out. LLMs are trained without dropout, so it is switched on
here. Texts are pooled as the recipe says; the reference pools BOS and padding too while it trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from ..faces import init_checked
from ..recipe import Role
from ..records.examples import read_texts
from ..records.sources import sources_of
from ..vectors import Vectors
from .batches.mixture import Mixture
from .begun import counted
from .losses import info_nce
from .mntp import MNTP_RECIPE
from .options import StageOptions, check_option
from .passes.encoding import Encoding, encode_texts
from .passes.gradcache import backward_vectors, shared
from .run.loop import run_stage
from .run.memory import MOST
from .run.stage import Progress
from .weights.loading import load_backbone_for_training
from .weights.saving import save_result

if TYPE_CHECKING:
    from accelerate import Accelerator

_SOURCE = "LLM2Vec, arXiv 2404.05961; train_configs/simcse of llm2vec 0.2.3"


def train_simcse(options: SimCSE) -> Path:
    """Train by unsupervised contrastive learning.

    Returns:
        `options.output`.

    Raises:
        FileNotFoundError: the model or a data file is missing.
        TrainingError: training had to stop.
        ValueError: data, model or options that do not fit.
    """
    return run_stage(_Stage, options)


@init_checked
@dataclass(frozen=True, kw_only=True)
class SimCSE(StageOptions):
    """Pull vectors of one text under different dropout together, and those of other texts apart."""

    batch_size: int = field(
        default=128, metadata={"help": "texts per update, all processes together"}
    )
    learning_rate: float = field(default=3e-5, metadata={"help": "peak learning rate"})
    max_length: int = field(default=128, metadata={"help": "longest text in tokens; cut there"})
    temperature: float = field(default=0.05, metadata={"help": "cosines are divided by it"})
    skip_duplicates: bool = field(
        default=True, metadata={"help": "leave out negatives that are the same text"}
    )
    attention_dropout: float = field(
        default=0.3, metadata={"help": "dropout on attention weights while training"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("batch_size", self.batch_size, self.batch_size >= 2, "must be 2 or more")
        check_option("max_length", self.max_length, self.max_length >= 1, "must be 1 or more")
        check_option("temperature", self.temperature, self.temperature > 0, "must be above 0")
        check_option(
            "attention_dropout",
            self.attention_dropout,
            0 <= self.attention_dropout < 1,
            "must be in [0, 1)",
        )
        if not self.attention_dropout and not (self.lora and self.lora.dropout):
            raise ValueError(
                "attention_dropout=0 without dropout in lora: both copies of a text would be the "
                "same, and nothing could be learnt"
            )


class _Stage:
    """SimCSE, as the loop asks for it."""

    name = "simcse"

    def __init__(self, options: SimCSE) -> None:
        self._options, self.budget = options, options.batch_tokens or MOST
        self._trained = load_backbone_for_training(options, MNTP_RECIPE)
        self._encoding = Encoding(
            self._trained.backbone,
            self._trained.recipe,
            head=self._trained.head,
            attention_dropout=options.attention_dropout,
        )
        self.model: torch.nn.Module = self._encoding
        self._mixture = Mixture(
            sources_of(options.data),
            read_texts,
            seed=options.seed,
            same_source=False,
            known=counted(options),
        )
        self.updates = self._mixture.updates(options.batch_size, options.epochs)

    def batches(self, start: int) -> Iterator[list[str]]:
        """`batch_size` texts each."""
        options = self._options
        return self._mixture.batches(options.batch_size, start, epochs=options.epochs)

    def update(
        self, accelerator: Accelerator, model: torch.nn.Module, batch: list[str]
    ) -> Progress:
        """Backward pass of InfoNCE between the two copies of each text."""
        options = self._options
        tokenize = partial(self._trained.rows, role="document", max_length=options.max_length)
        found = shared(accelerator, batch, tokenize) * 2
        rows, starts = [row.ids for row in found], [row.start for row in found]
        seen: dict[tuple[int, ...], int] = {}
        texts = [seen.setdefault(tuple(ids), len(seen)) for ids in rows[: len(batch)]]

        def loss(vectors: torch.Tensor) -> Mapping[str, torch.Tensor]:
            first, second = normalize(vectors, dim=-1).chunk(2)
            targets = torch.arange(len(first), device=vectors.device)
            numbers = torch.tensor(texts, device=vectors.device)
            equal = numbers[:, None] == numbers if options.skip_duplicates else None
            found = info_nce(first, second, targets, temperature=options.temperature, known=equal)
            return {"loss": found}

        losses = backward_vectors(accelerator, model, rows, starts, loss, budget=self.budget)
        return Progress(losses, sum(map(len, rows)), len(batch))

    def save(self, model: torch.nn.Module, directory: Path) -> None:
        """Write backbone and heads with their recipe."""
        assert isinstance(model, Encoding)
        save_result(self._options, model.put_into(self._trained), directory)

    def encode(self, model: torch.nn.Module, texts: list[str], role: Role) -> Vectors:
        """Vectors `[texts, dim]`, float32, by the model as trained so far."""
        return encode_texts(model, self._trained, texts, role, budget=self.budget)

    def facts(self) -> Mapping[str, object]:
        """Where the method comes from, and the fingerprint of the data."""
        return {
            "source": _SOURCE,
            "batches": self._encoding.packing,
            "data": self._mixture.fingerprint(),
        }
