"""The input: files as they are, or what has to be staged first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..cluster import import_ray
from ..folder import Folder
from ..tables import check_text_column, import_arrow
from .plan import LINES, Plan, describe, find_files, origins_of
from .staging import Staged, stage_lines, stage_sorted


def _check_dataset(data: Any, id_column: str, text_column: str) -> None:
    """Look at the columns of a Dataset, if they are known before it runs."""
    schema = data.schema(fetch_if_missing=False)
    known = getattr(schema, "base_schema", None)
    if not isinstance(known, import_arrow().Schema):
        return
    if id_column not in known.names:
        raise ValueError(f"the data set has no column {id_column!r}; it has: {known.names}")
    check_text_column(known, text_column, "the data set")


class Source:
    """The input: files as they are, or what has to be staged first."""

    def __init__(
        self,
        data: Any,
        id_column: str | None,
        text_column: str,
        columns: Sequence[str] | None,
        *,
        skip: bool,
    ) -> None:
        self._id, self._text, self._columns, self._skip = id_column, text_column, columns, skip
        self._dataset, self.files = None, []
        self.origins: list[dict[str, Any]] = []
        if isinstance(data, import_ray().data.Dataset):
            if id_column is None:
                raise ValueError(
                    "a Ray Dataset has no order of its own to go on in: name a column of unique "
                    "ids with id_column, or write it to Parquet and pass the folder"
                )
            self._dataset = data
            _check_dataset(data, id_column, text_column)
            return
        self.files = find_files(data)
        self.origins = describe(origins_of(self.files))

    @property
    def tables(self) -> bool:
        """Whether all of it is Parquet."""
        return self._dataset is None and not any(p.endswith(LINES) for p in self.files)

    @property
    def direct(self) -> bool:
        """Whether the files are read where they lie."""
        return self.tables and self._id is None

    def check(self, plan: Plan) -> None:
        """Look for the ids in Parquet files, before anything starts."""
        if self._id is not None and self._columns is None and self._id not in plan.schema.names:
            raise ValueError(f"the input has no column {self._id!r}; it has: {plan.schema.names}")

    def staged(
        self, folder: Folder, manifest: dict[str, Any], plan_of: Callable[[list[str]], Plan]
    ) -> Staged:
        """Files in their final order; what an earlier call staged is used again.

        Args:
            folder: Where it is staged.
            manifest: Knows of an earlier call.
            plan_of: Tells which files can be read.
        """
        if self.direct:
            return Staged(self.files, 0, [])
        if manifest["staged"] is not None:
            return Staged(**manifest["staged"])
        found, dataset = Staged([], 0, []), self._dataset
        if dataset is None:
            found = stage_lines(self.files, folder, self._text, self._columns_read, skip=self._skip)
        if self._id is None:
            return found
        notes = list(found.notes)
        if dataset is None:
            plan = plan_of(found.places)
            notes.extend(plan.unreadable.values())
            dataset = import_ray().data.read_parquet([table.place for table in plan.tables])
        places = stage_sorted(dataset, folder, self._id, self._text, self._columns)
        return Staged(places, found.skipped, notes)

    @property
    def _columns_read(self) -> list[str] | None:
        extra = [] if self._id is None else [self._id]
        return None if self._columns is None else [*self._columns, *extra]
