"""`llm-embeddings ask`: a question answered from files of your own, with its sources."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..checkpoint.options import LoadOptions
from .console import ModelOption, load_encoder, output, remarks
from .indexing import (
    Columns,
    Directory,
    Glob,
    Megabytes,
    ModeOption,
    QueryInstruction,
    Rebuild,
    find_files,
    open_index,
    report,
    searched_paths,
    update_index,
)
from .loading import with_load_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..encoder import Encoder
    from ..generation import Generator
    from ..searching.hits import Found

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_READER_PANEL = "Answer"

_Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILES", help="Files and directories; the current one if left out."),
]
_Question = Annotated[str, typer.Argument(metavar="QUESTION", help="In your words.")]
_Top = Annotated[
    int, typer.Option(min=1, help="Passages to answer from.", rich_help_panel=_READER_PANEL)
]
_Cache = Annotated[
    Literal["none", "query", "doc", "doc-query", "query-doc"],
    typer.Option(
        help="What is kept of passages and question, so that it is not read again.",
        rich_help_panel=_READER_PANEL,
    ),
]
_CacheRule = Annotated[
    Literal["exact", "paper"],
    typer.Option(
        help="exact: the same answers as without; paper: GritLM's way, which changes them.",
        rich_help_panel=_READER_PANEL,
    ),
]
_CacheSize = Annotated[
    float,
    typer.Option(
        min=0.001, help="Gigabytes the cache may have on disk.", rich_help_panel=_READER_PANEL
    ),
]
_MaxTokens = Annotated[
    int, typer.Option(min=1, help="Longest answer, in tokens.", rich_help_panel=_READER_PANEL)
]


@with_load_options()
def ask(
    paths: _Paths = None,
    question: _Question = "",
    top: _Top = 3,
    cache: _Cache = "none",
    rule: _CacheRule = "exact",
    cache_size: _CacheSize = 2.0,
    max_tokens: _MaxTokens = 256,
    mode: ModeOption = "hybrid",
    glob: Glob = None,
    column: Columns = None,
    model: ModelOption = None,
    instruction: QueryInstruction = None,
    index: Directory = None,
    rebuild: Rebuild = False,
    max_file_size: Megabytes = 20,
    *,
    load: LoadOptions,
) -> None:
    """Ask your own files: finds passages as `search` does, and answers from them.

    One model does both, so it must be one that embeds and generates. The index is that of `search`.

    Example: llm-embeddings ask notes "how do I restore a backup" --model GritLM/GritLM-7B
    """
    from ..rag import Reader, StateStore
    from ..searching.hits import Query

    paths, told = searched_paths(paths or [], question), remarks()
    encoder = load_encoder(model, load)
    generator = _generator(encoder)
    directory, found = find_files(paths, index, glob or (), max_file_size, told)
    store = None
    if cache != "none":
        store = StateStore(directory / "states", max_bytes=round(cache_size * 1e9))
    reader = Reader(generator, mode=cache, rule=rule, states=store)
    vector = encoder.encode_query(question, instruction, normalize=True)
    try:
        with open_index(directory, encoder, model, rebuild) as opened:
            changes = update_index(opened, found, encoder, told, column or ())
            report(changes, directory, told)
            hits, _ = opened.best(Query(question, vector, mode), top, changes.files)
        if not hits:
            told.print("nothing found: there is no text to answer from")
            raise typer.Exit(1)
        passages = [hit.chunk.passage for hit in hits]
        _show(reader.stream(question, passages, max_new_tokens=max_tokens))
    except KeyboardInterrupt:
        told.print("interrupted: what is finished is kept")
        raise typer.Exit(130) from None
    _cite(hits, {file.path: file.shown for file in found.files}, question)


def _generator(encoder: Encoder) -> Generator:
    """The generator of a model, made before any file is read.

    Raises:
        ValueError: the model cannot generate.
    """
    from ..generation import Generator

    with remarks().status("reading the language model head"):
        return Generator(encoder)


def _show(pieces: Iterable[str]) -> None:
    """Write the pieces of an answer as they come, without what disturbs a terminal."""
    for piece in pieces:
        sys.stdout.write(_CONTROL.sub("\ufffd", piece))
        sys.stdout.flush()
    sys.stdout.write("\n")


def _cite(hits: Iterable[Found], names: dict[str, str], question: str) -> None:
    """List the passages that the answer is based on, the nearest first, by the names of files."""
    from rich.text import Text

    from ..searching.excerpts import pattern, printable
    from ..searching.lines import place_of

    console = output()
    console.print()
    for number, hit in enumerate(hits, 1):
        place = place_of(hit, pattern(question)).after(printable(names[hit.paths[0]]))
        heading = f"  {printable(hit.chunk.heading)}" if hit.chunk.heading else ""
        console.print(Text.assemble(f"[{number}] ", (place, "cyan"), (heading, "dim")))
