"""`llm-embeddings search`: files of your own, searched by meaning."""

from __future__ import annotations

import json
import logging
import os
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..checkpoint.options import LoadOptions
from .console import ModelOption, load_encoder, output, remarks
from .loading import with_load_options

if TYPE_CHECKING:
    from rich.console import Console

    from ..encoder import Encoder
    from ..searching.index import Found, Index
    from ..searching.sources import File, Scan, Skipped
    from ..searching.updating import Changes

_LINES = 3
_NAMED = 3

_Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="PATHS", help="Files and directories; the current one if left out."),
]
_Query = Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, in your words.")]
_Top = Annotated[int, typer.Option(min=1, help="Passages to show.")]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
Glob = Annotated[
    list[str] | None, typer.Option(help="Read files of such names only, as '*.py'. Repeatable.")
]
QueryInstruction = Annotated[
    str | None, typer.Option(help="Goes before the query, as the model was trained; '' = nothing.")
]
Directory = Annotated[
    Path | None, typer.Option(help="Where the index lies; in your cache if left out.")
]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Make the index anew.")]
Megabytes = Annotated[float, typer.Option(min=0, help="Skip files of more megabytes.")]


@with_load_options()
def search(
    paths: _Paths = None,
    query: _Query = "",
    top: _Top = 5,
    as_json: _Json = False,
    glob: Glob = None,
    model: ModelOption = None,
    instruction: QueryInstruction = None,
    index: Directory = None,
    rebuild: Rebuild = False,
    max_file_size: Megabytes = 20,
    *,
    load: LoadOptions,
) -> None:
    """Search your own files by meaning: text, Markdown, HTML, PDF and JSONL.

    The first search of a directory embeds its files, the next ones only what is new or changed.
    Hidden files and directories are left out; what cannot be read is named.

    Example: llm-embeddings search notes "how do I restore a backup"
    """
    from ..searching.places import claim, default_directory
    from ..searching.sources import scan

    paths = searched_paths(paths or [], query)
    directory = index or default_directory(paths)
    told, size = remarks(), round(max_file_size * 1e6)
    found = scan(paths, globs=glob or (), max_bytes=size, index=directory)
    claim(directory)
    encoder = load_encoder(model, load)
    vector = encoder.encode_query(query, instruction, normalize=True)
    try:
        with open_index(directory, encoder, model, rebuild) as opened:
            changes = update_index(opened, found, encoder, told)
            report(changes, directory, told)
            hits, compared = opened.best(vector, top, changes.files)
    except KeyboardInterrupt:
        told.print("interrupted: what is finished is kept, the same command goes on from there")
        raise typer.Exit(130) from None
    if not hits:
        told.print("nothing found: there is no text to search")
        raise typer.Exit(1)
    names = {file.path: file.shown for file in found.files}
    text = _as_json(hits, names) if as_json else _as_text(hits, names, query)
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    if not as_json:
        sizes = f"{_count(compared, 'passage')} of {_count(len(changes.files), 'file')}"
        told.print(f"{sizes} compared", style="dim")


def searched_paths(paths: list[Path], query: str) -> list[Path]:
    """The paths to search.

    Raises:
        typer.BadParameter: there is no query.
    """
    if not query.strip():
        raise typer.BadParameter("there is no query: it is the last argument")
    if not paths and os.path.lexists(query):
        raise typer.BadParameter(f"{query!r} is a path: give the query after it")
    return paths or [Path()]


def open_index(directory: Path, encoder: Encoder, model: str | None, rebuild: bool) -> Index:
    """Open the index in a directory, or make one."""
    from ..searching.index import Index

    maker = f"{model or 'the bundled model'} (recipe {encoder.recipe.name})"
    return Index(directory, encoder.fingerprint("document"), maker, rebuild=rebuild)


