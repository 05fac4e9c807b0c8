"""Parity with the reference implementations: token ids equal, vectors within 1e-4.

`LLM_EMBEDDINGS_GOLDEN=DIR` runs every case in DIR; without it the subset in tests/golden runs.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import golden_cases, read_case

from llm_embeddings import Encoder, Recipe, Template
from llm_embeddings.families import llm2vec
from llm_embeddings.tokens import tokenize

pytestmark = pytest.mark.golden

ATOL, COSINE = 1e-4, 0.99999


def runs(family: str) -> list[Any]:
    return [
        pytest.param(case, run, id=f"{case.name}-{run}")
        for case in golden_cases(family)
        for run in read_case(case)["runs"]
    ]


@functools.lru_cache(maxsize=2)
def load(model: Path, *adapters: Path) -> Encoder:
    return Encoder.from_pretrained(model, adapters=adapters, dtype="float32")


def compare(case: Path, run: str, encoder: Encoder, **call: Any) -> None:
    """Encode a run's texts and hold ids and vectors against the golden ones.

    Left out are rows on which the reference gives no defined value: NaN, and means over zero
    tokens, which depend on the other texts of its batch.
    """
    meta, golden = read_case(case), np.load(case / "golden.npz")
    setting = meta["runs"][run]
    chosen = setting.get("text_idx", "all")
    indices = range(len(meta["texts"])) if chosen == "all" else chosen
    texts = [meta["texts"][index] for index in indices]
    limit = call.get("max_length")
    role, instruction = call.pop("role"), call.pop("instruction")

    flat, offsets = golden[f"{run}/ids_flat"], golden[f"{run}/ids_off"]
    rows = tokenize(encoder.tokenizer, encoder.recipe, texts, role, instruction, limit)
    for row, first, last in zip(rows, offsets[:-1], offsets[1:], strict=True):
        assert row.ids == flat[first:last].tolist()

    expected = golden[f"{run}/emb"]
    vectors = encoder.encode(texts, role, instruction, **call)
    assert vectors.shape == expected.shape
    defined = np.isfinite(expected).all(1)
    if setting.get("skip_instruction", True) and "mean" in setting.get("pooling_mode", "mean"):
        undefined = setting.get("zero_pool_text_idx", [])
        defined &= np.array([index not in undefined for index in indices])
    assert defined.sum() >= len(texts) - 1
    a, b = vectors[defined].astype(np.float64), expected[defined].astype(np.float64)
    assert np.abs(a - b).max() <= ATOL
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() >= COSINE
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize(("case", "run"), runs("e5-mistral"))
def test_e5_mistral(case: Path, run: str) -> None:
    setting = read_case(case)["runs"][run]
    prompt = setting["prompt"] or ""
    compare(
        case,
        run,
        load(case / "model"),
        role="query" if prompt else "document",
        instruction=prompt.removeprefix("Instruct: ").removesuffix("\nQuery: "),
        max_length=setting["max_length"],
        normalize=setting["normalize"],
    )


@pytest.mark.parametrize(("case", "run"), runs("llara"))
def test_llara(case: Path, run: str) -> None:
    setting = read_case(case)["runs"][run]
    compare(
        case,
        run,
        load(case / "model"),
        role="query" if setting["fn"] == "query" else "document",
        instruction=None,
        max_length=setting["max_length"],
        normalize=setting["normalize"],
    )


@pytest.mark.parametrize(("case", "run"), runs("gritlm"))
def test_gritlm(case: Path, run: str) -> None:
    setting = read_case(case)["runs"][run]
    loaded = load(case / "model")
    prompt = setting["instruction"]
    template = loaded.recipe.document if prompt else Template()
    if "embed_eos" in setting:
        template = Template(template.prefix, setting["embed_eos"], template.bare)
    pooling = {"weightedmean": "weighted_mean", "lasttoken": "last_token", "cls": "first_token"}
    recipe = loaded.recipe.replace(
        query=template,
        instruction="",
        causal=setting["attn"].startswith("c"),
        pooling=pooling.get(setting["pooling_method"], "mean"),
        pool_span="all" if setting.get("embed_instruction") else "text",
        bos=setting.get("add_special_tokens", True),
    )
    framed = prompt.startswith("<|user|>\n")
    compare(
        case,
        run,
        Encoder(loaded.backbone, loaded.tokenizer, recipe),
        role="query",
        instruction=prompt[len("<|user|>\n") : -len("\n<|embed|>\n")] if framed else "",
        max_length=setting["max_length"],
        normalize=setting["normalized"],
    )


def llm2vec_recipe(recipe: Recipe, setting: dict[str, Any], base: str, kind: str) -> Recipe:
    """The recipe under a run's options, named as in llm2vec and as it saves them."""
    names = ("pooling_mode", "skip_instruction", "doc_max_length")
    settings = {name: setting[name] for name in names if name in setting}
    causal = not setting.get("enable_bidirectional", True)
    return llm2vec.configured(recipe.replace(causal=causal), settings, base, kind)


@pytest.mark.parametrize(("case", "run"), runs("llm2vec"))
def test_llm2vec(case: Path, run: str) -> None:
    meta = read_case(case)
    setting = meta["runs"][run]
    adapter = setting["adapter"]
    if "hub_cache" in meta["load"]:
        loaded = Encoder.from_pretrained(
            meta["hub_ids"][adapter or "mntp"],
            cache_dir=case / meta["load"]["hub_cache"],
            local_files_only=True,
            dtype="float32",
        )
    else:
        loaded = load(case / "mntp", *([case / adapter] if adapter else []))
    kind = loaded.backbone.config.model_type
    recipe = llm2vec_recipe(loaded.recipe, setting, meta["hub_ids"]["base"], kind)
    compare(
        case,
        run,
        Encoder(loaded.backbone, loaded.tokenizer, recipe),
        role="query",
        instruction=setting["instruction"] or "",
        max_length=setting.get("max_length"),
    )
