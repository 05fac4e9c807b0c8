"""`llm-embeddings info`: what a model does to a text, and whether it does so here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.columns import Columns
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..checkpoint.options import LoadOptions
from ..model import vector_length
from ..recipe import Role
from ..verifying import Check
from .console import ModelArgument, PipeConsole, load_encoder, output
from .describe import Fact, pooled, recipe_facts, visible
from .inspect import BYTES, Subject, count_parameters, in_memory, look
from .loading import with_load_options

if TYPE_CHECKING:
    from ..checkpoint.sidecar import Form

_NARROW = 60
_HEAD, _TAIL = 48, 16
_EXAMPLES: dict[Role, str] = {
    "query": "What is the capital of France?",
    "document": "Paris is the capital of France.",
}


@with_load_options("vector_cache")  # a test of the model must not be answered from a file
def info(
    model: ModelArgument = None,
    text: Annotated[
        str | None, typer.Option(help="Show on this text what the model is fed.")
    ] = None,
    role: Annotated[
        Role | None, typer.Option(help="Only as a query or as a document; both if left out.")
    ] = None,
    instruction: Annotated[
        str | None, typer.Option(help="Goes before the text, if the model takes one; '' = none.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Load the model and test it; 1 if a test fails.")
    ] = False,
    *,
    load: LoadOptions,
) -> None:
    """Explain a model in words and on an example; nothing is downloaded.

    Example: llm-embeddings info intfloat/e5-mistral-7b-instruct --text "how do magnets work"
    """
    console = output()
    subject = look(model, load)
    console.print(f"[bold]{subject.recipe.name}[/] ({subject.recipe.family})\n")
    _show_facts(console, [*recipe_facts(subject.recipe), *_of_files(subject, load)])
    console.print(Text(f"\nrecipe: {subject.origin}", "dim"))
    roles: list[Role] = [role] if role else ["query", "document"]
    for each in roles:
        _show_example(console, subject, each, text, instruction)
    if check:
        from ..verifying.invariants import check_model

        encoder = load_encoder(model, load)
        console.print()
        _show_checks(console, check_model(encoder))


def _of_files(subject: Subject, load: LoadOptions) -> Iterator[Fact]:
    """What the files of the checkpoint say: dimension, positions, parameters, memory."""
    if subject.checkpoint is None and subject.numbers is None:
        yield Fact("size, memory", "unknown: the checkpoint is not on this disk", "no file")
        return
    config = subject.config or {}
    if "hidden_size" in config:
        values: Any = SimpleNamespace(**{"model_type": "", **config})
        yield Fact("dimension", f"{vector_length(subject.recipe, values):,}", "config.json")
    most = config.get("max_position_embeddings")
    if most and most < subject.recipe.max_length:
        yield Fact("positions", f"{most:,}: the limit in practice", "config.json")
    counted = count_parameters(subject)
    if counted is None:
        yield Fact("memory", "unknown: neither weights nor config.json are here", "no file")
        return
    count, source = counted
    sizes = ", ".join(f"{decimal(count * size)} in {name}" for name, size in BYTES.items())
    yield Fact("parameters", f"{count / 1e6:,.1f} million", source)
    if subject.form is None:
        yield Fact("memory", f"{sizes}, and what a pass needs", source)
    else:
        yield Fact("weights", _form(subject.form), "llm_embeddings.json")
    if (here := in_memory(subject, load, count)) is not None:
        yield Fact("memory here", here, source)


def _form(form: Form) -> str:
    """The form of weights in words."""
    kept = "" if form.cosine is None else f"; lowest cosine {form.cosine:.5f}"
    return f"{form.kind}, for a CPU{kept}"


def _show_facts(console: PipeConsole, facts: list[Fact]) -> None:
    """Print facts as a table, or in a narrow terminal as paragraphs."""
    if console.width < _NARROW:
        for fact in facts:
            console.print(Text.assemble((fact.name, "bold"), (f" [{fact.source}]", "dim")))
            console.print(Padding(Text(fact.words), (0, 0, 0, 2)), soft_wrap=False)
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    table.add_column(style="dim", max_width=14)
    for fact in facts:
        table.add_row(*(Text(words) for words in (fact.name, fact.words, fact.source)))
    console.print(table, soft_wrap=False)


def _show_example(
    console: PipeConsole, subject: Subject, role: Role, text: str | None, instruction: str | None
) -> None:
    """Print a text in its template, and its tokens with the pooled ones marked."""
    recipe, text = subject.recipe, text if text is not None else _EXAMPLES[role]
    prefix, suffix = recipe.prefix(role, instruction), recipe.template(role).suffix
    string = Text.assemble(
        (f"\n{role}: ", "bold"), (visible(prefix), "dim"), visible(text), (visible(suffix), "dim")
    )
    console.print(string, soft_wrap=False)
    if subject.tokenizer is None:
        console.print(Text("Token ids: unknown, tokenizer.json is not on this disk.", "dim"))
        return
    from ..tokens import tokenize

    row = tokenize(subject.tokenizer, recipe, [text], role, instruction)[0]
    chosen = pooled(recipe, row)
    pieces = [visible(str(piece)) for piece in subject.tokenizer.convert_ids_to_tokens(row.ids)]
    cells = [
        Text(f"*{token} {piece}", "bold green") if place in chosen else Text(f" {token} {piece}")
        for place, (token, piece) in enumerate(zip(row.ids, pieces, strict=True))
    ]
    hidden = len(cells) - _HEAD - _TAIL
    if hidden > 0:
        cells[_HEAD:-_TAIL] = [Text(f" ... {hidden:,} more", "dim")]
    console.print(Columns(cells, equal=True, padding=(0, 2)), soft_wrap=False)
    cut = f"; {row.cut:,} more were cut off" if row.cut else ""
    console.print(Text(f"{len(row.ids):,} tokens, {len(chosen):,} pooled (*){cut}", "dim"))


def _show_checks(console: PipeConsole, checks: Iterable[Check]) -> None:
    """Print a line for each check as it ends; exit with 1 if one failed."""
    failed = 0
    for check in checks:
        passed = check.status == "equal"
        failed += not passed
        mark = Text("passed", "green") if passed else Text("FAILED", "bold red")
        console.print(Text.assemble(mark, "  ", (check.name, "bold"), f": {check.words}"))
    if failed:
        raise typer.Exit(1)
