"""`llm-embeddings search`: files of your own, searched by meaning and by words."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..checkpoint.options import LoadOptions
from .console import ModelOption, load_encoder, output, remarks
from .hits import as_json, as_text, open_hit, write
from .indexing import (
    Columns,
    Directory,
    Glob,
    Megabytes,
    ModeOption,
    QueryInstruction,
    Rebuild,
    count,
    find_files,
    open_index,
    report,
    searched_paths,
    update_index,
)
from .loading import with_load_options
from .page import Served, serve_page

if TYPE_CHECKING:
    from ..searching.hits import Found

_INDEXES_PANEL, _PAGE_PANEL = "Indexes", "Page"

_Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="PATHS", help="Files and directories; the current one if left out."),
]
_Query = Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, in your words.")]
_Top = Annotated[int, typer.Option(min=1, help="Passages to show.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
_Context = Annotated[
    int | None, typer.Option(min=0, help="Show so many lines around the best one, as they are.")
]
_Open = Annotated[bool, typer.Option("--open", help="Open the first hit in $VISUAL or $EDITOR.")]
_List = Annotated[
    bool,
    typer.Option(
        "--list",
        help="Show the indexes in your cache, and search nothing.",
        rich_help_panel=_INDEXES_PANEL,
    ),
]
_Forget = Annotated[
    bool,
    typer.Option(
        "--forget",
        help="Remove the index of PATHS, and search nothing.",
        rich_help_panel=_INDEXES_PANEL,
    ),
]
_Serve = Annotated[
    bool,
    typer.Option(
        "--serve",
        help="Search PATHS on a page in your browser, instead of one QUERY.",
        rich_help_panel=_PAGE_PANEL,
    ),
]
_Port = Annotated[
    int, typer.Option(min=0, max=65535, help="0 = any free.", rich_help_panel=_PAGE_PANEL)
]


@with_load_options()
def search(
    paths: _Paths = None,
    query: _Query = "",
    top: _Top = 5,
    mode: ModeOption = "hybrid",
    as_lines: _Json = False,
    context: _Context = None,
    opened: _Open = False,
    glob: Glob = None,
    column: Columns = None,
    model: ModelOption = None,
    instruction: QueryInstruction = None,
    index: Directory = None,
    rebuild: Rebuild = False,
    max_file_size: Megabytes = 20,
    listed: _List = False,
    forgotten: _Forget = False,
    served: _Serve = False,
    port: _Port = 8321,
    *,
    load: LoadOptions,
) -> None:
    """Search your own files by meaning and by words: text, Markdown, HTML, PDF, Office and more.

    The first search of a directory embeds its files, the next ones only what is new or changed.
    Hidden files and directories are left out; what cannot be read is named.

    Example: llm-embeddings search notes "how do I restore a backup"
    """
    if listed:
        _list()
        return
    given = [*(paths or []), *([Path(query)] if query else [])]
    if forgotten:
        _forget(given, index)
        return
    from ..searching.hits import Query

    told = remarks()
    paths = given or [Path()] if served else searched_paths(paths or [], query)
    directory, found = find_files(paths, index, glob or (), max_file_size, told)
    encoder = load_encoder(model, load)
    names = {file.path: file.shown for file in found.files}
    vector = encoder.encode_query(query, instruction, normalize=True)
    try:
        with open_index(directory, encoder, model, rebuild) as kept:
            changes = update_index(kept, found, encoder, told, column or ())
            report(changes, directory, told)
            if served:
                page = Served(paths, names, encoder, instruction, mode, port)
                serve_page(kept, changes.files, page)
                return
            hits, compared = kept.best(Query(query, vector, mode), top, changes.files)
    except KeyboardInterrupt:
        told.print("interrupted: what is finished is kept, the same command goes on from there")
        raise typer.Exit(130) from None
    if not hits:
        reason = f"no passage has a word of {query!r}" if compared else "there is no text to search"
        told.print(f"nothing found: {reason}", markup=False)
        raise typer.Exit(1)
    _show(hits, names, query, as_lines, context)
    if not as_lines:
        sizes = f"{count(compared, 'passage')} of {count(len(changes.files), 'file')}"
        told.print(f"{sizes} compared", style="dim")
    if opened:
        open_hit(hits[0], query)


def _show(
    hits: list[Found], names: dict[str, str], query: str, as_lines: bool, context: int | None
) -> None:
    text = as_json(hits, names, query) if as_lines else as_text(hits, names, query, context)
    write(text)


def _list() -> None:
    """Print the indexes of the cache."""
    from ..searching.excerpts import printable
    from ..searching.shelf import Damaged, shelved

    console, found = output(), list(shelved())
    for one in found:
        if isinstance(one, Damaged):
            console.print(f"cannot be read ({one.reason})", style="bold red", markup=False)
            console.print(f"   {one.directory}: --forget --index removes it", markup=False)
            continue
        roots = ", ".join(one.roots) or "not said (made by version 0.1.0)"
        day = time.strftime("%Y-%m-%d", time.localtime(one.used))
        console.print(printable(roots), style="bold cyan", markup=False)
        sizes = f"{count(one.files, 'file')}, {count(one.passages, 'passage')}"
        console.print(f"   {sizes}, {one.size / 1e6:,.1f} MB, {day}, by {one.maker}", markup=False)
        console.print(f"   {one.directory}", style="dim", markup=False)
    if not found:
        remarks().print("there are no indexes in your cache")


def _forget(paths: list[Path], index: Path | None) -> None:
    """Remove the index of paths, or one that is named."""
    from ..searching.places import default_directory
    from ..searching.shelf import forget

    if index is None and not paths:
        raise typer.BadParameter("name the paths whose index is to go, or --index")
    directory = index or default_directory(paths)
    forget(directory)
    remarks().print(f"removed {directory}", markup=False)
