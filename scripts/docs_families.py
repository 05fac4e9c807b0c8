"""Write docs/families.md: what each listed checkpoint is fed, from the recipes themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from llm_embeddings import Recipe
from llm_embeddings.families import OWN_FILES, RECIPES, REFUSED
from llm_embeddings.recipe import Head, Role

PAGE = Path(__file__).parents[1] / "docs" / "families.md"

INTRODUCTION = """\
<!-- Written by scripts/docs_families.py from the recipes: change those and run it again. -->
# Families and their formats

What every listed checkpoint is fed, how its states become a vector, and where each fact comes from.
This page is generated from the recipes that the package runs; `llm-embeddings info NAME` shows the
same for one checkpoint, and `get_recipe(NAME)` gives it as data.

How to read the formats: `{text}` is your text and `{instruction}` the instruction, `\\n` is a line
break, `<BOS>` and `<EOS>` are the tokenizer's own tokens where a recipe does not name them,
`<BOS?>` and `<EOS?>` what the tokenizer's files put there, read when the checkpoint is loaded.
Nothing else is added: no space, no chat turn. Documents get no instruction unless you give one.

Where a checkpoint's own files name further prompts, `prompt_name` takes them, too. Where they
contradict what is listed here (pooling, heads, direction, a prompt), loading is refused.
"""

NAMES = {
    "llm2vec": "LLM2Vec",
    "e5-mistral": "E5-Mistral",
    "llara": "LLaRA",
    "gritlm": "GritLM",
    "qwen3-embedding": "Qwen3-Embedding",
    "repllama": "RepLLaMA",
    "bge-en-icl": "bge-en-icl",
    "embeddinggemma": "EmbeddingGemma",
    "harrier": "harrier-oss-v1",
    "bge-multilingual-gemma2": "bge-multilingual-gemma2",
    "nemotron": "Nemotron",
    "gte-qwen2": "gte-Qwen2",
    "octen": "Octen",
    "f2llm": "F2LLM",
    "jina-v5": "jina-v5-text",
    "zembed": "zembed-1",
    "pplx-embed": "pplx-embed-v1",
    "plain": "Any decoder",
}
POOLING = {
    "last_token": "state of the last token",
    "first_token": "state of the first token",
    "mean": "mean",
    "weighted_mean": "mean, weights rising from 1",
}


def page() -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for family in dict.fromkeys(recipe.family for recipe in RECIPES.values()):
        lines += [f"## {NAMES[family]}", ""]
        lines += _family([recipe for recipe in RECIPES.values() if recipe.family == family])
    lines += ["## By their own files", ""]
    lines += ["These load as sentence-transformers loads them, without a recipe here.", ""]
    lines += ["| checkpoint | why |", "|---|---|"]
    lines += [f"| `{name}` | {reason} |" for name, reason in OWN_FILES.items()]
    lines += ["", "## Refused", "", "Loading one of these is an error that gives the reason.", ""]
    lines += ["| checkpoint | why |", "|---|---|"]
    lines += [f"| `{name}` | {reason} |" for name, reason in REFUSED.items()]
    return "\n".join(lines) + "\n"


def _family(recipes: list[Recipe]) -> Iterator[str]:
    """Each format with its checkpoints; what all formats share comes once, at the end."""
    formats = _alike(recipes)
    values = [dict(_values(alike[0])) for alike in formats]
    shared = dict(set.intersection(*({*rows.items()} for rows in values)))
    for alike, rows in zip(formats, values, strict=True):
        yield from (f"- {line}" for line in _names(alike))
        yield from ("", "```text", *_layouts(alike[0]), "```", "")
        own = {key: value for key, value in rows.items() if key not in shared}
        yield from _table(own)
    yield from _table({key: value for key, value in values[0].items() if key in shared})
    parts = [part for recipe in recipes for part in recipe.source.split("; ")]
    yield from (f"Source: {'; '.join(dict.fromkeys(parts))}.", "")


def _alike(recipes: Iterable[Recipe]) -> list[list[Recipe]]:
    """Recipes grouped by all that decides a vector."""
    groups: dict[Recipe, list[Recipe]] = {}
    for recipe in recipes:
        key = dataclasses.replace(recipe, name="", source="", base=None)
        groups.setdefault(key, []).append(recipe)
    return list(groups.values())


def _table(rows: dict[str, str]) -> Iterator[str]:
    if rows:
        yield from ("| | |", "|---|---|")
        yield from (f"| {key} | {value} |" for key, value in rows.items())
        yield ""


def _layouts(recipe: Recipe) -> Iterator[str]:
    """The sequences of queries and documents, aligned."""
    same = recipe.query == recipe.document
    yield f"{'query, document' if same else 'query':18}{_layout(recipe, 'query')}"
    if recipe.query.takes_instruction:
        yield f"{'no instruction':18}{_layout(recipe, 'query', bare=True)}"
    if not same:
        yield f"{'document':18}{_layout(recipe, 'document')}"


def _names(recipes: list[Recipe]) -> Iterator[str]:
    """One line per checkpoint, second stages behind the checkpoint they go on."""
    stages: dict[str, list[str]] = {}
    for recipe in recipes:
        if recipe.base is not None:
            stages.setdefault(recipe.base, []).append(recipe.name)
    for recipe in recipes:
        if recipe.base is None:
            more = [f"`{name.removeprefix(recipe.name)}`" for name in stages.get(recipe.name, ())]
            yield f"`{recipe.name}`" + (f", with {' or '.join(more)}" if more else "")


def _layout(recipe: Recipe, role: Role, *, bare: bool = False) -> str:
    """The sequence of a role as one line, control characters escaped."""
    template = recipe.template(role)
    prefix = template.bare if bare else template.prefix
    line = f"{_end(recipe.bos, 'BOS')}{prefix}{{text}}{template.suffix}{_end(recipe.eos, 'EOS')}"
    return line.replace("\n", "\\n")


def _end(token: bool | str | None, kind: str) -> str:
    if isinstance(token, str):
        return token
    if token is None:
        return f"<{kind}?>"
    return f"<{kind}>" if token else ""


def _values(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What the templates do not show."""
    yield "attention", "causal" if recipe.causal else "both ways"
    yield "vector", _vector(recipe)
    yield "unit length", "yes" if recipe.normalize else "no; pass `normalize=True` for it"
    if recipe.instruction:
        yield "instruction by default", f"`{recipe.instruction}`"
    prompts: dict[str, list[str]] = {}
    for name, template in recipe.prompts:
        prompts.setdefault(template.prefix.replace("|", "\\|"), []).append(f"`{name}`")
    if prompts:
        listed = "; ".join(f"`{text}` {', '.join(names)}" for text, names in prompts.items())
        yield "prompts by name", listed
    limit = "the text alone" if recipe.join == "segments" else "the whole sequence"
    yield "limit", f"{recipe.max_length} tokens, {limit}; {_cut(recipe)}"
    if recipe.max_text_length:
        yield "limit of the text", f"{recipe.max_text_length} tokens; whole words are dropped"
    joined = "prefix, text and suffix apart" if recipe.join == "segments" else "as one string"
    yield "tokenised", joined


def _vector(recipe: Recipe) -> str:
    """Which states become the vector."""
    heads = [_head(head) for head in recipe.heads]
    return ", then ".join([*[_pooled(recipe, mode) for mode in recipe.poolings], *heads])


def _head(head: Head) -> str:
    if head.kind == "tanh_int8":
        return "127 times its hyperbolic tangent, in whole numbers"
    return f"a {head.kind} layer to {head.width}"


def _pooled(recipe: Recipe, mode: str) -> str:
    if mode == "last_k_mean":
        return f"mean of the last {recipe.last_k} tokens"
    if mode in ("last_token", "first_token"):
        return POOLING[mode]
    if recipe.pool_span == "all":
        return f"{POOLING[mode]} over all tokens"
    if recipe.separator:
        span = "as many last tokens as text and suffix have when tokenised alone"
        return f"{POOLING[mode]} over {span}"
    return f"{POOLING[mode]} over what follows the prompt"


def _cut(recipe: Recipe) -> str:
    """What goes when the limit is reached; EOS never does."""
    if recipe.truncate != "end":
        return "the text is cut, nothing else"
    if recipe.eos is not False:
        return "the end is cut, but not EOS"
    return "the end is cut" + (", suffix included" if recipe.query.suffix else "")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
