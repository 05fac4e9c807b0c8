"""One comparison: load the contenders, compare their vectors, then time them in turns."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from . import measure
from .comparisons import Comparison
from .peers import Contender, Texts, Vectors
from .report import Row, Run, line
from .work import GemmPeak, counted_tokens, flops

LOWEST_COSINE = {"float32": 0.99999, "bfloat16": 0.999}
_CHECKED = 512  # texts whose vectors are compared where one call lasts minutes


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a quiet machine is waited for.

    Attributes:
        repeats: Clean samples wanted of each contender.
        longest_wait: Seconds before each of them.
    """

    repeats: int
    longest_wait: float = measure.LONGEST_WAIT


@dataclass(frozen=True, slots=True)
class Checked:
    """What the first run of a contender showed.

    Attributes:
        cosine: The lowest with the first contender's vectors.
        tokens: Computed in the first layer; 0 where that is not counted.
        seconds: How long it took, warming up included.
    """

    cosine: float
    tokens: int
    seconds: float


class WrongVectors(Exception):
    """A contender's vectors are not those of the first one: nothing is timed."""


def attempt(label: str, run: Run, compared: Callable[[], list[Row]]) -> None:
    """Add the rows of a comparison to a run; what fails is named there and stops nothing else."""
    print(f"{time.strftime('%H:%M:%S')} {label}", flush=True)
    try:
        rows = compared()
    except Exception as error:
        traceback.print_exc()
        run.failures.append(f"{label}: {type(error).__name__}: {error}")
    else:
        run.rows.extend(rows)
        print(*map(line, rows), sep="\n", flush=True)


def compare(comparison: Comparison, peak: GemmPeak, patience: Patience) -> list[Row]:
    """Load the contenders, compare their vectors, time them in turns.

    Raises:
        WrongVectors: they do not compute the same.
    """
    texts = comparison.texts()
    contenders = [load(comparison.setting) for load in comparison.contenders]
    sample = texts[:_CHECKED] if comparison.once else texts
    checked = check(contenders, sample, comparison.setting.dtype)
    tasks = {
        contender.name: measure.Task(
            partial(contender.encode, texts), checked[contender.name].seconds, _cpu_of(contender)
        )
        for contender in contenders
    }
    peak.update()
    timings = measure.interleave(
        tasks,
        1 if comparison.once else patience.repeats,
        attempts=1 if comparison.once else None,
        longest_wait=patience.longest_wait,
    )
    peak.update()
    lengths = _lengths(comparison, contenders[0], texts)
    computed = sum(_lengths(comparison, contenders[0], sample))
    return [
        _row(
            comparison,
            contender.name,
            lengths,
            timings[contender.name],
            timings[contender.against or contenders[0].name],
            checked[contender.name],
            checked[contender.name].tokens / computed or None,
        )
        for contender in contenders
    ]


def check(contenders: list[Contender], texts: Texts, dtype: str | None) -> dict[str, Checked]:
    """Run each contender once; this warms it up, too.

    Returns:
        What was found, by name.

    Raises:
        WrongVectors: a cosine is lower than the dtype allows.
    """
    limit = LOWEST_COSINE[dtype or "bfloat16"]
    first: Vectors | None = None
    found = {}
    for contender in contenders:
        start = time.perf_counter()
        with counted_tokens(contender.backbone) as seen:
            vectors = contender.encode(texts)
        seconds = time.perf_counter() - start
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        first = vectors if first is None else first
        if vectors.shape != first.shape:
            raise WrongVectors(f"{contender.name} gives {vectors.shape}, not {first.shape}")
        cosine = float((vectors * first).sum(1).min())
        if not cosine >= limit:
            raise WrongVectors(
                f"{contender.name} and {contenders[0].name} differ: lowest cosine {cosine:.6f}, "
                f"needed {limit}"
            )
        found[contender.name] = Checked(cosine, sum(seen), seconds)
    return found


def _row(
    comparison: Comparison,
    contender: str,
    lengths: list[int],
    timing: measure.Timing,
    own: measure.Timing,
    checked: Checked,
    computed: float | None,
) -> Row:
    setting, goal = comparison.setting, comparison.goal
    wanted = contender in goal.peers
    work = flops(setting.shape, lengths, causal=setting.layout.recipe.causal)
    return Row(
        comparison=comparison.name,
        shape=setting.shape.name,
        layout=setting.layout.name,
        dtype=setting.dtype or "default",
        contender=contender,
        texts=len(lengths),
        tokens=sum(lengths),
        timing=timing,
        ratio=timing.seconds / own.seconds,
        clean=min(len(timing.clean), len(own.clean)),
        must=goal.must if wanted else None,
        aim=goal.aim if wanted else None,
        flops_per_second=work / timing.seconds,
        computed=computed,
        cosine=checked.cosine,
    )


def _lengths(comparison: Comparison, first: Contender, texts: Texts) -> list[int]:
    """Real tokens of every row that is embedded."""
    assert first.encoder is not None
    roles = comparison.roles or (comparison.setting.role,)
    return [len(ids) for role in roles for ids in first.encoder.tokenize(texts, role)]


def _cpu_of(contender: Contender) -> measure.Clock:
    """CPU seconds of this process and of the contender's own."""
    other = contender.cpu
    return time.process_time if other is None else lambda: time.process_time() + other()