def update_index(index: Index, found: Scan, encoder: Encoder, told: Console) -> Changes:
    """Bring the index up to date; a progress bar shows where there is work and a terminal."""
    from ..searching.updating import WatchUpdate, changed, update
    from ..storage.progress import bar

    # pypdf logs every oddity of a file; those that cannot be read are named anyway.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    work = changed(found, index.files())
    if work and not told.is_terminal:
        told.print(f"reading {_count(len(work), 'file')}")
    with bar(told, f"reading {_count(len(work), 'file')}", show=bool(work)) as progress:
        task = progress.add_task("", total=sum(file.size for file in work))

        def encode(texts: list[str]) -> Any:
            return encoder.encode_document(texts, normalize=True)

        def done(file: File) -> None:
            progress.advance(task, file.size)

        def skipped(skip: Skipped) -> None:
            _warn(told, f"skipped: {skip.file.shown}: {skip.reason}")

        def note(file: File, text: str) -> None:
            _warn(told, f"note: {file.shown}: {text}")

        return update(index, found, encode, WatchUpdate(done, skipped, note))


def _warn(told: Console, text: str) -> None:
    from ..searching.excerpts import printable

    told.print(printable(text), style="yellow", markup=False)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def report(changes: Changes, directory: Path, told: Console) -> None:
    """Print on standard error what was read, what was left out, and where the index is."""
    from ..searching.excerpts import printable
    from ..searching.places import FILE, SKIPPED

    for line in _reasons(changes.news):
        _warn(told, f"skipped: {line}")
    listed = directory / SKIPPED
    lines = [printable(f"{skip.file.shown}: {skip.reason}") + "\n" for skip in changes.skipped]
    listed.write_text("".join(lines), encoding="utf-8")
    if changes.read or changes.dropped:
        size = (directory / FILE).stat().st_size / 1e6
        dropped = f", {_count(changes.dropped, 'vanished file')} dropped" if changes.dropped else ""
        told.print(
            f"{_count(changes.read, 'file')} read, {_count(changes.embedded, 'passage')} embedded"
            f"{dropped}; index of {size:,.1f} MB: {directory}",
            style="dim",
            markup=False,
        )
    if changes.skipped:
        told.print(f"{len(changes.skipped):,} skipped: {listed}", style="dim", markup=False)


def _reasons(news: list[Skipped]) -> list[str]:
    """A line for each skipped file, but one per suffix for those skipped by their names."""
    lines = [f"{skip.file.shown}: {skip.reason}" for skip in news if not skip.by_name]
    groups = defaultdict(list)
    for skip in news:
        if skip.by_name:
            groups[Path(skip.file.path).suffix.lower()].append(skip.file.shown)
    for suffix, names in sorted(groups.items()):
        shown = names[:_NAMED] + ["..."] * (len(names) > _NAMED)
        lines.append(f"{len(names):,} of {suffix}: {', '.join(shown)} (--glob '*{suffix}')")
    return lines


def _as_json(hits: Iterable[Found], names: dict[str, str]) -> str:
    lines = []
    for rank, hit in enumerate(hits, 1):
        first, *others = (names[path] for path in hit.paths)
        unit = "page" if hit.kind == "pdf" else "line"
        fields = {
            "rank": rank,
            "score": round(hit.score, 4),
            "path": first,
            unit: hit.chunk.first,
            f"last_{unit}": hit.chunk.last,
            "heading": hit.chunk.heading,
            "text": hit.chunk.text,
            "same_in": others,
        }
        lines.append(json.dumps(fields) + "\n")
    return "".join(lines)


def _as_text(hits: Iterable[Found], names: dict[str, str], query: str) -> str:
    from rich.text import Text

    from ..searching.excerpts import excerpt, pattern, printable

    console = output()
    width = max(20, min(console.width, 100) - 4)
    words = pattern(query)
    with console.capture() as written:
        for rank, hit in enumerate(hits, 1):
            first, *others = (printable(names[path]) for path in hit.paths)
            place = f"{first}{' page ' if hit.kind == 'pdf' else ':'}{hit.chunk.first}"
            score = (f"{hit.score:.3f} ", "green")
            title = Text.assemble((f"{rank}. ", "bold"), score, (place, "bold cyan"))
            console.print(title, soft_wrap=True)  # whole, so that a terminal makes it a link
            if hit.chunk.heading:
                heading = textwrap.shorten(printable(hit.chunk.heading), width, placeholder=" ...")
                console.print(Text(f"   {heading}", "magenta"))
            for line in textwrap.wrap(excerpt(hit.chunk.text, words, _LINES * width), width):
                text = Text(f"   {line}")
                if words:
                    text.highlight_regex(words, "bold yellow")
                console.print(text)
            if others:
                console.print(Text(f"   the same in {', '.join(others)}", "dim"))
    return written.get()
