"""`llm-embeddings evaluate`: scores on one's own files and on MTEB's tasks."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..checkpoint.options import LoadOptions
from .console import ModelArgument, load_encoder, remarks
from .loading import with_load_options
from .tables import known, show, show_comparison, show_figures

if TYPE_CHECKING:
    from rich.console import Console

    from ..encoder import Encoder
    from ..evaluation.mteb.run import TaskScore
    from ..evaluation.results import Options, Result
    from ..evaluation.sets import AnySet

_HOW, _MADE = "How", "What is made of it"

_Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--tasks",
        "-t",
        help="A file or directory of yours, or a task or benchmark of MTEB. Repeatable.",
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Directory for the scores; a second run goes on from there.",
        rich_help_panel=_MADE,
    ),
]
_Plot = Annotated[
    Path | None, typer.Option(help="Picture: .png, .svg, .pdf.", rich_help_panel=_MADE)
]
_Json = Annotated[
    bool, typer.Option("--json", help="Print JSON, not a table.", rich_help_panel=_MADE)
]
_Compare = Annotated[
    bool,
    typer.Option(
        "--compare",
        help="Beside the published figures of the model; without --tasks: show them.",
        rich_help_panel=_MADE,
    ),
]
_Instruction = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TASK=TEXT",
        help="Instead of the published one; TASK is a name, or a type such as STS. Repeatable.",
        rich_help_panel=_HOW,
    ),
]
_K = Annotated[
    list[int] | None,
    typer.Option(
        "--k",
        min=1,
        help="Ranks that count in retrieval; nDCG@10, recall@100, MRR@10 if left out. Repeatable.",
        rich_help_panel=_HOW,
    ),
]
_Bm25 = Annotated[
    bool, typer.Option("--bm25/--no-bm25", help="BM25 beside retrieval.", rich_help_panel=_HOW)
]
_MaxLength = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Limit in tokens; the model's for your files, the published one for MTEB's.",
        rich_help_panel=_HOW,
    ),
]
_Language = Annotated[
    list[str] | None,
    typer.Option(
        help="ISO 639-3 code: only this one of MTEB's tasks in many. Repeatable.",
        rich_help_panel=_HOW,
    ),
]
_Resamples = Annotated[
    int, typer.Option(min=0, help="For the 95% intervals; 0 = none.", rich_help_panel=_HOW)
]
_Seed = Annotated[int, typer.Option(help="Of the resamples.", rich_help_panel=_HOW)]


@with_load_options()
def evaluate_command(
    model: ModelArgument = None,
    tasks: _Tasks = None,
    directory: _Output = None,
    instruction: _Instruction = None,
    k: _K = None,
    bm25: _Bm25 = True,
    max_length: _MaxLength = None,
    language: _Language = None,
    resamples: _Resamples = 1000,
    seed: _Seed = 0,
    plot: _Plot = None,
    as_json: _Json = False,
    compare: _Compare = False,
    *,
    load: LoadOptions,
) -> None:
    """Say how good a model is: on files of yours, or on MTEB's tasks.

    Files hold sentence pairs (a, b, score) or texts (text, label); directories are in BEIR's form.
    Texts are clustered, and classified where a file named train lies beside one named test.

    Example: llm-embeddings evaluate --tasks ./my-beir-folder --tasks pairs.jsonl -o scores
    """
    from ..evaluation.measures import CUTS
    from ..evaluation.results import Options

    if not tasks:
        if not compare or model is None:
            raise typer.BadParameter("--tasks missing: a file or directory, or a task of MTEB")
        show_figures(model)
        return
    instructions = _instructions(instruction or [])
    sets, mteb_tasks = _found(tasks, language)
    if plot is not None and not sets:
        raise typer.BadParameter("--plot shows files of yours, and --tasks names none")
    if compare and not mteb_tasks:
        raise typer.BadParameter("--compare is about tasks of MTEB, and --tasks names none")
    encoder = load_encoder(model, load)
    if compare:
        known(encoder.recipe.name)  # before hours of work
    options = Options(
        instructions=instructions,
        cuts=[(metric, cut) for metric in ("ndcg", "recall", "mrr") for cut in k] if k else CUTS,
        resamples=resamples,
        seed=seed,
        bm25=bm25,
        max_length=max_length,
        show_progress=remarks().is_terminal,
    )
    results, scores = _run(encoder, sets, mteb_tasks, options, directory)
    show(results, scores, as_json=as_json)
    if compare:
        show_comparison(encoder.recipe.name, scores)
    if plot is not None:
        _plot(results, plot)


def _instructions(given: Sequence[str]) -> dict[str, str]:
    """Instructions by task, from arguments TASK=TEXT."""
    found = {}
    for each in given:
        task, equals, text = each.partition("=")
        if not equals:
            raise typer.BadParameter(f"--instruction {each!r}: write TASK=TEXT")
        found[task] = text
    return found


def _found(names: Sequence[str], languages: Sequence[str] | None) -> tuple[list[AnySet], list[Any]]:
    """The sets of one's own and the tasks of MTEB among the names."""
    from ..evaluation.mteb.run import find_tasks
    from ..evaluation.sets import read_sets

    paths = [name for name in names if _is_path(name)]
    others = [name for name in names if name not in paths]
    return read_sets(paths), find_tasks(others, languages=languages) if others else []


def _is_path(name: str) -> bool:
    """Whether a name is that of a file; MTEB's names have no slashes and no such endings."""
    return Path(name).exists() or os.sep in name or name.endswith((".jsonl", ".parquet", ".gz"))


def _run(
    encoder: Encoder,
    sets: Sequence[AnySet],
    tasks: Sequence[Any],
    options: Options,
    directory: Path | None,
) -> tuple[list[Result], list[TaskScore]]:
    """Measure all sets and tasks; an error gets a note that says where results are kept."""
    from ..evaluation.mteb.run import run_tasks
    from ..evaluation.results import measured

    told = remarks()
    logging.getLogger("mteb").setLevel(logging.ERROR)  # it warns of the same, too
    results: list[Result] = []
    scores: list[TaskScore] = []
    try:
        with _noted(told):
            for result in measured(encoder, sets, options, output=directory):
                results.append(result)
                told.print(f"{len(results)} of {len(sets)} sets: {result.name}", markup=False)
            for score in run_tasks(
                encoder,
                tasks,
                output=directory,
                instructions=options.instructions,
                max_length=options.max_length,
                show_progress=options.show_progress,
            ):
                scores.append(score)
                told.print(f"{len(scores)} of {len(tasks)} tasks: {score.name}", markup=False)
    except (OSError, ValueError) as error:
        if directory is not None:
            error.add_note(f"What is done is kept in {directory}")
        raise
    except KeyboardInterrupt:
        kept = f": what is done is kept in {directory}" if directory else ""
        told.print(f"interrupted{kept}", markup=False)
        raise typer.Exit(130) from None
    return results, scores


@contextmanager
def _noted(told: Console) -> Iterator[None]:
    """Print warnings about instructions in one line each."""
    from ..evaluation.rules import InstructionWarning

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        told.print(f"note: {message}", markup=False, style="yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("default", InstructionWarning)
        warnings.showwarning = show
        yield


def _plot(results: Sequence[Result], path: Path) -> None:
    from ..evaluation.plots import plot_scores

    plot_scores(results, path)
    remarks().print(f"{path}: the plot", markup=False)
