"""ENGINE.md beside exported weights: how to start an engine, and how to ask it for vectors."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, get_args

from ..model import Model
from ..recipe import Recipe, Role
from .engines import SERVERS, Difference, Engine, takes_texts

NAME = "ENGINE.md"
_POOLINGS = {"last_token": "last-token", "first_token": "cls", "mean": "mean"}  # as TEI names them
_URLS = {
    "vllm": "http://localhost:8000/v1/embeddings",
    "tei": "http://localhost:8080/embed",
    "infinity": "http://localhost:7997/embeddings",
}
_POOLED = """
Put token ids in place of `IDS`: `[1, 2, 3], [1, 4]` are two texts. A vector per token comes back.
The vector of the text is {pooled}; Python gives ids and shares:

```python
from llm_embeddings.export import rows

for row in rows(".", ["a text"], "query"):  # or "document"
    print(row.ids, row.shares)
```"""


def command(model: Model, engine: Engine, where: str = ".") -> str:
    """The shell command that serves the exported directory `where`."""
    recipe, name = model.recipe, _served_name(model.recipe)
    place, dtype = shlex.quote(where), str(model.dtype).removeprefix("torch.")
    if engine == "tei":
        mount = '"$PWD"' if where == "." else f'"$(realpath {place})"'
        return (
            f"docker run --gpus all -p 8080:80 -v {mount}:/model "
            "ghcr.io/huggingface/text-embeddings-inference:1.9 "
            f"--model-id /model --dtype float16 --pooling {_POOLINGS[str(recipe.pooling)]}"
        )
    if engine == "infinity":
        return (
            f"infinity_emb v2 --model-id {place} --served-model-name {name} --dtype {dtype} "
            "--engine torch --no-bettertransformer"
        )
    pooler = (
        ""
        if takes_texts(recipe, SERVERS[engine])
        else """ --pooler-config '{"task": "token_embed", "use_activation": false}'"""
    )
    return f"vllm serve {place} --served-model-name {name} --runner pooling --dtype {dtype}{pooler}"


def request(model: Model, engine: Engine, role: Role) -> str:
    """The shell command that asks for vectors; `TEXT` or `IDS` in it stand for the input."""
    recipe, name = model.recipe, _served_name(model.recipe)
    ids = not takes_texts(recipe, SERVERS[engine])
    sent = ["IDS" if ids else recipe.prefix(role) + "TEXT" + recipe.template(role).suffix]
    bodies: dict[Engine, dict[str, Any]] = {
        "vllm": {"model": name, "input": sent, "truncate_prompt_tokens": -1},
        "tei": {"inputs": sent, "truncate": True, "normalize": recipe.normalize},
        "infinity": {"model": name, "input": sent},
    }
    body = {"model": name, "input": sent, "use_activation": False} if ids else bodies[engine]
    data = shlex.quote(json.dumps(body).replace('"IDS"', "IDS"))
    return f"curl {_URLS[engine]} -H 'Content-Type: application/json' -d {data}"


def note(model: Model, engine: Engine, differences: Sequence[Difference]) -> str:
    """The text of ENGINE.md."""
    recipe, server = model.recipe, SERVERS[engine]
    lines = [f"- It {d.what}: {d.remedy}." for d in differences] or ["Nothing."]
    return "\n".join(
        [
            f"# {recipe.name} on {server.name}",
            "",
            f"Written by llm-embeddings {version('llm-embeddings')}. What {server.name} does was",
            "read in its sources; it was not run. Before you rely on it, compare a few vectors",
            "with those of `Encoder.from_pretrained` on this directory.",
            "",
            "## Start",
            "",
            "In this directory:",
            "",
            f"```\n{command(model, engine)}\n```",
            "",
            "## Ask",
            "",
            *_asking(model, engine),
            "",
            "## What the client looks after",
            "",
            *lines,
            "",
        ]
    )


def _asking(model: Model, engine: Engine) -> list[str]:
    """What to send for a query and for a document."""
    recipe = model.recipe
    if takes_texts(recipe, SERVERS[engine]):
        lines = ["A query and a document, whose text goes in place of `TEXT`:", "", "```"]
        return [*lines, *(request(model, engine, role) for role in get_args(Role)), "```"]
    pooled = "`row.shares @ vectors`" + ", divided by its length" * recipe.normalize
    return ["```", request(model, engine, "query"), "```", _POOLED.format(pooled=pooled)]


def _served_name(recipe: Recipe) -> str:
    """The last part of the recipe's name, as a word that a shell takes as it is."""
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in recipe.name.split("/")[-1])
    return kept.strip("-") or "model"
