"""`llm-embeddings synthesize`: training data by a language model, filtered, with a report."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import load_encoder, remarks
from .fields import merged, options_of
from .loading import keywords, named, parameters, taken
from .synthesis_options import SynthesizeOptions
from .wording import in_options

if TYPE_CHECKING:
    from rich.console import Console

    from ..checkpoint.options import LoadOptions
    from ..synthesis.calls.generators import ModelOptions
    from ..synthesis.calls.journal import Journal
    from ..synthesis.filters.chain import Filters
    from ..synthesis.grounding import Grounding
    from ..synthesis.run import Plan, Summary

TRAIN = "train"
_BUNDLED = "bundled"
_LOG_SECONDS = 30.0
_PATIENT = 86_400.0  # seconds: a model on this machine may be slow, but it does answer


def synthesize_command() -> Callable[..., None]:
    """The command's function, with a parameter for each field of `SynthesizeOptions`."""

    def synthesize(output: Path, **given: Any) -> None:
        flags = {option.keyword: option.flag for option in options_of(SynthesizeOptions)}
        with in_options(keywords() | flags):
            load = taken(given)
            _synthesize(output, SynthesizeOptions(**merged(SynthesizeOptions, {}, given)), load)

    synthesize.__doc__ = inspect.getdoc(_synthesize)
    place = Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT", help="Directory of the run; the same command goes on with it."
        ),
    ]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    panels = {
        known.name: known.metadata["panel"] for known in dataclasses.fields(SynthesizeOptions)
    }
    options = [option.parameter(panels[option.field]) for option in options_of(SynthesizeOptions)]
    synthesize.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("output", kind, annotation=place),
            *options,
            *parameters(panel="Model of --round-trip"),
        ]
    )
    return synthesize


def _synthesize(output: Path, given: SynthesizeOptions, load: LoadOptions) -> None:
    """Have a language model write training data, or queries for your documents.

    Every answer is kept in OUTPUT at once: a run that was interrupted, or stopped at its budget,
    goes on with the same command. OUTPUT/train is for `train contrastive`, OUTPUT/report.md is to
    be read.

    Example: llm-embeddings synthesize run --model openai:gpt-4.1-mini --documents ./handbook
    """
    from transformers.utils import logging

    from ..synthesis.calls.providers import open_generator
    from ..synthesis.run import generate

    if not given.model:
        raise typer.BadParameter("--model is missing: PROVIDER:NAME, or local:DIRECTORY")
    told = remarks()
    limits, manners, options = _settings(given)
    plan = _plan(output, given, told)
    filters = _filters(given, load)
    logging.disable_progress_bar()
    generator = open_generator(given.model, options)
    try:
        with told.status("") as status:
            summary = generate(
                output,
                plan,
                generator,
                limits=limits,
                manners=manners,
                options=options,
                watch=_Meter(told, status.update, plan.examples),
            )
    except KeyboardInterrupt:
        told.print("interrupted: what is finished is kept, the same command goes on from there")
        raise typer.Exit(130) from None
    _finish(output, summary, filters, told)


def _settings(given: SynthesizeOptions) -> tuple[Any, Any, ModelOptions]:
    """Budget, manners and model options; wrong values raise before anything is read."""
    from ..synthesis.calls.asking import Manners
    from ..synthesis.calls.budget import BudgetLimits
    from ..synthesis.calls.generators import ModelOptions
    from ..synthesis.calls.providers import LOCAL

    limits = BudgetLimits(
        tokens=given.max_tokens,
        money=given.max_cost,
        price_in=given.price_in,
        price_out=given.price_out,
    )
    local = given.model.partition(":")[0] == LOCAL
    manners = Manners(
        concurrency=1 if local else given.concurrency,
        per_minute=given.per_minute,
        timeout=_PATIENT if local else given.timeout,
        retries=given.retries,
    )
    options = ModelOptions(
        base_url=given.base_url,
        temperature=None if given.temperature < 0 else given.temperature,
        top_p=given.top_p or None,
        max_reply_tokens=given.max_reply_tokens,
        structured=given.structured,
    )
    return limits, manners, options


def _plan(output: Path, given: SynthesizeOptions, told: Console) -> Plan:
    """What the run is to make; reads documents and personas."""
    from ..synthesis.grounding import read_grounding, read_personas
    from ..synthesis.placeholders import GROUNDED, GROUP_WEIGHTS, Sampler, published_languages
    from ..synthesis.run import Plan

    usual = {GROUNDED: 1.0} if given.documents else GROUP_WEIGHTS
    sampler = Sampler(
        given.seed,
        _weights("--group", given.group) or usual,
        _weights("--language", given.language) or published_languages(),
    )
    personas = read_personas(given.personas) if given.personas else ()
    passages: Sequence[Any] = ()
    if given.documents:
        found = read_grounding(given.documents, shortest=given.shortest_passage, output=output)
        _tell_passages(found, given.shortest_passage, told)
        passages = found.found
    return Plan(
        examples=given.examples,
        sampler=sampler,
        passages=passages,
        personas=personas,
        instruction=given.instruction,
    )


