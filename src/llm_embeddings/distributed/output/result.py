"""What a call came to, and the way back to the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cluster import import_ray
from ..folder import MANIFEST, SUCCESS, Folder, part_name
from ..tables import import_arrow

if TYPE_CHECKING:
    from ray.data import Dataset


def read_embeddings(output: str | Path) -> Dataset:
    """The rows and vectors of a finished output folder, read lazily and in order.

    A page that is not as it was written raises when it is read: delete its part and `_SUCCESS`, and
    `embed_dataset` makes that part again.

    Raises:
        ValueError: it is not finished, or not one of `embed_dataset`.
    """
    ray = import_ray()
    folder = Folder(output)
    if not folder.has(SUCCESS):
        state = (
            "is not finished: call embed_dataset again"
            if folder.has(MANIFEST)
            else ("is no output of embed_dataset")
        )
        raise ValueError(f"{output} {state}")
    paths = [folder.path_of(part_name(number)) for number in sorted(folder.parts())]
    checked = import_arrow().dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
    context = ray.data.DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    with ray.data.DataContext.current(context):
        dataset: Dataset = ray.data.read_parquet(
            paths, filesystem=folder.filesystem, fragment_scan_options=checked
        )
    return dataset


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a call of `embed_dataset` came to.

    Attributes:
        output: The folder.
        rows: Rows in it.
        skipped: Rows that were left out, of this call and those before it.
        notes: The first of them, and files left out, with the reason.
        dimension: Numbers per vector.
        blocks: Parts in the folder.
        computed: Parts that this call made.
        tokens: About how many tokens this call computed.
        seconds: That this call took, without starting Ray.
    """

    output: str
    rows: int
    skipped: int
    notes: tuple[str, ...]
    dimension: int
    blocks: int
    computed: int
    tokens: int
    seconds: float

    @classmethod
    def again(cls, output: str, values: dict[str, Any]) -> Embedded:
        """The result for a folder that an earlier call had finished: nothing was computed."""
        now = {"output": output, "notes": tuple(values["notes"])}
        return cls(**{**values, **now, "computed": 0, "tokens": 0, "seconds": 0.0})

    def dataset(self) -> Dataset:
        """The rows and their vectors, read lazily and in order."""
        return read_embeddings(self.output)
