"""The stage `contrastive`: training on queries, positives and hard negatives, with instructions.

LLM2Vec, E5-Mistral, RepLLaMA, LLaRA and Qwen3-Embedding were trained this way, and differ in the
values of the options (`PRESETS`) and in the recipe.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from ..faces import init_checked
from ..recipe import Role
from ..records.examples import Example, read_examples
from ..records.sources import sources_of
from ..vectors import Vectors
from .batches.lengths import within
from .batches.mixture import Mixture
from .batches.pairs import (
    FalseNegatives,
    Lengths,
    Pair,
    Share,
    alone,
    choose,
    known_answers,
    targets_of,
    tokenize_pairs,
)
from .begun import counted
from .held_out import HeldOut
from .losses import Distillation, distillation, info_nce, matryoshka
from .options import StageOptions, check_one_of, check_option
from .passes.encoding import Encoding, encode_texts
from .passes.gradcache import backward_vectors, shared
from .presets import PRESETS
from .run.loop import run_stage
from .run.memory import MOST
from .run.stage import Progress
from .weights.loading import load_backbone_for_training
from .weights.saving import save_result

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["PRESETS", "Contrastive", "train_contrastive"]

_SOURCE = (
    "InfoNCE with in-batch and hard negatives; defaults of LLM2Vec, arXiv 2404.05961; "
    "train_configs/supervised of llm2vec 0.2.3"
)


def train_contrastive(options: Contrastive) -> Path:
    """Train on pairs and triplets.

    Returns:
        `options.output`.

    Raises:
        FileNotFoundError: the model or a data file is missing.
        TrainingError: training had to stop.
        ValueError: data, model or options that do not fit.
    """
    return run_stage(_Stage, options)


def contrastive_loss(
    options: Contrastive, vectors: torch.Tensor, batch: Sequence[Pair]
) -> torch.Tensor:
    """The loss of a batch, a float32 scalar: InfoNCE, and how far scores are from a teacher's.

    Args:
        options: Say the temperature, which negatives count, and the lengths of vectors.
        vectors: `[queries + passages, dim]`, in the order of `tokenize_pairs`.
        batch: The pairs that were embedded.
    """
    known = known_answers(batch).to(vectors.device) if options.skip_duplicates else None
    contrast = partial(
        info_nce,
        targets=torch.tensor(targets_of(batch), device=vectors.device),
        temperature=options.temperature,
        same_tower=options.same_tower,
        margin=options.margin,
        known=known,
    )

    def loss(queries: torch.Tensor, passages: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), device=vectors.device)
        if options.contrastive_weight:
            total = total + options.contrastive_weight * contrast(queries, passages)
        if options.distillation is None:
            return total
        groups = passages.unflatten(0, (len(batch), -1))  # each query's own passages
        student = torch.einsum("qd,qpd->qp", queries.float(), groups.float()) / options.temperature
        teacher = torch.tensor([pair.scores for pair in batch], device=vectors.device)
        far = distillation(
            student, teacher, options.distillation, temperature=options.teacher_temperature
        )
        return total + options.distillation_weight * far

    queries, passages = vectors[: len(batch)], vectors[len(batch) :]
    if options.matryoshka:
        return matryoshka(loss, queries, passages, options.matryoshka)
    return loss(normalize(queries, dim=-1), normalize(passages, dim=-1))


@init_checked
@dataclass(frozen=True, kw_only=True)
class Contrastive(StageOptions):
    """Train on queries, positives and hard negatives, with instructions before the queries."""

    batch_size: int = field(
        default=512, metadata={"help": "examples per update, all processes together"}
    )
    learning_rate: float = field(default=2e-4, metadata={"help": "peak learning rate"})
    warmup: float = field(
        default=300, metadata={"help": "updates of linear warm-up; below 1 their share"}
    )
    temperature: float = field(default=0.02, metadata={"help": "cosines are divided by it"})
    negatives: int = field(
        default=1, metadata={"help": "hard negatives per query; 0 = only in-batch ones"}
    )
    query_length: int | None = field(
        default=None, metadata={"help": "most tokens of a query; default: the recipe's"}
    )
    passage_length: int | None = field(
        default=None, metadata={"help": "most tokens of a passage; default: the recipe's"}
    )
    instruction: str | None = field(
        default=None,
        metadata={"help": "of queries whose data has none; default: the recipe's; empty: none"},
    )
    same_source: bool = field(default=True, metadata={"help": "batches of one data set each"})
    same_tower: bool = field(
        default=False,
        metadata={"help": "queries are negatives of queries too, and positives of positives"},
    )
    margin: float | None = field(
        default=None,
        metadata={"help": "ignore negatives whose cosine beats the positive's by more"},
    )
    skip_duplicates: bool = field(
        default=True,
        metadata={"help": "leave out negatives that are known to answer the query"},
    )
    distillation: Distillation | None = field(
        default=None,
        metadata={
            "help": "also learn a teacher's scores (pos_scores and neg_scores in the data): their "
            "softmax over a query's passages, or the margins between positive and negatives"
        },
    )
    teacher_temperature: float = field(
        default=1.0, metadata={"help": "the teacher's scores are divided by it"}
    )
    distillation_weight: float = field(default=1.0, metadata={"help": "weight of that loss"})
    contrastive_weight: float = field(
        default=1.0, metadata={"help": "weight of InfoNCE; 0 = learn from the teacher alone"}
    )
    matryoshka: tuple[int, ...] = field(
        default=(), metadata={"help": "lengths to which vectors may later be cut; losses add up"}
    )
    max_characters: int | None = field(
        default=None, metadata={"help": "leave out examples with longer texts"}
    )
    held_out: float = field(
        default=0.0, metadata={"help": "share of queries kept to be scored before and after"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("temperature", self.temperature, self.temperature > 0, "must be above 0")
        check_option("negatives", self.negatives, self.negatives >= 0, "must be 0 or more")
        check_option("margin", self.margin, (self.margin or 0) >= 0, "must be 0 or more")
        check_option("held_out", self.held_out, 0 <= self.held_out <= 0.5, "must be in [0, 0.5]")
        self._check_teacher()
        for name in ("query_length", "passage_length", "max_characters"):
            value = getattr(self, name)
            check_option(name, value, value is None or value >= 1, "must be 1 or more")
        object.__setattr__(self, "matryoshka", tuple(map(int, self.matryoshka)))
        shortest = min(self.matryoshka, default=1)
        check_option("matryoshka", self.matryoshka, shortest >= 1, "has a length below 1")
        if self.batch_size == 1 and not self.negatives:
            raise ValueError("batch_size=1 with negatives=0 has nothing to tell apart: raise one")

    def _check_teacher(self) -> None:
        """Check what is learnt from a teacher.

        Raises:
            ValueError: a weight or temperature is out of range, or nothing is learnt.
        """
        heat = self.teacher_temperature
        check_option("teacher_temperature", heat, heat > 0, "must be above 0")
        for name in ("contrastive_weight", "distillation_weight"):
            check_option(name, getattr(self, name), getattr(self, name) >= 0, "must be 0 or more")
        if self.distillation is not None:
            check_one_of("distillation", self.distillation, Distillation)
            check_option("negatives", self.negatives, self.negatives >= 1, "leaves nothing to rank")
        if not self.contrastive_weight and not (self.distillation and self.distillation_weight):
            raise ValueError("contrastive_weight=0 without distillation: nothing is trained")


class _Stage:
    """Contrastive training, as the loop asks for it."""

    name = "contrastive"

    def __init__(self, options: Contrastive) -> None:
        self._options, self.budget = options, options.batch_tokens or MOST
        self._lengths = Lengths(options.query_length, options.passage_length)
        taught, negatives = options.distillation is not None, options.negatives > 0
        read = partial(read_examples, negatives=negatives, scores=taught)
        sources, short = sources_of(options.data), within(options.max_characters or sys.maxsize)
        share, seed, instruction = options.held_out, options.seed, options.instruction
        self.held_out = HeldOut(share, sources, read, seed=seed, instruction=instruction)
        self._mixture: Mixture[Example] = Mixture(
            sources,
            read,
            seed=seed,
            keep=lambda row: row not in self.held_out and short(row),
            same_source=options.same_source,
            known=counted(options),
        )
        self.updates = self._mixture.updates(options.batch_size, options.epochs)
        trained = self._trained = load_backbone_for_training(options)
        width = trained.dimension
        longest = max(options.matryoshka, default=0)
        check_option(
            "matryoshka", longest, longest <= width, f"is longer than the vectors: {width}"
        )
        for survey in self._mixture.surveys:  # raises where a template takes no instruction
            first = next(iter(read(survey.source)))
            self._rows(choose([first], 0, options.instruction, random.Random(0)))
        self._encoding = Encoding(trained.backbone, trained.recipe, head=trained.head)
        self.model: torch.nn.Module = self._encoding
        self._false_negatives = FalseNegatives()

    def batches(self, start: int) -> Iterator[list[Pair]]:
        """Pairs of query and passages, drawn by the seed and the number of the batch."""
        options = self._options
        found = self._mixture.batches(options.batch_size, start, epochs=options.epochs)
        for number, examples in enumerate(found, start):
            rng = random.Random(f"pairs {options.seed} {number}")
            yield choose(examples, options.negatives, options.instruction, rng)

    def update(
        self, accelerator: Accelerator, model: torch.nn.Module, batch: list[Pair]
    ) -> Progress:
        """InfoNCE of every query among the passages of all."""
        rows, starts = self._rows(batch, partial(shared, accelerator))

        def loss(vectors: torch.Tensor) -> Mapping[str, torch.Tensor]:
            return {"loss": contrastive_loss(self._options, vectors, batch)}

        losses = backward_vectors(accelerator, model, rows, starts, loss, budget=self.budget)
        if not self._options.skip_duplicates:
            losses["false_negatives"] = self._false_negatives.share(
                batch, warn=accelerator.is_main_process
            )
        return Progress(losses, sum(map(len, rows)), len(batch))

    def _rows(self, batch: list[Pair], share: Share = alone) -> tuple[list[list[int]], list[int]]:
        """Token ids of queries, then passages, and the first pooled position of each."""
        rows = tokenize_pairs(self._trained, batch, self._lengths, share)
        return [row.ids for row in rows], [row.start for row in rows]

    def save(self, model: torch.nn.Module, directory: Path) -> None:
        """Write backbone and heads with their recipe."""
        assert isinstance(model, Encoding)
        save_result(self._options, model.put_into(self._trained), directory)

    def encode(self, model: torch.nn.Module, texts: list[str], role: Role) -> Vectors:
        """Vectors `[texts, dim]`, float32, by the model as trained so far."""
        return self.encode_as(model, texts, role, None)

    def encode_as(
        self, model: torch.nn.Module, texts: list[str], role: Role, instruction: str | None
    ) -> Vectors:
        """The same with an instruction; None = the recipe's default for the role."""
        return encode_texts(model, self._trained, texts, role, instruction, budget=self.budget)

    def facts(self) -> Mapping[str, object]:
        """Where the method comes from, and the fingerprint of the data."""
        return {
            "source": _SOURCE,
            "batches": self._encoding.packing,
            "data": self._mixture.fingerprint(),
        }
