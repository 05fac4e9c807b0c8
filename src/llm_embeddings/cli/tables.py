"""Scores as `evaluate` and `passkey` print them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Column, Table

from .console import output, remarks

if TYPE_CHECKING:
    from ..evaluation.mteb.run import TaskScore
    from ..evaluation.results import Result
    from ..evaluation.scores import Score

_WIDE = 200


def show(results: Sequence[Result], scores: Sequence[TaskScore], *, as_json: bool) -> None:
    """Print the scores of sets and of MTEB's tasks, as a table or as JSON."""
    if as_json:
        whole = [*map(asdict, results), *map(asdict, scores)]
        output().print_json(json.dumps(whole))
        return
    if results:
        _print(_own_table(results))
    if scores:
        table = _table("task", "type", "metric", Column("score", justify="right"))
        for score in scores:
            table.add_row(escape(score.name), score.kind, score.metric, f"{score.value:.3f}")
        _print(table)


def _own_table(results: Sequence[Result]) -> Table:
    """The table of the scores of sets of one's own, with their intervals and BM25's scores."""
    lexical = any(result.bm25 for result in results)
    names = ("score", "95% interval", *(["BM25"] if lexical else []), "of")
    right = [Column(name, justify="right") for name in names]
    table = _table("set", "type", "metric", *right)
    for result in results:
        for number, (metric, score) in enumerate(result.scores.items()):
            named = ("", "") if number else (escape(result.name), result.kind)
            cells = [f"{score.value:.3f}", f"{score.low:.3f}-{score.high:.3f}"]
            if lexical:
                cells.append(f"{result.bm25[metric].value:.3f}" if result.bm25 else "")
            table.add_row(*named, metric, *cells, f"{score.count:,}")
    return table


def show_lengths(found: Mapping[int, Score], *, as_json: bool) -> None:
    """Print passkey scores by length, as a table or as JSON."""
    if as_json:
        scores = {str(length): asdict(score) for length, score in found.items()}
        output().print_json(json.dumps(scores))
        return
    right = [Column(name, justify="right") for name in ("tokens", "found", "95% interval")]
    table = _table(*right)
    for length, score in found.items():
        interval = f"{score.low:.2f}-{score.high:.2f}"
        table.add_row(f"{length:,}", f"{score.value:.2f}", interval)
    _print(table)


def show_figures(model: str) -> None:
    """Print the published scores of a model.

    Raises:
        ValueError: this package knows none.
    """
    from ..evaluation.mteb.published import figures

    table = _table("task", Column("published", justify="right"), "source")
    for figure in figures(known(model)).values():
        table.add_row(figure.task, figure.printed, figure.source)
    _print(table)


def show_comparison(model: str, scores: Sequence[TaskScore]) -> None:
    """Print published scores beside one's own, in points of 100.

    Raises:
        ValueError: this package knows none of the model.
    """
    from ..evaluation.mteb.published import compare

    names = ("ours", "published", "difference", "band")
    right = [Column(name, justify="right") for name in names]
    table = _table("task", *right, "", "source")
    found = compare(known(model), {s.name: s.english for s in scores if s.english is not None})
    for each in found:
        figure = each.figure
        table.add_row(
            figure.task,
            f"{each.ours:.2f}",
            figure.printed,
            f"{each.difference:+.2f}",
            f"{figure.band:.2f}",
            "in band" if each.in_band else "[red]out of band[/]",
            figure.source,
        )
    if found:
        _print(table)
    else:
        remarks().print("none of these tasks has a published figure", markup=False)


def known(model: str) -> str:
    """The name, in the right case, of a model that has published scores.

    Raises:
        ValueError: this package knows none of it.
    """
    from ..evaluation.mteb.published import with_figures

    for name in with_figures():
        if name.lower() == model.lower():
            return name
    raise ValueError(
        f"{model} has no published figures here; there are some of {', '.join(with_figures())}. "
        "A copy under another name needs --recipe with the listed one"
    )


def _table(*columns: Column | str) -> Table:
    """A table without lines; columns of numbers are not wrapped."""
    named = [Column(each) if isinstance(each, str) else each for each in columns]
    for column in named:
        column.no_wrap = column.justify == "right"
    return Table(*named, box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _print(table: Table) -> None:
    """Print a table, in a pipe at its full width."""
    console = output()
    if not console.is_terminal:
        console.width = _WIDE
    console.print(table)
