"""What `search` and `ask` share: options, and the index, brought up to date and reported on."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ..encoder import Encoder
    from ..searching.index import Index
    from ..searching.sources import File, Scan, Skipped
    from ..searching.updating import Changes

_NAMED = 3
_SAMPLED = 16  # of so many passages one says how many tokens all have

Glob = Annotated[
    list[str] | None, typer.Option(help="Read files of such names only, as '*.py'. Repeatable.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="Read these fields of JSONL and CSV only. Repeatable."),
]
ModeOption = Annotated[
    Literal["hybrid", "vector", "words"],
    typer.Option("--mode", help="What ranks: meaning (vector), words (BM25), or both."),
]
QueryInstruction = Annotated[
    str | None, typer.Option(help="Goes before the query, as the model was trained; '' = nothing.")
]
Directory = Annotated[
    Path | None, typer.Option(help="Where the index lies; in your cache if left out.")
]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Make the index anew.")]
Megabytes = Annotated[float, typer.Option(min=0, help="Skip files of more megabytes.")]


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


def find_files(
    paths: list[Path],
    index: Path | None,
    globs: Sequence[str],
    megabytes: float,
    told: Console,
) -> tuple[Path, Scan]:
    """Where the index lies, which is made if need be, and the files to search.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: the place of the index is taken.
    """
    from ..searching.places import claim, default_directory
    from ..searching.shelf import take_over
    from ..searching.sources import scan

    directory = index or default_directory(paths)
    found = scan(paths, globs=globs, max_bytes=round(megabytes * 1e6), index=directory)
    if index is None and (before := take_over(directory, paths)) is not None:
        told.print(f"the index of {before} is kept for {paths[0]}", style="dim", markup=False)
    claim(directory)
    return directory, found


def open_index(directory: Path, encoder: Encoder, model: str | None, rebuild: bool) -> Index:
    """Open the index in a directory, or make one."""
    from ..searching.index import Index

    maker = f"{model or 'the bundled model'} (recipe {encoder.recipe.name})"
    return Index(directory, encoder.fingerprint("document"), maker, rebuild=rebuild)


def update_index(
    index: Index, found: Scan, encoder: Encoder, told: Console, columns: Sequence[str] = ()
) -> Changes:
    """Bring the index up to date, and show how far it is where there is work."""
    from ..searching.readers import Reading
    from ..searching.updating import WatchUpdate, changed, update
    from ..storage.progress import Meter

    # pypdf logs every oddity of a file; those that cannot be read are named anyway.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    reading = Reading(tuple(columns))
    work = changed(found, index.files(), reading)
    whole, size = float(sum(file.size for file in work)), 0.0
    if work and not told.is_terminal:
        told.print(f"reading {count(len(work), 'file')}")
    with Meter(told, "passages", show=bool(work)) as meter:

        def encode(texts: list[str]) -> Any:
            return encoder.encode_document(texts, normalize=True)

        def embedded(passages: list[str], more: float) -> None:
            nonlocal size
            size += more
            # As all of them take time that is better spent on embedding.
            rows = encoder.model.rows(passages[::_SAMPLED], "document", None, None)
            tokens = sum(len(row.ids) for row in rows) * len(passages) / max(1, len(rows))
            meter.add(len(passages), round(tokens), min(1.0, size / whole) if whole > 0 else None)

        def spared(less: float) -> None:
            nonlocal whole
            whole -= less

        def skipped(skip: Skipped) -> None:
            _warn(told, f"skipped: {skip.file.shown}: {skip.reason}")

        def note(file: File, text: str) -> None:
            _warn(told, f"note: {file.shown}: {text}")

        watch = WatchUpdate(embedded, spared, skipped, note)
        return update(index, found, encode, watch, reading)


def _warn(told: Console, text: str) -> None:
    from ..searching.excerpts import printable

    told.print(printable(text), style="yellow", markup=False)


def count(number: int, what: str) -> str:
    """A number with what it counts."""
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
        kept = f", {changes.resumed:,} from an interrupted run" if changes.resumed else ""
        dropped = f", {count(changes.dropped, 'vanished file')} dropped" if changes.dropped else ""
        told.print(
            f"{count(changes.read, 'file')} read, {count(changes.embedded, 'passage')} embedded"
            f"{kept}{dropped}; index of {size:,.1f} MB: {directory}",
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
