"""A recipe described in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from ..batching import first_used
from ..recipe import Pooling, Recipe, Role

if TYPE_CHECKING:
    from ..tokens import Tokens

POOLINGS: dict[Pooling, str] = {
    "last_token": "last token",
    "first_token": "first token",
    "mean": "mean",
    "weighted_mean": "weighted mean",
    "last_k_mean": "mean of last tokens",
    "max": "maximum",
    "mean_sqrt_length": "sum over root of length",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know about a model.

    Attributes:
        name: What it is about, such as "pooling".
        words: What is to be known.
        source: What says so: the recipe, or a file.
    """

    name: str
    words: str
    source: str = "recipe"


def recipe_facts(recipe: Recipe) -> Iterator[Fact]:
    """What a recipe does, step by step from the text to the vector."""
    yield Fact("query", template(recipe, "query"))
    yield Fact("document", template(recipe, "document"))
    if recipe.prompts:
        yield Fact("prompts", ", ".join(name for name, _ in recipe.prompts))
    yield Fact("instruction", _instruction(recipe))
    yield Fact("BOS, EOS", f"{_token(recipe.bos, 'BOS')} first; {_token(recipe.eos, 'EOS')} last")
    yield Fact("limit", _limit(recipe))
    yield Fact(
        "attention",
        "causal: a token sees itself and those before it"
        if recipe.causal
        else "both ways: every token sees all others",
    )
    length = "scaled to unit length" if recipe.normalize else "not scaled"
    yield Fact("pooling", f"{_pooling(recipe)}; {length}")


def template(recipe: Recipe, role: str) -> str:
    """The template of a role, with placeholders for instruction and text."""
    found = recipe.template(role)
    return f"{visible(found.prefix)}{{text}}{visible(found.suffix)}"


def visible(text: str) -> str:
    r"""A text with line feeds and tabs written as \n, \r and \t."""
    return text.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")


def pooled(recipe: Recipe, tokens: Tokens) -> range:
    """The positions of the tokens that are pooled into the vector."""
    whole = recipe.pooling != "first_token"
    first = first_used(tokens, recipe)
    return range(first, len(tokens.ids) if whole else first + 1)


def _instruction(recipe: Recipe) -> str:
    """Which texts get an instruction, and which one."""
    takes = [role for role in get_args(Role) if recipe.template(role).takes_instruction]
    if not takes:
        return "none is taken"
    default = f"a query without one gets: {recipe.instruction}" if recipe.instruction else ""
    rest = "documents get one only if it is given" if "document" in takes else ""
    return "; ".join(part for part in (default, rest) if part) or "taken, none by default"


def _token(value: bool | str | None, kind: str) -> str:
    """What a recipe's `bos` or `eos` means."""
    if value is None:
        return "what its tokenizer's files say"
    if value is True:
        return f"the tokenizer's {kind}"
    return value or "nothing"


def _limit(recipe: Recipe) -> str:
    """How long a text may be, and what is cut off of a longer one."""
    whole = recipe.join == "string"
    words = f"{recipe.max_length:,} tokens of {'the whole sequence' if whole else 'the text alone'}"
    if recipe.max_text_length:
        words += f", {recipe.max_text_length:,} of the text, reached by dropping words"
    kept = [] if recipe.eos is False else ["EOS"]
    if recipe.truncate != "end" and (recipe.query.suffix or recipe.document.suffix):
        kept.append("what follows the text")
    loses = "a longer one loses its end"
    return f"{words}; {loses}, never {' or '.join(kept)}" if kept else f"{words}; {loses}"


def _pooling(recipe: Recipe) -> str:
    ways = [_one_pooling(recipe, mode) for mode in recipe.poolings]
    return ", then ".join([*ways, *(f"{head.kind} ({head.width or '-'})" for head in recipe.heads)])


def _one_pooling(recipe: Recipe, mode: Pooling) -> str:
    words = POOLINGS[mode]
    if mode == "last_k_mean":
        return f"mean of the last {recipe.last_k} tokens"
    if mode in ("last_token", "first_token"):
        return f"the {words}"
    span = "all tokens" if recipe.pool_span == "all" else "the text, not what stands before it"
    return f"{words} over {span}"
