"""The stage `distill`: a model learns to give texts the vectors that a teacher gives them.

The loss is one minus the cosine, averaged over the texts of a batch; the squared error of unit
vectors is twice that. Where the teacher has other dimensions, a linear map between the two is
trained and dropped (Reimers and Gurevych 2020, arXiv 2004.09813, with equal dimensions; Jiao et al.
2019, arXiv 1909.10351, for the map).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..faces import names_checked
from ..recipe import Role
from ..records.sources import sources_of
from ..tokens import Tokens
from ..vectors import Vectors
from .batches.mixture import Mixture
from .batches.teachers import Lesson, Lessons
from .losses import cosine_distance
from .mntp import MNTP_RECIPE
from .options import StageOptions, as_tuple, check_option
from .passes.encoding import Encoding, encode_texts
from .passes.gradcache import backward_vectors, shared
from .run.checkpoints import counted
from .run.loop import run_stage
from .run.memory import MOST
from .run.stage import Progress
from .weights.loading import load_backbone_for_training, training_device
from .weights.saving import save_result

if TYPE_CHECKING:
    from accelerate import Accelerator

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


@names_checked
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
        metadata={"help": "learn a linear map to the teacher's vectors, which the result drops"},
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


class _Model(torch.nn.Module):
    """A backbone, and the map from its vectors to the teacher's."""

    def __init__(self, encoding: Encoding, linear_map: torch.nn.Linear | None) -> None:
        super().__init__()
        self.encoding, self.linear_map = encoding, linear_map

    def forward(
        self, rows: list[list[int]], starts: list[int], mapped: bool = False
    ) -> torch.Tensor:
        """Vectors `[rows, dim]`; `mapped` ones have the teacher's dimensions."""
        found = self.encoding.vectors(rows, starts)
        return self.linear_map(found) if mapped and self.linear_map is not None else found


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
        self.model: torch.nn.Module = _Model(self._encoding, self._map())

    def _map(self) -> torch.nn.Linear | None:
        """The map to the teacher's dimensions, if one is asked for.

        Raises:
            ValueError: none is, and they are others.
        """
        options, own, other = self._options, self._trained.dimension, self._lessons.dimension
        if not options.linear_map and own == other:
            return None
        if not options.linear_map:
            raise ValueError(
                f"the teacher's vectors have {other} dimensions and the model's {own}: learn a map "
                "between them (linear_map=True), or take a teacher of the same dimension"
            )
        found = torch.nn.Linear(own, other, bias=False)
        torch.nn.init.orthogonal_(
            found.weight, generator=torch.Generator().manual_seed(options.seed)
        )
        return found.to(self._trained.backbone.device)

    def batches(self, start: int) -> Iterator[list[Lesson]]:
        """`batch_size` texts each."""
        options = self._options
        return self._mixture.batches(options.batch_size, start, epochs=options.epochs)

    def update(
        self, accelerator: Accelerator, model: torch.nn.Module, batch: list[Lesson]
    ) -> Progress:
        """Backward pass of the mean distance from the teacher's vectors."""
        wanted = self._lessons.vectors(batch, accelerator)
        found = shared(accelerator, batch, self._tokens)
        rows, starts = [row.ids for row in found], [row.start for row in found]

        def loss(vectors: torch.Tensor) -> Mapping[str, torch.Tensor]:
            return {"loss": cosine_distance(vectors, wanted.to(vectors.device))}

        def encode(rows: list[list[int]], starts: list[int]) -> torch.Tensor:
            found: torch.Tensor = model(rows, starts, mapped=True)
            return found

        losses = backward_vectors(
            accelerator, model, rows, starts, loss, budget=self.budget, encode=encode
        )
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
        """Write the backbone with its recipe, without the map."""
        assert isinstance(model, _Model)
        trained = replace(self._trained, backbone=model.encoding.backbone)
        save_result(self._options, trained, directory)

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
