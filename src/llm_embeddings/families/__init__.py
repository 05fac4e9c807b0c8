"""The recipes of known checkpoints: one file per family, merged into one table."""

from __future__ import annotations

import difflib
import fnmatch

from ..recipe import Recipe
from . import e5_mistral, gemma, gritlm, llara, llm2vec, nemotron, qwen, siblings
from .siblings import with_examples

__all__ = [
    "OWN_FILES",
    "RECIPES",
    "REFUSED",
    "find_recipe",
    "get_recipe",
    "list_recipes",
    "near_names",
    "nearest",
    "with_examples",
]

RECIPES: dict[str, Recipe] = {
    **llm2vec.RECIPES,
    **e5_mistral.RECIPES,
    **llara.RECIPES,
    **gritlm.RECIPES,
    **siblings.RECIPES,
    **gemma.RECIPES,
    **nemotron.RECIPES,
    **qwen.RECIPES,
    **siblings.PLAIN,
}
REFUSED: dict[str, str] = siblings.REFUSED
OWN_FILES: dict[str, str] = siblings.OWN_FILES


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the known recipes that match a shell pattern, in the table's order.

    Case does not count: `list_recipes("*mistral*")`.
    """
    return [name for name in RECIPES if fnmatch.fnmatch(name.lower(), pattern.lower())]


def get_recipe(name: str) -> Recipe:
    """The recipe of a known checkpoint or a plain recipe ("last-token", "mean").

    Raises:
        ValueError: the name is refused (with the reason) or unknown (with the nearest names).
    """
    found = find_recipe(name)
    own = next((known for known in OWN_FILES if known.lower() == name.lower()), None)
    if own is not None:
        raise ValueError(f"{own} is loaded by its own files: {OWN_FILES[own]}. Leave recipe= out")
    if found is None:
        raise ValueError(f"unknown recipe {name!r}. {nearest(name)}")
    return found


def find_recipe(name: str) -> Recipe | None:
    """The recipe listed under a name (case does not count); None = there is none.

    Raises:
        ValueError: the checkpoint is known to need behaviour this package lacks.
    """
    lower = name.lower()
    for refused, reason in REFUSED.items():
        if refused.lower() == lower:
            raise ValueError(f"{refused} is not supported: {reason}")
    return next((recipe for known, recipe in RECIPES.items() if known.lower() == lower), None)


def near_names(name: str) -> list[str]:
    """Up to three names of listed recipes that look like `name`."""
    by_lower = {known.lower(): known for known in RECIPES}
    short = {known.split("/")[-1]: by_lower[known] for known in by_lower}
    wanted = name.lower().rstrip("/").split("/")[-1]
    hits = difflib.get_close_matches(wanted, short, n=3, cutoff=0.5)
    return list(dict.fromkeys(short[hit] for hit in hits))


def nearest(name: str) -> str:
    """A sentence for errors: the nearest known names, and what to do with another checkpoint."""
    near = near_names(name)
    hint = f"Nearest known: {', '.join(near)}. " if near else ""
    return (
        f"{hint}list_recipes() names all; for your own checkpoint pass recipe=Recipe(...) "
        "or a plain one, recipe='last-token' or recipe='mean'"
    )
