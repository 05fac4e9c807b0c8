"""The actor that reads blocks of rows, embeds them and writes them into the output folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..storage.blocks import changed_values, seal_values
from .batch import EmbedBatch, Facts
from .folder import Folder, part_name
from .input.plan import Block, Table, Unit
from .input.reading import Rows, read_rows
from .options import EmbeddingOptions
from .tables import import_arrow, texts_of, with_vectors

if TYPE_CHECKING:
    import pyarrow as pa

KEY = b"llm_embeddings"  # of the report in a Parquet file's metadata
MOST_STARTS = 3  # of a block, before it is taken to be what kills its workers
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a block; also written into the metadata of its Parquet file.

    Attributes:
        block: Number of the block.
        rows: How many rows have a vector.
        skipped: How many rows were left out.
        tokens: About how many tokens were embedded.
        notes: The first rows that were left out, and why.
        error: Why the block could not be embedded; "" = it was.
        before: Whether it was finished in an earlier run.
    """

    block: int
    rows: int = 0
    skipped: int = 0
    tokens: int = 0
    notes: tuple[str, ...] = ()
    error: str = ""
    before: bool = False

    def to_row(self) -> dict[str, list[Any]]:
        """The report as a batch of one row for Ray Data."""
        return {"report": [json.dumps(asdict(self))]}

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Read a report from the JSON that `to_row` or a Parquet file holds."""
        values = json.loads(text)
        if changed_values(values):
            raise ValueError("its report is not what was written")
        values.pop("seal", None)
        return cls(**{**values, "notes": tuple(values["notes"])})


@dataclass(frozen=True, slots=True)
class Work:
    """What all workers of a run have in common.

    Attributes:
        output: Place of the output folder.
        schema: Schema of the columns that are carried along.
        text_column: Name of the column of texts.
        id_column: Name of the column that names rows in errors; None = they are named by place.
        embedding_column: Name of the column of vectors.
        skip: Whether rows and files that cannot be read are left out, instead of ending the run.
        expected: The facts that each worker's model must have.
    """

    output: str
    schema: pa.Schema
    text_column: str
    id_column: str | None
    embedding_column: str
    skip: bool
    expected: Facts


class EmbedBlocks:
    """Embeds units (files with some of their blocks of rows); Ray makes one in each actor."""

    def __init__(
        self, work: Work, embedding: EmbeddingOptions, starts: Callable[[int], int]
    ) -> None:
        """Load the model.

        Args:
            work: What all workers have in common.
            embedding: The model and how it is used.
            starts: Called with the number of a block when its work starts; returns how often it
                has been started in this run.
        """
        self._work, self._starts = work, starts
        self._folder = Folder(work.output)
        self._embed = EmbedBatch(**embedding)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, list[Any]]]:
        """Embed one unit.

        Yields:
            For each of its blocks, in order, a row with its report, once its file is written.
        """
        (text,) = batch["unit"]
        unit = unit_from(str(text))
        problem = _difference(self._work.expected, self._embed.facts)
        if problem:
            yield Report(unit.blocks[0].number, error=problem).to_row()
            return
        for report in self._reports(unit):
            yield report.to_row()

    def _reports(self, unit: Unit) -> Iterator[Report]:
        """Embed the blocks of a unit; each is written while the next one is embedded."""
        finished = {b.number for b in unit.blocks if self._folder.has(part_name(b.number))}
        todo = [block for block in unit.blocks if block.number not in finished]
        waiting: Future[Report] | None = None
        number = unit.blocks[0].number
        try:
            with ThreadPoolExecutor(1) as pool:
                tables = read_rows(unit, todo, self._read_schema(), skip=self._work.skip)
                for number in [block.number for block in unit.blocks]:
                    if number in finished:
                        following = pool.submit(read_report, self._folder, number)
                    else:
                        self._begin(unit, number)
                        part, report = self._embedded(unit, next(tables))
                        following = pool.submit(self._put, part, report)
                    if waiting is not None:
                        yield waiting.result()
                    waiting = following
                if waiting is not None:
                    yield waiting.result()
        except (ValueError, OSError, import_arrow().ArrowException) as error:
            yield Report(number, error=str(error) or type(error).__name__)

    def _begin(self, unit: Unit, number: int) -> None:
        """Count the start of a block.

        Raises:
            ValueError: it has been started too often, so it most likely kills its workers.
        """
        if self._starts(number) > MOST_STARTS:
            block = next(block for block in unit.blocks if block.number == number)
            raise ValueError(
                f"{unit.span(block)} ended {MOST_STARTS} workers, most likely for want of "
                "memory: lower max_batch_tokens or rows_per_block, or give each worker more"
            )

    def _embedded(self, unit: Unit, rows: Rows) -> tuple[pa.Table, Report]:
        """The table of a block with its vectors, and its report."""
        work, block, table = self._work, rows.block, rows.table
        texts = texts_of(table, work.text_column)
        missing = [row for row, text in enumerate(texts) if text is None]
        names = (self._name(unit, rows, row) for row in missing[:_MOST_NAMED])
        notes = (*rows.notes, *(f"{name} has no text" for name in names))
        if missing and not work.skip:
            raise ValueError(f"{notes[0]}. Fill it in, or pass on_error='skip' to leave such out")
        strings = [text for text in texts if text is not None]
        try:
            vectors = self._embed.encode(strings)
        except ValueError as error:
            raise ValueError(f"{unit.span(block)}: {error}") from error
        tokens = self._embed.count_tokens(strings)
        if missing:
            table = table.take([row for row, text in enumerate(texts) if text is not None])
        part = with_vectors(table.select(work.schema.names), work.embedding_column, vectors)
        skipped = block.stop - block.start - len(strings)
        report = Report(block.number, len(strings), skipped, tokens, notes[:_MOST_NAMED])
        return part, report

    def _put(self, part: pa.Table, report: Report) -> Report:
        """Write the Parquet file of a block, with the report in its metadata."""
        arrow = import_arrow()
        said = json.loads(json.dumps(asdict(replace(report, before=True))))
        kept = json.dumps(seal_values(said)).encode()
        sink = arrow.BufferOutputStream()
        others = [name for name in part.column_names if name != self._work.embedding_column]
        arrow.parquet.write_table(
            part.replace_schema_metadata({KEY: kept}),
            sink,
            use_dictionary=others,
            write_page_checksum=True,
        )
        self._folder.put(part_name(report.block), sink.getvalue())
        return report

    def _name(self, unit: Unit, rows: Rows, row: int) -> str:
        """The name of a row for errors."""
        name = self._work.id_column
        if name is not None and name in rows.table.column_names:
            return f"the row with {name} = {rows.table.column(name)[row].as_py()!r}"
        return unit.where(rows.numbers[row])

    def _read_schema(self) -> pa.Schema:
        """Schema of the columns to read: those carried along, and the texts."""
        arrow, schema = import_arrow(), self._work.schema
        if self._work.text_column in schema.names:
            return schema
        return schema.append(arrow.field(self._work.text_column, arrow.large_string()))


def unit_from(text: str) -> Unit:
    """The unit that `unit_to` wrote."""
    values = json.loads(text)
    tables = (Table(**{**table, "groups": tuple(table["groups"])}) for table in values["tables"])
    return Unit(tuple(tables), tuple(Block(**block) for block in values["blocks"]))


def unit_to(unit: Unit) -> str:
    """A unit as JSON."""
    return json.dumps(asdict(unit))


def read_report(folder: Folder, number: int) -> Report:
    """The report in the file of a finished block, whose pages are as they were written.

    Raises:
        ValueError: the file is damaged, or not one of a run.
    """
    arrow = import_arrow()
    name = part_name(number)
    try:
        with folder.filesystem.open_input_file(folder.path_of(name)) as stream:
            file = arrow.parquet.ParquetFile(stream, page_checksum_verification=True)
            for _ in file.iter_batches():
                pass
            return Report.from_json(file.metadata.metadata[KEY])
    except (arrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder.place}/{name} is damaged ({error}): delete it, and the next call makes it "
            "again"
        ) from error


def _difference(expected: Facts, found: Facts) -> str:
    """Why a worker's vectors would differ from those of the others; "" = they do not."""
    if expected == found:
        return ""
    first, second = asdict(expected), asdict(found)
    name = next(name for name in first if first[name] != second[name])
    if expected.dtype != found.dtype or expected.device != found.device:
        name = "dtype" if expected.dtype != found.dtype else "device"
    return (
        f"a worker's model has {name} {second[name]!r}, the first one's {first[name]!r}: vectors "
        "would be of two kinds. Set device, dtype and revision, and use machines alike"
    )
