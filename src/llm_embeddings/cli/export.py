"""`llm-embeddings export`: a model back on disk, for this package or for others."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .console import AdapterOption, DtypeOption, ModelOption, RecipeOption, load, output


def export(
    directory: Annotated[Path, typer.Argument(help="Where to write; must be new or empty.")],
    model: ModelOption = None,
    recipe: RecipeOption = None,
    adapter: AdapterOption = None,
    dtype: DtypeOption = "auto",
    sentence_transformers: Annotated[
        bool,
        typer.Option(
            "--sentence-transformers",
            help="For plain sentence-transformers, without any code of this package.",
        ),
    ] = False,
) -> None:
    """Write a model with its adapters merged and its recipe beside the weights.

    Example: llm-embeddings export ./e5 --model intfloat/e5-mistral-7b-instruct
    """
    _check_free(directory)
    encoder = load(model, recipe=recipe, adapters=adapter, device="cpu", dtype=dtype)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as work:
        unfinished = Path(work) / "model"
        if sentence_transformers:
            encoder.export_sentence_transformers(unfinished)
            use = f"SentenceTransformer({str(directory)!r})"
        else:
            encoder.save_pretrained(unfinished)
            use = f"Encoder.from_pretrained({str(directory)!r})"
        size = sum(path.stat().st_size for path in unfinished.rglob("*"))
        if directory.exists():
            directory.rmdir()
        shutil.move(unfinished, directory)
    output().print(f"{directory}: {size / 1e6:,.1f} MB. Load it with {use}", markup=False)


def _check_free(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists() or directory.is_symlink():
        raise FileExistsError(
            f"{directory} exists and is kept: delete it, or name another directory"
        )
