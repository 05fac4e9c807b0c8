"""ENGINE.md beside exported weights: how to start an engine, and how to ask it for vectors."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from typing import get_args

from ..model import Model
from ..recipe import Recipe, Role
from .engines import SERVERS, Difference, Engine, takes_texts

NAME = "ENGINE.md"
_POOLINGS = {"last_token": "last-token", "first_token": "cls", "mean": "mean"}  # as TEI names them

_TEXTS = """\
import httpx

PROMPTS = {prompts}
SUFFIXES = {suffixes}


def embed(texts: list[str], role: str) -> list[list[float]]:
    strings = [PROMPTS[role] + text + SUFFIXES[role] for text in texts]
    body = {body}
    answer = httpx.post("{url}", json=body, timeout=60)
    return {vectors}
"""
_BODIES = {
    "vllm": '{{"model": "{name}", "input": strings, "truncate_prompt_tokens": -1}}',
    "tei": '{{"inputs": strings, "truncate": True, "normalize": {normalize}}}',
    "infinity": '{{"model": "{name}", "input": strings}}',
}
_URLS = {
    "vllm": "http://localhost:8000/v1/embeddings",
    "tei": "http://localhost:8080/embed",
    "infinity": "http://localhost:7997/embeddings",
}
_OPENAI = '[row["embedding"] for row in answer.raise_for_status().json()["data"]]'
_VECTORS = {"vllm": _OPENAI, "tei": "answer.raise_for_status().json()", "infinity": _OPENAI}

_IDS = """\
from pathlib import Path

import httpx
import numpy as np

from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.checkpoint.sidecar import read
from llm_embeddings.tokens import tokenize

HERE = Path(".")
RECIPE, TOKENIZER = read(HERE).recipe, load_tokenizer(HERE)


def embed(texts: list[str], role: str) -> np.ndarray:
    rows = tokenize(TOKENIZER, RECIPE, texts, role)
    body = {{"model": "{name}", "input": [row.ids for row in rows], "use_activation": False}}
    answer = httpx.post("{url}", json=body, timeout=60)
    data = answer.raise_for_status().json()["data"]
    states = [np.array(row["embedding"]) for row in data]  # a vector per token
    vectors = np.stack([{pool} for row, state in zip(rows, states, strict=True)])
    return {result}
"""


def command(model: Model, engine: Engine, where: str = ".") -> str:
    """The shell command that serves the exported directory `where`."""
    recipe, name = model.recipe, _served_name(model.recipe)
    place, dtype = shlex.quote(where), str(model.backbone.dtype).removeprefix("torch.")
    if engine == "tei":
        mount = '"$PWD"' if where == "." else f'"$(realpath {place})"'
        return (
            f"docker run --gpus all -p 8080:80 -v {mount}:/model "
            "ghcr.io/huggingface/text-embeddings-inference:1.9 "
            f"--model-id /model --dtype float16 --pooling {_POOLINGS[recipe.pooling]}"
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


def client(model: Model, engine: Engine) -> str:
    """Python that asks the engine for the model's vectors, run in the exported directory."""
    recipe, name = model.recipe, _served_name(model.recipe)
    if not takes_texts(recipe, SERVERS[engine]):
        unit = "vectors / np.linalg.norm(vectors, axis=1, keepdims=True)"
        return _IDS.format(
            name=name,
            url=_URLS[engine],
            pool=_pool(recipe),
            result=unit if recipe.normalize else "vectors",
        )
    return _TEXTS.format(
        prompts=_written({role: recipe.prefix(role) for role in get_args(Role)}),
        suffixes=_written({role: recipe.template(role).suffix for role in get_args(Role)}),
        url=_URLS[engine],
        body=_BODIES[engine].format(name=name, normalize=recipe.normalize),
        vectors=_VECTORS[engine],
    )


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
            f"```python\n{client(model, engine)}```",
            "",
            "## What the client looks after",
            "",
            *lines,
            "",
        ]
    )


def _written(strings: dict[str, str]) -> str:
    """A dict as Python, an entry per line."""
    entries = (f"    {json.dumps(key)}: {json.dumps(value)}," for key, value in strings.items())
    return "\n".join(["{", *entries, "}"])


def _served_name(recipe: Recipe) -> str:
    """The last part of the recipe's name, as a word that a shell takes as it is."""
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in recipe.name.split("/")[-1])
    return kept.strip("-") or "model"


def _pool(recipe: Recipe) -> str:
    """The recipe's pooling of the token vectors `state`, as Python."""
    if recipe.pooling == "last_k_mean":
        return f"state[-{recipe.last_k}:].mean(0)"
    if recipe.pooling == "weighted_mean":
        return "np.average(state[row.start:], 0, range(1, len(row.ids) - row.start + 1))"
    places = {"last_token": "state[-1]", "first_token": "state[0]"}
    return places.get(recipe.pooling, "state[row.start:].mean(0)")
