"""Results of the experiment -> raw numbers, plots, and the tables in its document."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiment_data import LANGUAGE, SETS
from experiment_runs import Run, experiments
from experiment_sizes import Size

Results = Mapping[str, list[dict[str, Any]]]
Runs = tuple[Run, ...]

STS = "stsb_en_dev/spearman"
NDCG = tuple(f"{name}/ndcg@10" for name in SETS)
PERPLEXITY = tuple(f"{name}/perplexity" for name in LANGUAGE)
RETRIEVAL = "mean nDCG@10"
TITLES = {
    STS: "STS-B",
    **dict(zip(NDCG, ("dbpedia", "cranfield", "xquad"), strict=True)),
    RETRIEVAL: "their mean",
    **dict(zip(PERPLEXITY, ("WikiText-2", "held out"), strict=True)),
}
# What is claimed to help -> without it, all else equal.
PAIRS = {
    "llm2vec": (
        ("both-ways", "causal"),
        ("mntp", "both-ways"),
        ("mntp", "causal"),
        ("simcse", "mntp"),
        ("sup-mntp", "sup"),
        ("sup-mntp", "sup-causal"),
        ("sup-domain", "sup-causal"),
        ("sup-mntp", "sup-domain"),
        ("sup-simcse", "sup-mntp"),
    ),
    "llara": (("llara", "llara-plain"), ("llara", "last"), ("last-domain", "last")),
    "grit": (("grit-both", "grit-embedding"), ("grit-both", "grit-generation")),
    "e5": (
        ("e5-instructed", "e5"),
        ("e5-mean", "e5"),
        ("e5-rank4", "e5"),
        ("e5-rank64", "e5"),
    ),
}


def report(size: Size, results: Path, output: Path, document: Path) -> None:
    """Write `output`/*.json and *.png, and the tables of `document` between their marks."""
    output.mkdir(parents=True, exist_ok=True)
    found, made = read(results), experiments(size)
    for name, runs in made.items():
        rows = [row for run in runs for row in found.get(run.name, [])]
        text = ",\n".join(json.dumps(row) for row in rows)
        (output / f"{name}.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")
    plots(made, found, output)
    if document.exists():
        text = document.read_text(encoding="utf-8")
        for name, runs in made.items():
            metrics = metrics_of(size, runs)
            done = tuple(run for run in runs if run.name in found)
            text = filled(text, f"{name} scores", table(done, metrics, found))
            text = filled(text, f"{name} differences", differences(name, done, metrics, found))
            text = filled(text, f"{name} left", left(runs, found))
        document.write_text(text, encoding="utf-8")


def read(results: Path) -> Results:
    """Results by the name of their run, each with the mean over the retrieval sets."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(results.glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        each = [row["scores"][name] for name in NDCG if name in row["scores"]]
        row["scores"][RETRIEVAL] = round(statistics.fmean(each), 5)
        found.setdefault(row["run"], []).append(row)
    return found


def filled(text: str, mark: str, content: str) -> str:
    """The text with what stands between two comments replaced."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n\n{content}\n\n{end}", text)


def scores(rows: list[dict[str, Any]], metric: str) -> dict[int, float]:
    """A metric by seed, where it was measured."""
    return {row["seed"]: row["scores"][metric] for row in rows if metric in row["scores"]}


def cell(values: list[float], metric: str, *, sign: str = "") -> str:
    """Mean, and standard deviation over the seeds where there are several."""
    if not values:
        return ""
    digits = 1 if metric in PERPLEXITY else 3
    mean = f"{statistics.fmean(values):{sign}.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def metrics_of(size: Size, runs: Runs) -> tuple[str, ...]:
    """The columns of an experiment's tables."""
    language = any(run.language for run in runs)
    measured = [f"{name}/ndcg@10" for name in size.sets]
    return (STS, *measured, RETRIEVAL, *(PERPLEXITY if language else ()))


def lines(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; nothing, where it would be empty."""
    if not rows:
        return ""
    bar = "|---" * len(head) + "|"
    return "\n".join([f"| {' | '.join(head)} |", bar, *(f"| {' | '.join(row)} |" for row in rows)])


def left(runs: Runs, found: Results) -> str:
    """Which runs have no result."""
    titles = [f"*{run.title}*" for run in runs if run.name not in found]
    return f"Not run yet: {', '.join(titles)}." if titles else ""


def table(runs: Runs, metrics: tuple[str, ...], found: Results) -> str:
    """Mean and spread of every score of an experiment's runs."""
    head = ("run", "seeds", *(TITLES[metric] for metric in metrics))
    rows = []
    for run in runs:
        mine = found.get(run.name, [])
        cells = (cell(list(scores(mine, metric).values()), metric) for metric in metrics)
        rows.append((run.title, str(len(mine)) if run.train else "-", *cells))
    return lines(head, rows)


def differences(name: str, runs: Runs, metrics: tuple[str, ...], found: Results) -> str:
    """What a step changes, seed by seed: mean, spread, and seeds in which it is above 0."""
    titles = {run.name: run.title for run in runs}
    once = {run.name for run in runs if run.train is None}
    pairs = [pair for pair in PAIRS[name] if titles.keys() >= set(pair)]
    measured = [
        metric
        for metric in metrics
        if metric not in NDCG and any(changed(found, *pair, metric, once) for pair in pairs)
    ]
    rows = []
    for with_it, without in pairs:
        cells = []
        for metric in measured:
            changes = changed(found, with_it, without, metric, once)
            count = f" ({sum(change > 0 for change in changes)} of {len(changes)})"
            rises = count if len(changes) > 1 else ""
            cells.append(cell(changes, metric, sign="+") + rises if changes else "")
        rows.append((f"*{titles[with_it]}* against *{titles[without]}*", *cells))
    named = {**TITLES, RETRIEVAL: "mean nDCG@10"}
    return lines(("what changes", *(named[metric] for metric in measured)), rows)


def changed(found: Results, with_it: str, without: str, metric: str, once: set[str]) -> list[float]:
    """Differences of two runs by seed; those in `once` have no seed and are the same for all."""
    first, second = (scores(found.get(run, []), metric) for run in (with_it, without))
    if not first or not second:
        return []
    if with_it in once:
        first = dict.fromkeys(second, next(iter(first.values())))
    if without in once:
        second = dict.fromkeys(first, next(iter(second.values())))
    return [first[seed] - second[seed] for seed in first if seed in second]


def plots(made: Mapping[str, Runs], found: Results, output: Path) -> None:
    """A plot each of LLM2Vec's steps, E5's variants and GRIT's two sides."""
    from matplotlib import pyplot

    drawn = {name: tuple(run for run in runs if run.name in found) for name, runs in made.items()}
    for name in filter(drawn.get, ("llm2vec", "e5")):
        figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
        for panel, metric in zip(axes, (STS, RETRIEVAL), strict=True):
            bars(panel, drawn[name], found, metric)
        axes[0].invert_yaxis()
        figure.savefig(output / f"{name}.png", dpi=90)
        pyplot.close(figure)
    if not drawn["grit"]:
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for panel, metric in zip(axes, (STS, RETRIEVAL), strict=True):
        sides(panel, drawn["grit"], found, metric)
    axes[1].legend(fontsize=8)
    figure.savefig(output / "grit.png", dpi=90)
    pyplot.close(figure)


def bars(panel: Any, runs: Runs, found: Results, metric: str) -> None:
    """A bar for the mean of each run, a dot for each seed."""
    for place, run in enumerate(runs):
        values = list(scores(found.get(run.name, []), metric).values())
        if values:
            panel.barh(place, statistics.fmean(values), color="#9db8d9")
            panel.plot(values, [place] * len(values), "o", color="#1f3a5f", markersize=4)
    panel.set_yticks(range(len(runs)), [run.title for run in runs])
    panel.set_xlabel(_axis(metric))


def sides(panel: Any, runs: Runs, found: Results, metric: str) -> None:
    """Embedding against language modelling: best is up and to the left."""
    from matplotlib.ticker import LogLocator, NullLocator

    for run in runs:
        rows = found.get(run.name, [])
        language = list(scores(rows, PERPLEXITY[1]).values())
        panel.plot(language, list(scores(rows, metric).values()), "o", label=run.title)
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("perplexity on held-out documents")
    panel.set_ylabel(_axis(metric))


def _axis(metric: str) -> str:
    return "STS-B dev, Spearman" if metric == STS else "nDCG@10, mean of the sets"
