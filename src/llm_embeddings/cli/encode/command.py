"""`llm-embeddings encode`: a file of texts to a file of vectors, through any interruption."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.filesize import decimal

from ...arithmetic.precision import NEEDS_RANGES
from ...checkpoint.options import LoadOptions
from ...recipe import Role
from ...storage.progress import Meter
from ..console import ModelOption, load_encoder, remarks
from ..loading import with_load_options
from .journal import Journal
from .options import (
    BatchTokens,
    ChunkSize,
    Column,
    Dimensions,
    Encoding,
    FormatOption,
    Input,
    Instruction,
    MaxLength,
    Normalize,
    Output,
    Overwrite,
    PrecisionOption,
    PromptName,
    Quiet,
    Restart,
    RoleOption,
)
from .read import Chunk, Source
from .write import JsonlSink, ParquetSink, sink_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...encoder import Encoder

STDOUT = "-"


@dataclass(frozen=True, slots=True)
class Task:
    """What is done with each chunk.

    Attributes:
        role: "query" or "document".
        instruction: None = the recipe's default.
        options: The keyword options of `Encoder.encode`.
        quantization: What the model computes in, if not in its dtype.
    """

    role: Role
    instruction: str | None
    options: dict[str, Any]
    quantization: str | None

    @property
    def named(self) -> str:
        """The prompt, else the role."""
        name: str | None = self.options["prompt_name"]
        return self.role if name is None else name


@with_load_options()
def encode(
    input: Input = "-",
    output: Output = Path("-"),
    model: ModelOption = None,
    role: RoleOption = "document",
    instruction: Instruction = None,
    prompt_name: PromptName = None,
    column: Column = "text",
    form: FormatOption = None,
    encoding: Encoding = None,
    precision: PrecisionOption = "float32",
    dimensions: Dimensions = None,
    normalize: Normalize = None,
    max_length: MaxLength = None,
    batch_tokens: BatchTokens = None,
    chunk: ChunkSize = 512,
    overwrite: Overwrite = False,
    restart: Restart = False,
    quiet: Quiet = False,
    *,
    load: LoadOptions,
) -> None:
    """Embed a file of texts. Interrupted, it goes on where it stopped when called again.

    Example: llm-embeddings encode passages.jsonl -o passages.npy --column body
    """
    if input == "-" and sys.stdin.isatty():
        raise typer.BadParameter("name a file of texts, or pipe them in")
    _check_output(output, input, overwrite=overwrite)
    options = {
        "precision": precision,
        "truncate_dim": dimensions,
        "normalize": normalize,
        "max_length": max_length,
        "max_batch_tokens": batch_tokens,
        "prompt_name": prompt_name,
    }
    task = Task(role, instruction, options, load.quantization)
    # Called late: mistakes in the input show before the model is loaded.
    opened = partial(load_encoder, model, load)
    with Source(input, form, column, encoding, chunk) as source:
        if str(output) == STDOUT:
            _to_stdout(source, opened, task)
        else:
            _to_file(source, opened, task, output, restart=restart, quiet=quiet)


def _check_output(output: Path, source: str, *, overwrite: bool) -> None:
    """Refuse an output that is there, or cannot be."""
    if str(output) == STDOUT:
        return
    if output.is_dir():
        raise IsADirectoryError(f"{output} is a directory: name a file in it")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"the directory {output.parent} does not exist: make it first")
    if not output.exists():
        return
    if Path(source).exists() and output.samefile(source):
        raise ValueError(f"{output} is the input: write to another name")
    if not overwrite:
        raise FileExistsError(f"{output} exists and is kept: --overwrite replaces it")


def _to_stdout(source: Source, opened: Callable[[], Encoder], task: Task) -> None:
    """JSON lines; nothing is kept, so nothing is taken up again."""
    chunks = source.chunks()
    first = next(chunks)
    encoder = opened()
    for chunk in itertools.chain([first], chunks):
        vectors, _ = _vectors(encoder, task, chunk)
        sys.stdout.buffer.write(JsonlSink(vectors.dtype.name).pack(chunk, vectors))
        sys.stdout.flush()


def _to_file(
    source: Source,
    opened: Callable[[], Encoder],
    task: Task,
    output: Path,
    *,
    restart: bool,
    quiet: bool,
) -> None:
    """Finished chunks go to a journal, and the whole of them becomes the output."""
    chunks = source.chunks()
    first = next(chunks)
    sink_of(output, "float32", 1).head(first)
    with Journal(output, restart=restart) as journal:
        encoder = opened()
        encoder.scheduler.passes_at_once = 1
        nothing = encoder.encode([], task.role, task.instruction, **task.options)
        sink = sink_of(output, nothing.dtype.name, nothing.shape[1])
        task = _settle(journal, encoder, task)
        journal.begin(_settings(encoder, task, source, output), sink.head(first))
        with Meter(remarks(), "texts", begun=journal.count, show=not quiet) as meter:
            if journal.count and not quiet:
                remarks().print(f"going on after {journal.count:,} finished texts")
            if isinstance(sink, ParquetSink) and sink.texts and not quiet:
                told = ", ".join(sink.texts)
                remarks().print(
                    f"kept as text, since values are of several types: {told}", markup=False
                )
            try:
                for number, chunk in enumerate(itertools.chain([first], chunks)):
                    if number < len(journal.finished):
                        journal.check(number, chunk.digest)
                        meter.skip(source.fraction)
                        continue
                    vectors, tokens = _vectors(encoder, task, chunk)
                    journal.append(sink.pack(chunk, vectors), chunk.digest, len(chunk.texts))
                    meter.add(len(chunk.texts), tokens, source.fraction)
                journal.check_end(number + 1)
                count = journal.count
                journal.publish(sink.close(journal.spool, count))
            except KeyboardInterrupt:
                remarks().print(f"interrupted. {journal.kept}", markup=False)
                raise typer.Exit(130) from None
            except (OSError, ValueError) as error:
                error.add_note(journal.kept)
                raise
    if not quiet:
        _summary(output, count, nothing, meter)


def _settle(journal: Journal, encoder: Encoder, task: Task) -> Task:
    """Fix the size of a pass, which may depend on free memory: it decides the last bits."""
    saved = (journal.settings or {}).get("batch tokens")
    tokens = task.options["max_batch_tokens"] or saved or encoder.scheduler.runner.budget
    return replace(task, options={**task.options, "max_batch_tokens": tokens})


def _settings(encoder: Encoder, task: Task, source: Source, output: Path) -> dict[str, Any]:
    """Everything besides the input that decides the bytes of the output."""
    import torch

    from ... import __version__

    options = task.options
    return {
        "version": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": encoder.device.type,
        "packing": encoder.packing,
        "quantization": task.quantization,
        "model and instruction": encoder.fingerprint(task.named, task.instruction),
        "role": task.named,
        "precision": options["precision"],
        "ranges": _ranges(encoder, options),
        "dimensions": options["truncate_dim"],
        "normalize": options["normalize"],
        "max length": options["max_length"],
        "batch tokens": options["max_batch_tokens"],
        "chunk": source.size,
        "column": source.column,
        "input format": source.form,
        "encoding": source.encoding,
        "output format": output.suffix.lower(),
    }


def _ranges(encoder: Encoder, options: dict[str, Any]) -> str | None:
    """A hash of the ranges of int8 and uint8."""
    if options["precision"] not in NEEDS_RANGES:
        return None
    wanted = options["normalize"]
    normalize = encoder.recipe.normalize if wanted is None else wanted
    ranges = encoder.ranges_of(options["truncate_dim"] or encoder.dimension, normalize)
    return hashlib.sha256(ranges.tobytes()).hexdigest()[:16]


def _vectors(encoder: Encoder, task: Task, chunk: Chunk) -> tuple[NDArray[Any], int]:
    """Vectors of a chunk, and its tokens: the same bits whatever chunks this process had before."""
    encoder.scheduler.runner.forget()
    prepared = encoder.prepare(chunk.texts, task.role, task.instruction, **task.options)
    return prepared.run(), sum(prepared.tokens)


def _summary(output: Path, count: int, like: NDArray[Any], meter: Meter) -> None:
    """One line about the output, with the rates if this run did any of it."""
    size = decimal(output.stat().st_size)
    words = f"{output}: {count:,} vectors of {like.shape[1]:,} {like.dtype.name}, {size}"
    if meter.count:
        words += f"; {meter.count:,} texts in {meter.seconds:,.1f} s, {meter.rates()}"
    remarks().print(words, markup=False)
