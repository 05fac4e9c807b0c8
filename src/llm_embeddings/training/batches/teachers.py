"""Texts with the vectors that a teacher gives them: a model, a file of vectors, or a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import normalize

from ...encoder import Encoder
from ...recipe import Role
from ...records.examples import text_of
from ...records.lines import Row, read_rows
from ...records.sources import Source
from ...vectors import Vectors
from ..options import Dtype

if TYPE_CHECKING:
    from accelerate import Accelerator

COLUMN = "embedding"  # as `llm-embeddings encode` writes it


@dataclass(frozen=True, slots=True)
class Lesson:
    """A text to be taught.

    Attributes:
        text: The text.
        role: As what it is embedded.
        vector: The teacher's; None = the teacher is a model, and is asked later.
    """

    text: str
    role: Role
    vector: Vectors | None = None


class Lessons:
    """Texts, and their vectors by a teacher.

    Attributes:
        dimension: Of the teacher's vectors.
        told: Who the teacher is, in words.
    """

    def __init__(
        self,
        teacher: str | None,
        documents: Sequence[Source],
        queries: Sequence[Source],
        *,
        device: str,
        dtype: Dtype,
    ) -> None:
        """Open the teacher.

        Args:
            teacher: A model that `Encoder` loads; a .npy file of a vector for each row of the only
                file of data; None = the rows have them.
            documents: Files of texts.
            queries: Files of texts that are queries.
            device: Where a model computes.
            dtype: In what it computes.

        Raises:
            FileNotFoundError: the teacher is missing.
            ValueError: a file of vectors that does not fit.
        """
        self._queries = {source.path for source in queries}
        if both := self._queries & {source.path for source in documents}:
            raise ValueError(f"{min(both)} is among data and among queries: name it once")
        self._encoder: Encoder | None = None
        self._array: Any = None
        self.dimension = 0
        if teacher is None:
            first = next(self.read((*documents, *queries)[0]))
            assert first.vector is not None
            self.told, self.dimension = f"the column {COLUMN!r}", len(first.vector)
        elif teacher.lower().endswith(".npy"):
            if len(documents) + len(queries) > 1:
                raise ValueError(
                    f"teacher={teacher!r} holds the vectors of one file, and the data are several: "
                    f"have them in the column {COLUMN!r} of each (encode -o NAME.parquet)"
                )
            self._array = _open(Path(teacher))
            self.told, self.dimension = teacher, self._array.shape[1]
        else:
            self._encoder = Encoder.from_pretrained(teacher, device=device, dtype=dtype)
            self.told = f"{teacher} ({self._encoder.recipe.name})"
            self.dimension = self._encoder.dimension

    def read(self, source: Source) -> Iterator[Lesson]:
        """The lessons of a file.

        Raises:
            OSError: the file cannot be read.
            ValueError: a row that does not fit.
        """
        role: Role = "query" if source.path in self._queries else "document"
        for index, row in enumerate(read_rows(source.path, source.rows)):
            yield Lesson(text_of(row, source), role, self._known(row, index))

    def check(self, items: Sequence[int]) -> None:
        """Check that there is a vector for each text.

        Args:
            items: How many texts the files have.

        Raises:
            ValueError: there are more or fewer.
        """
        if self._array is not None and len(self._array) != sum(items):
            raise ValueError(
                f"teacher={self.told!r} has {len(self._array):,} vectors, and the data "
                f"{sum(items):,} texts: embed the same file (blank lines are no texts here)"
            )

    def vectors(
        self, batch: Sequence[Lesson], accelerator: Accelerator | None = None
    ) -> torch.Tensor:
        """The teacher's vectors `[texts, dim]`, float32.

        Args:
            batch: The texts, the same in every process.
            accelerator: The processes, each of which computes a share; None = this one works alone.
        """
        if self._encoder is None:
            known = [lesson.vector for lesson in batch if lesson.vector is not None]
            return torch.from_numpy(np.stack(known))
        processes, own = 1, 0
        if accelerator is not None:
            processes, own = accelerator.num_processes, accelerator.process_index
        found = torch.zeros(len(batch), self.dimension)
        roles: tuple[Role, ...] = ("query", "document")
        for role in roles:
            places = [p for p in range(own, len(batch), processes) if batch[p].role == role]
            if places:
                texts = [batch[place].text for place in places]
                found[places] = torch.from_numpy(self._encoder.encode(texts, role))
        if accelerator is None or processes == 1:
            return found
        shared: torch.Tensor = accelerator.reduce(found.to(accelerator.device), "sum")
        return shared

    def _known(self, row: Row, index: int) -> Vectors | None:
        """The vector of a row; None = the teacher is a model.

        Raises:
            ValueError: it has none, or one of another length.
        """
        if self._encoder is not None:
            return None
        if self._array is not None:
            if index >= len(self._array):
                raise ValueError(
                    f"{row.place}: {self.told!r} has only {index:,} vectors: embed the same file"
                )
            return np.asarray(self._array[index], np.float32)
        value = row.values.get(COLUMN)
        wanted = self.dimension or (len(value) if isinstance(value, list) else 0)
        if (
            not isinstance(value, list)
            or not all(isinstance(number, int | float) for number in value)
            or not len(value) == wanted > 0
        ):
            raise ValueError(
                f"{row.place}: column {COLUMN!r} is {value!r:.60}, not a vector"
                + (f" of {wanted} numbers" if wanted else "")
                + ": embed the texts (encode -o NAME.parquet), or name a teacher"
            )
        return np.array(value, np.float32)


def turned(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """A matrix `[teacher's dim, student's dim]` that takes a teacher's vectors into another space.

    It keeps the cosines between them: all where the student has no fewer dimensions, else as well
    as any projection does, onto their principal axes. Of such matrices it is the one that brings
    each vector nearest to the student's own (Schönemann 1966, orthogonal Procrustes).

    Args:
        teacher: Vectors of some texts `[texts, dim]`.
        student: Those of the same texts by the model that is to be trained.
    """
    ours, theirs = (normalize(one.double(), dim=-1) for one in (student, teacher))
    most = min(ours.shape[1], theirs.shape[1])
    axes = torch.linalg.eigh(theirs.T @ theirs).eigenvectors[:, -most:]
    left, _, right = torch.linalg.svd((theirs @ axes).T @ ours, full_matrices=False)
    found: torch.Tensor = axes @ left @ right
    return found.float()


def _open(path: Path) -> Any:
    """The vectors of a .npy file, `[rows, dim]`, mapped into memory.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it holds something else.
    """
    try:
        found = np.load(path, mmap_mode="r")
    except (EOFError, ValueError) as error:
        raise ValueError(f"teacher={str(path)!r} is not a .npy file: {error}") from error
    if found.ndim != 2 or found.dtype.kind != "f":
        raise ValueError(
            f"teacher={str(path)!r} holds {found.dtype} of shape {found.shape}, not a float vector "
            "for each row: encode without --precision"
        )
    return found