def _tell_passages(found: Grounding, shortest: int, told: Console) -> None:
    for skip in found.skipped:
        told.print(f"skipped: {skip}", style="yellow", markup=False)
    short = f", {found.short:,} under {shortest} characters left out" if found.short else ""
    told.print(f"{len(found.found):,} passages{short}")


def _weights(option: str, entries: Sequence[str]) -> dict[str, float]:
    """The weights of NAME=WEIGHT entries by name; 1 where an entry has none.

    Raises:
        typer.BadParameter: a weight that is no number, or a name that comes twice.
    """
    weights: dict[str, float] = {}
    for entry in entries:
        name, _, weight = entry.partition("=")
        try:
            value = float(weight or 1)
        except ValueError as error:
            raise typer.BadParameter(f"{option} {entry}: {weight!r} is no number") from error
        if name in weights:
            raise typer.BadParameter(f"{option} {name} comes twice")
        weights[name] = value
    return weights


def _filters(given: SynthesizeOptions, load: LoadOptions) -> Filters:
    """The filters that the options ask for, with their encoder loaded."""
    from ..synthesis.filters.chain import Filters

    wanted = given.round_trip
    if wanted is None and named(load):
        raise typer.BadParameter(f"{', '.join(named(load))}: for the model of --round-trip alone")
    encoder = None
    if wanted is not None:
        encoder = load_encoder(None if wanted == _BUNDLED else wanted, load)
    return Filters(
        language=not given.any_language,
        near=given.near or None,
        against=given.against,
        encoder=encoder,
        round_trip=given.round_trip_top,
    )


class _Meter:
    """Shows how far a run is: a changing line in a terminal, a line every half minute in a log."""

    def __init__(self, told: Console, update: Callable[[str], None], examples: int) -> None:
        self._told, self._update, self._examples = told, update, examples
        self._start = self._last = time.monotonic()
        self._before: int | None = None

    def __call__(self, journal: Journal) -> None:
        """Called after every answer."""
        now = time.monotonic()
        if now - self._last < (0.2 if self._told.is_terminal else _LOG_SECONDS):
            return
        self._last = now
        made = journal.count("example")
        self._before = made if self._before is None else self._before
        rate = 60 * (made - self._before) / max(now - self._start, 1e-9)
        tokens = journal.tokens_in + journal.tokens_out
        words = f"{made:,} of {self._examples:,} examples, {rate:,.0f}/min, {tokens:,} tokens"
        if self._told.is_terminal:
            self._update(words)
        else:
            self._told.print(words)


def _finish(output: Path, summary: Summary, filters: Filters, told: Console) -> None:
    """Filter and write the examples and print counts; exit with 1 if the endpoint failed."""
    from ..synthesis.filters.chain import apply_filters
    from ..synthesis.filters.report import rejected_by, write_report
    from ..synthesis.rows import rows_of, write_rows

    with told.status("filtering"):
        filtered = apply_filters(rows_of(output), filters)
    groups = write_rows(filtered.kept, output / TRAIN)
    write_report(output, summary, filtered)
    told.print(f"made {summary.made:,} of {summary.planned:,} examples")
    _tell_counts("failed", summary.failed, told)
    _tell_counts("filtered out", rejected_by(filtered), told)
    told.print(f"kept {len(filtered.kept):,}: {_listed(groups) or 'none'}")
    cost = f", cost {summary.cost:,.2f}" if summary.cost else ""
    told.print(f"{summary.tokens_in:,} tokens in, {summary.tokens_out:,} out{cost}")
    told.print(f"{output / TRAIN} is for training, {output / 'report.md'} to read", markup=False)
    if summary.stopped:
        told.print(f"stopped: {summary.stopped}", style="yellow", markup=False)
        told.print("what is finished is kept: the same command goes on from there")
        if not summary.spent:
            raise typer.Exit(1)


def _tell_counts(what: str, counts: Mapping[str, int], told: Console) -> None:
    """Print counts by reason, if any is above 0."""
    found = {name: count for name, count in counts.items() if count}
    if found:
        told.print(f"{what} {sum(found.values()):,}: {_listed(found)}", markup=False)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in Counter(counts).most_common())
