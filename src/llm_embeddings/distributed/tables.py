"""Arrow tables: reading a column of texts, adding a column of vectors, and schemas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..faces import require

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_NAMED = 20


def import_arrow() -> Any:
    """Import pyarrow, with `pyarrow.parquet`.

    Raises:
        ImportError: it is not installed.
    """
    need = "llm_embeddings.distributed needs Ray Data"
    require("pyarrow.parquet", need, extra="ray")
    return require("pyarrow", need, extra="ray")


def texts_of(table: pa.Table, column: str) -> list[str | None]:
    """The texts of a column; None where a row has none.

    Raises:
        ValueError: there is no such column, or it is not of strings.
    """
    check_text_column(table.schema, column, "the batch")
    found: list[str | None] = table.column(column).to_pylist()
    return found


def check_text_column(schema: pa.Schema, column: str, where: str) -> None:
    """Check that a schema has a column of strings.

    Raises:
        ValueError: it has not; the message names `where` the schema is from.
    """
    types = import_arrow().types
    if column not in schema.names:
        shown = ", ".join(schema.names[:_MAX_NAMED])
        more = ", ..." if len(schema.names) > _MAX_NAMED else ""
        raise ValueError(
            f"{where} has no column {column!r}; it has: {shown or 'none'}{more}. Say which holds "
            "the texts with text_column"
        )
    kind = schema.field(column).type
    if types.is_dictionary(kind):
        kind = kind.value_type
    strings = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if not (strings or types.is_null(kind)):
        raise ValueError(f"{where}: column {column!r} is of type {kind}, not text")


def with_vectors(table: pa.Table, column: str, vectors: NDArray[Any]) -> pa.Table:
    """A table with vectors `[rows, dim]` added as a column of fixed-size lists.

    Raises:
        ValueError: the table has a column of this name already.
    """
    if column in table.column_names:
        raise ValueError(
            f"there is a column {column!r} already: choose another with embedding_column, or drop "
            "that one"
        )
    arrow = import_arrow()
    numbers = arrow.array(np.ascontiguousarray(vectors).reshape(-1))
    lists = arrow.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])
    return table.append_column(column, lists)


def as_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table cast to the columns and types of a schema; columns it lacks are null."""
    arrow = import_arrow()
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else arrow.nulls(len(table), field.type)
        for field in schema
    ]
    return arrow.Table.from_arrays(columns, schema=schema)


def one_schema(schemas: Sequence[pa.Schema], names: Sequence[str]) -> pa.Schema:
    """The schema into which rows of all schemas fit: integers become floats if some are, and so on.

    Args:
        schemas: The schemas of files.
        names: The names of these files, for errors.

    Raises:
        ValueError: a column has types that do not go together; the file is named.
    """
    arrow = import_arrow()
    found = arrow.schema([])
    for schema, name in zip(schemas, names, strict=True):
        try:
            found = arrow.unify_schemas(
                [found, schema.remove_metadata()], promote_options="permissive"
            )
        except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
            raise ValueError(
                f"the columns of {name} do not go with those of the files before it: {error}. Name "
                "the columns that you want with columns=[...]"
            ) from error
    return found
