"""MTEB's tasks found by name and run by mteb, which stores results in its own format."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .model import import_mteb, mteb_encoder

if TYPE_CHECKING:
    from ...encoder import Encoder

_ENGLISH = ("en", "en-en", "default")


@dataclass(frozen=True, slots=True)
class TaskScore:
    """The main score of a task.

    Attributes:
        name: MTEB's name of the task.
        kind: MTEB's type of the task.
        metric: Which metric is the main one.
        value: The main score, mean over the splits and languages that were run.
        english: The main score on English (or on the only language), as published tables have it;
            None = no English was run.
    """

    name: str
    kind: str
    metric: str
    value: float
    english: float | None


def find_tasks(names: Sequence[str], *, languages: Sequence[str] | None = None) -> list[Any]:
    """MTEB's tasks of some names.

    Args:
        names: Tasks, such as "NFCorpus", or benchmarks, such as "MTEB(eng, v2)", which stand for
            all their tasks.
        languages: ISO 639-3 codes of the languages to run of tasks in many languages; None = all.
            The tasks of benchmarks keep theirs.

    Raises:
        ImportError: mteb is not installed.
        ValueError: a name that mteb does not know; the nearest ones are named.
    """
    mteb = import_mteb()
    tasks = {task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)}
    benchmarks = {benchmark.name for benchmark in mteb.get_benchmarks()}
    found: list[Any] = []
    for name in names:
        if name in tasks:
            only = languages is not None
            task = mteb.get_task(name, languages=languages, exclusive_language_filter=only)
            found.append(task)
        elif name in benchmarks:
            found += mteb.get_benchmark(name).tasks
        else:
            near = difflib.get_close_matches(name, [*tasks, *benchmarks], n=3)
            hint = f"nearest: {', '.join(near)}" if near else "`mteb available-tasks` lists all"
            raise ValueError(f"{name!r} is neither a file nor a task or benchmark of MTEB; {hint}")
    return found


def run_tasks(
    encoder: Encoder,
    tasks: Sequence[Any],
    *,
    output: Path | None = None,
    instructions: Mapping[str, str] | None = None,
    max_length: int | None = None,
    show_progress: bool = False,
) -> Iterator[TaskScore]:
    """Run tasks one by one; a task whose result is in `output` is not run again.

    Args:
        encoder: Makes the vectors.
        tasks: From `find_tasks` or `local_task`.
        output: Directory of mteb's result cache, `results/<model>/<revision>/<task>.json`; None =
            results are not stored.
        instructions: As in `mteb_encoder`.
        max_length: As in `mteb_encoder`.
        show_progress: Show progress bars.

    Yields:
        The score of each task.

    Raises:
        ImportError: mteb is not installed.
        OSError: a data set cannot be had.
    """
    mteb = import_mteb()
    model = mteb_encoder(encoder, instructions=instructions, max_length=max_length)
    cache = None if output is None else mteb.ResultCache(output)
    for task in tasks:
        done = mteb.evaluate(
            model,
            task,
            cache=cache,
            co2_tracker=False,
            overwrite_strategy=_strategy(cache, model, task),
            encode_kwargs={"batch_size": 256, "show_progress_bar": show_progress},
            show_progress_bar=show_progress,
        )
        for result in done.task_results:
            yield _main_score(result, task)


def _strategy(cache: Any, model: Any, task: Any) -> str:
    """Mteb's overwrite strategy: a stored result counts unless it is of other data.

    mteb itself would take it.
    """
    known = cache and cache.load_task_result(task.metadata.name, model.mteb_model_meta)
    other = known and known.dataset_revision != task.metadata.revision
    return "always" if other else "only-missing"


def _main_score(result: Any, task: Any) -> TaskScore:
    """The main score in a result of mteb."""
    parts = [part for split in result.scores.values() for part in split]
    counted = result.scores.get("test", parts)  # published scores are of the test split
    english = [part["main_score"] for part in counted if part["hf_subset"] in _ENGLISH]
    return TaskScore(
        result.task_name,
        task.metadata.type,
        task.metadata.main_score,
        _mean([part["main_score"] for part in parts]),
        _mean(english) if english else None,
    )


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))
