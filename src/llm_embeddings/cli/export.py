"""`llm-embeddings export`: write a model to disk, for this package or for other engines."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..checkpoint.options import LoadOptions
from ..export.engines import Engine
from .console import ModelOption, load_encoder, output
from .loading import with_load_options

if TYPE_CHECKING:
    from ..encoder import Encoder


# What it writes are whole weights, read on the CPU: nothing is computed.
@with_load_options("device", "devices", "device_map", "attn_implementation", "vector_cache")
def export(
    directory: Annotated[Path, typer.Argument(help="Where to write; must be new or empty.")],
    model: ModelOption = None,
    engine: Annotated[
        Engine | None,
        typer.Option(
            "--for",
            help="For another engine, without any code of this package; what it would get wrong "
            "is refused, what the client has to look after is printed.",
        ),
    ] = None,
    sentence_transformers: Annotated[
        bool, typer.Option("--sentence-transformers", help="--for sentence-transformers.")
    ] = False,
    *,
    load: LoadOptions,
) -> None:
    """Write a model with its adapters merged and its recipe beside the weights.

    With --quantization int8 the weights are written in int8, for this package alone.

    Example: llm-embeddings export ./e5 --model intfloat/e5-mistral-7b-instruct --for vllm
    """
    if sentence_transformers and engine not in (None, "sentence-transformers"):
        raise typer.BadParameter(f"--for {engine} and --sentence-transformers contradict")
    if load.quantization is not None and (sentence_transformers or engine is not None):
        raise typer.BadParameter(
            f"--quantization {load.quantization} is for this package alone: other engines quantise "
            "by themselves"
        )
    _check_free(directory)
    encoder = load_encoder(model, replace(load, device="cpu"))
    if sentence_transformers or engine == "sentence-transformers":
        size = _write(directory, encoder.export_sentence_transformers)
        lines = [f"Load it with SentenceTransformer({str(directory)!r})"]
    elif engine is None:
        size = _write(directory, encoder.save_pretrained)
        lines = [f"Load it with Encoder.from_pretrained({str(directory)!r})"]
    else:
        size, lines = _write_for(directory, encoder, engine)
    output().print(f"{directory}: {size / 1e6:,.1f} MB. {lines[0]}", markup=False)
    for line in lines[1:]:
        output().print(line, markup=False)


def _write_for(directory: Path, encoder: Encoder, engine: Engine) -> tuple[int, list[str]]:
    """Write a model for another engine; returns its size in bytes, and lines to print."""
    from ..export.engines import SERVERS, Difference
    from ..export.modules import export_for
    from ..export.note import NAME, command

    differences: list[Difference] = []
    size = _write(
        directory,
        lambda path: differences.extend(export_for(encoder.model, path, engine, encoder.ranges)),
    )
    name = SERVERS[engine].name
    lines = [f"Start {name} on it with", f"  {command(encoder.model, engine, str(directory))}"]
    if differences:
        lines.append("Its vectors are those of this package if the client looks after this:")
        lines += [f"  - it {d.what}: {d.remedy}" for d in differences]
    else:
        lines.append("Its vectors are those of this package.")
    lines.append(f"{directory / NAME} has all this and the requests. {name} itself was not run.")
    return size, lines


def _write(directory: Path, write: Callable[[Path], object]) -> int:
    """Write a directory under another name and rename it when whole; returns its size in bytes."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as work:
        unfinished = Path(work) / "model"
        write(unfinished)
        size = sum(path.stat().st_size for path in unfinished.rglob("*"))
        if directory.exists():
            directory.rmdir()
        shutil.move(unfinished, directory)
    return size


def _check_free(directory: Path) -> None:
    """Check that a directory is new or empty.

    Raises:
        FileExistsError: it is not.
    """
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists() or directory.is_symlink():
        raise FileExistsError(
            f"{directory} exists and is kept: delete it, or name another directory"
        )
