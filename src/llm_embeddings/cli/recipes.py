"""`llm-embeddings recipes`: the checkpoints whose recipe is known."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from ..families import OWN_FILES, REFUSED, get_recipe, list_recipes
from ..recipe import Recipe
from .console import output, remarks, suggest
from .describe import POOLINGS


def recipes(
    pattern: Annotated[
        str, typer.Argument(help="Part of a name, or a pattern such as '*mistral*simcse'.")
    ] = "*",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object with all fields per line.")
    ] = False,
) -> None:
    """List the checkpoints whose recipe is known.

    Example: llm-embeddings recipes gritlm
    """
    wanted = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    found = [get_recipe(name) for name in list_recipes(wanted)]
    bare = wanted.strip("*").lower()
    others = {name: f"is not supported: {why}" for name, why in REFUSED.items()}
    others |= {name: f"is loaded by its own files: {why}" for name, why in OWN_FILES.items()}
    unlisted = {name: why for name, why in others.items() if bare and bare in name.lower()}
    if as_json:
        for recipe in found:
            sys.stdout.write(json.dumps(recipe.to_dict(), ensure_ascii=False) + "\n")
    else:
        _show(found)
    for name, reason in unlisted.items():
        remarks().print(f"{name} {reason}", markup=False)
    if not found:
        if not unlisted:
            remarks().print(f"no recipe matches {pattern!r}. {suggest(pattern)}", markup=False)
        raise typer.Exit(1)


def _show(found: list[Recipe]) -> None:
    """Print names with attention, pooling and limit, beside them if there is room, else below."""
    console = output()
    longest = max((len(recipe.name) for recipe in found), default=0)
    piped = not sys.stdout.isatty()
    for recipe in found:
        way = "causal" if recipe.causal else "both ways"
        facts = f"{way:9}  {POOLINGS[recipe.poolings[0]]:19}  {recipe.max_length:>6,} tokens"
        if piped or console.width >= longest + len(facts) + 2:
            console.print(f"[bold]{recipe.name:{longest}}[/]  {facts}")
        else:
            console.print(f"[bold]{recipe.name}[/]\n  {' '.join(facts.split())}", overflow="fold")
