"""MTEB's tasks by name, run by mteb, with the results in its own format."""

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
        name: MTEB's.
        kind: Its type.
        metric: Which score is the main one.
        value: Mean over splits and languages that were run.
        english: That of the English part alone, or of a task in one language; published tables
            have these. None if no English was run.
    """

    name: str
    kind: str
    metric: str
    value: float
    english: float | None


def find_tasks(names: Sequence[str], *, languages: Sequence[str] | None = None) -> list[Any]:
    """MTEB's tasks of these names; the name of a benchmark stands for all of its tasks.

    Args:
        names: Such as "NFCorpus" or "MTEB(eng, v2)".
        languages: ISO 639-3 codes; of tasks in many languages only these are run. None = all.
            Benchmarks choose for themselves.

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
    """Run tasks one by one, and only those without a result.

    Args:
        encoder: Makes the vectors.
        tasks: From `find_tasks` or `local_task`.
        output: mteb's result cache: `results/<model>/<revision>/<task>.json`; None = none is kept.
        instructions: As in `mteb_encoder`.
        max_length: As in `mteb_encoder`.
        show_progress: Show progress bars.

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
    """Whether a result that is there counts; mteb takes those of other data, too."""
    known = cache and cache.load_task_result(task.metadata.name, model.mteb_model_meta)
    other = known and known.dataset_revision != task.metadata.revision
    return "always" if other else "only-missing"


def _main_score(result: Any, task: Any) -> TaskScore:
    parts = [part for split in result.scores.values() for part in split]
    counted = result.scores.get("test", parts)  # published: the test, where there is one
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
