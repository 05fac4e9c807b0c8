"""The stage `distill`: a model learns to give texts the vectors that a teacher gives them.

The loss is one minus the cosine, averaged over the texts of a batch (Reimers and Gurevych 2020,
arXiv 2004.09813); the squared error of unit vectors is twice that. Where the teacher has other
dimensions, its vectors are turned into the student's space before training starts, once. (A map
that is trained beside the student, and dropped, takes the likeness of texts with it.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..faces import init_checked
from ..recipe import Role
from ..records.sources import sources_of
from ..tokens import Tokens
from ..vectors import Vectors
from .batches.mixture import Mixture
from .batches.teachers import Lesson, Lessons, turned
from .begun import counted
from .losses import cosine_distance
from .mntp import MNTP_RECIPE
from .options import StageOptions, as_tuple, check_option
from .passes.encoding import Encoding, encode_rows, encode_texts
from .passes.gradcache import backward_vectors, shared
from .run.loop import run_stage
from .run.memory import MOST
from .run.stage import Progress
from .weights.loading import load_backbone_for_training, training_device
from .weights.saving import save_result

if TYPE_CHECKING:
    from accelerate import Accelerator

_TURNED_BY = 2  # texts for each dimension by which the teacher's vectors are turned
_SOURCE = "distillation of a teacher's vectors, arXiv 2004.09813"


def train_distill(options: Distill) -> Path:
    """Train on the vectors of a teacher.

    Returns:
        `options.output`.

    Raises:
        FileNotFoundError: a model or a data file is missing.
        TrainingError: training had to stop.
        ValueError: data, models or options that do not fit.
    """
    return run_stage(_Stage, options)


@init_checked
@dataclass(frozen=True, kw_only=True)
class Distill(StageOptions):
    """Learn the vectors that a teacher gives to texts."""

    teacher: str | None = field(
        default=None,
        metadata={
            "help": "model whose vectors are learnt, or a .npy file of those of the data, row by "
            "row; default: the column embedding of the data"
        },
    )
    queries: tuple[str, ...] = field(
        default=(), metadata={"help": "files of texts that both embed as queries"}
    )
    linear_map: bool = field(
        default=False,
        metadata={
            "help": "turn the teacher's vectors into the model's space, which may have other "
            "dimensions"
        },
    )
    batch_size: int = field(
        default=128, metadata={"help": "texts per update, all processes together"}
    )
    learning_rate: float = field(default=1e-4, metadata={"help": "peak learning rate"})
    max_length: int | None = field(
        default=None, metadata={"help": "most tokens of a text; default: the recipe's"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "queries", as_tuple(self.queries))
        longest = self.max_length
        check_option("max_length", longest, longest is None or longest >= 1, "must be 1 or more")


class _Stage:
    """Distillation, as the loop asks for it."""

    name = "distill"

    def __init__(self, options: Distill) -> None:
        self._options, self.budget = options, options.batch_tokens or MOST
        documents = sources_of(options.data)
        queries = sources_of(options.queries) if options.queries else ()
        self._lessons = Lessons(
            options.teacher, documents, queries, device=training_device(), dtype=options.dtype
        )
        self._mixture: Mixture[Lesson] = Mixture(
            (*documents, *queries),
            self._lessons.read,
            seed=options.seed,
            same_source=False,
            known=counted(options),
        )
        self._lessons.check([survey.items for survey in self._mixture.surveys])
        self.updates = self._mixture.updates(options.batch_size, options.epochs)
        self._trained = load_backbone_for_training(options, MNTP_RECIPE)
        self._encoding = Encoding(
            self._trained.backbone, self._trained.recipe, head=self._trained.head
        )
        self.model: torch.nn.Module = self._encoding
        self._turn = self._turned()

    def _turned(self) -> torch.Tensor | None:
        """What takes the teacher's vectors into the model's space, if that is asked for.

        Raises:
            ValueError: none is, and they are others.
        """
        options, own, other = self._options, self._trained.dimension, self._lessons.dimension
        if not options.linear_map and own == other:
            return None
        if not options.linear_map:
            raise ValueError(
                f"the teacher's vectors have {other} dimensions and the model's {own}: let them be "
                "turned (linear_map=True), or take a teacher of the same dimension"
            )
        count = min(_TURNED_BY * min(own, other), sum(s.items for s in self._mixture.surveys))
        batch = list(islice(chain.from_iterable(self.batches(0)), count))
        self._encoding.eval()
        # A run that goes on must find the same matrix, so the passes are always cut alike.
        vectors = encode_rows(self._encoding, self._tokens(batch), budget=MOST)
        return turned(self._lessons.vectors(batch), torch.from_numpy(vectors))

    def batches(self, start: int) -> Iterator[list[Lesson]]:
        """`batch_size` texts each."""
        options = self._options
        return self._mixture.batches(options.batch_size, start, epochs=options.epochs)

    def update(
        self, accelerator: Accelerator, model: torch.nn.Module, batch: list[Lesson]
    ) -> Progress:
        """Backward pass of the mean distance from the teacher's vectors."""
        wanted = self._lessons.vectors(batch, accelerator)
        if self._turn is not None:
            wanted = wanted @ self._turn.to(wanted.device)
        found = shared(accelerator, batch, self._tokens)
        rows, starts = [row.ids for row in found], [row.start for row in found]

        def loss(vectors: torch.Tensor) -> Mapping[str, torch.Tensor]:
            return {"loss": cosine_distance(vectors, wanted.to(vectors.device))}

        losses = backward_vectors(accelerator, model, rows, starts, loss, budget=self.budget)
        return Progress(losses, sum(map(len, rows)), len(batch))

    def _tokens(self, batch: Sequence[Lesson]) -> list[Tokens]:
        """Token ids of each text in its role."""
        found: dict[int, Tokens] = {}
        roles: tuple[Role, ...] = ("query", "document")
        for role in roles:
            places = [place for place, lesson in enumerate(batch) if lesson.role == role]
            texts = [batch[place].text for place in places]
            rows = self._trained.rows(texts, role, None, self._options.max_length)
            found.update(zip(places, rows, strict=True))
        return [found[place] for place in range(len(batch))]

    def save(self, model: torch.nn.Module, directory: Path) -> None:
        """Write backbone and heads with their recipe."""
        assert isinstance(model, Encoding)
        save_result(self._options, model.put_into(self._trained), directory)

    def encode(self, model: torch.nn.Module, texts: list[str], role: Role) -> Vectors:
        """Vectors `[texts, dim]`, float32, by the model as trained so far."""
        return encode_texts(model, self._trained, texts, role, budget=self.budget)

    def facts(self) -> Mapping[str, object]:
        """Where the method comes from, the teacher, and the fingerprint of the data."""
        return {
            "source": _SOURCE,
            "teacher": self._lessons.told,
            "batches": self._encoding.packing,
            "data": self._mixture.fingerprint(),
        }
