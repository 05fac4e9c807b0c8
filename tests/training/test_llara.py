"""LLaRA's stage: the joint pass, its tokens, its losses, what it saves, what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import GOLDEN, read_case
from helpers.training import (
    MODEL,
    assert_same_gradients,
    gradients,
    losses_of,
    quick,
    update,
    write_rows,
)
from transformers import AutoModelForCausalLM

from llm_embeddings import Encoder
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.families import llara as family
from llm_embeddings.records.sources import Source
from llm_embeddings.tokens import tokenize
from llm_embeddings.training import llara
from llm_embeddings.training.batches.passages import Passage, read_passages
from llm_embeddings.training.llara import LLaRA, train_llara
from llm_embeddings.training.options import LoraOptions
from llm_embeddings.training.passes import encoding
from llm_embeddings.training.passes.joint import (
    STOP_WORDS,
    Joint,
    content_words,
    joint_prompts,
    tokenize_joint,
)

PASSAGES = [
    ("Water moves between the oceans and the air.", "It falls again as rain."),
    ("Ada Lovelace wrote the first program.", "She died in 1852."),
    ("Short", ""),
    ("The quick brown fox jumps over the lazy dog; wizards vex frogs.", "Paw prints were found."),
]


def stage_of(folder: Path, data: str, **more: Any) -> Any:
    return llara._Stage(LLaRA(**quick(folder, data, **more)))


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows = [
        {"input": text, "output_summarize": text, "output_predict": following}
        for text, following in PASSAGES
    ]
    return write_rows(tmp_path / "passages.jsonl", rows)


def rows_of(stage: Any) -> list[Joint]:
    batch = [Passage(text, text, following) for text, following in PASSAGES]
    tokenizer, recipe = stage._trained.tokenizer, stage._trained.recipe
    prompts = stage._model.prompts
    return tokenize_joint(tokenizer, recipe, prompts, batch, cutoff=200, stop_words=False)


def test_joint_pass_is_two_separate_passes(tmp_path: Path, data: str) -> None:
    """Slots, text states, and the gradient of them all."""
    stage = stage_of(tmp_path, data)
    model, rows = stage._model, rows_of(stage)
    factors = torch.randn(2, 8, 24, generator=torch.Generator().manual_seed(0))
    found = []
    for joint in (True, False):
        model.zero_grad()
        if joint:
            texts, *slots = model.states(rows)
        else:
            prompts = (model.prompts.summary, model.prompts.following)
            passes = [
                model.encoding.hidden([[*row.ids, *prompt] for row in rows]) for prompt in prompts
            ]
            texts = [states[: len(row.ids)] for states, row in zip(passes[0], rows, strict=True)]
            slots = [torch.stack([states[-8:] for states in one]) for one in passes]
        total = sum((part * factor).sum() for part, factor in zip(slots, factors, strict=True))
        (total + torch.cat(texts).square().sum()).backward()
        found.append((torch.cat([*texts, *slots[0], *slots[1]]).detach(), gradients(model)))
    (states, slopes), (other_states, other_slopes) = found
    assert (states - other_states).abs().max() <= 1e-6 * other_states.abs().max()
    assert_same_gradients(slopes, other_slopes)


@pytest.mark.slow
def test_chunks_do_not_change_an_update(tmp_path: Path, data: str) -> None:
    whole = stage_of(tmp_path, data)
    batch = next(whole.batches(0))
    expected, slopes = update(whole, batch)
    found, other = update(stage_of(tmp_path, data, batch_tokens=60), batch)
    assert found == pytest.approx(expected, rel=1e-5)
    assert_same_gradients(other, slopes, 2e-5)
    parts = expected["language"] + expected["summary"] + expected["following"]
    assert expected["loss"] == pytest.approx(parts, rel=1e-6)


def test_tokens_are_added_and_the_rows_are_those_that_serve(tmp_path: Path, data: str) -> None:
    stage = stage_of(tmp_path, data)
    model = stage._trained
    backbone, tokenizer, recipe = model.backbone, model.tokenizer, model.recipe
    ids = tokenizer.convert_tokens_to_ids(list(family.TOKENS))
    assert ids == list(range(32000, 32016))
    assert len(backbone.get_input_embeddings().weight) == 32016
    assert len(stage._model.head.weight) == 32016
    for row, (text, _) in zip(rows_of(stage), PASSAGES, strict=True):
        served = tokenize(tokenizer, recipe, [text], "document")[0].ids
        assert [*row.ids, *stage._model.prompts.summary] == served
        served = tokenize(tokenizer, recipe, [text], "query")[0].ids
        assert [*row.ids, *stage._model.prompts.following] == served


@pytest.mark.slow
def test_new_rows_depend_on_the_seed_alone(tmp_path: Path, data: str) -> None:
    one, same, other = (
        stage_of(tmp_path, data, seed=seed)._trained.backbone.get_input_embeddings().weight[32000:]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert 0.5 < float(one.detach().std() / 0.02) < 2  # the config's initializer_range


@pytest.mark.parametrize("lora", [None, LoraOptions(rank=4)])
@pytest.mark.slow
def test_training_learns_and_the_result_embeds_and_generates(
    tmp_path: Path, data: str, lora: Any
) -> None:
    options = LLaRA(
        **quick(tmp_path, data, lora=lora, max_steps=10, learning_rate=3e-3, log_every=1)
    )
    result = train_llara(options)
    losses = losses_of(result)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    encoder = Encoder.from_pretrained(result, dtype="float32")
    assert encoder.recipe.pooling == "last_k_mean"
    query, document = (encoder.tokenize(["A fox"], role)[0] for role in ("query", "document"))
    assert query[-8:] == list(range(32008, 32016))
    assert document[-8:] == list(range(32000, 32008))
    model = AutoModelForCausalLM.from_pretrained(result, dtype=torch.float32)
    assert model.lm_head.weight.shape == (32016, 24)
    start = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).lm_head.weight
    assert not torch.equal(model.lm_head.weight[:32000], start)
    ids = torch.tensor([[1, 500, 600, 700]])
    changed = torch.tensor([[1, 500, 600, 701]])
    assert torch.equal(model(ids).logits[:, :3], model(changed).logits[:, :3])


@pytest.mark.slow
def test_a_second_run_keeps_the_tokens(tmp_path: Path, data: str) -> None:
    first = train_llara(LLaRA(**quick(tmp_path, data)))
    stage = stage_of(tmp_path / "second", data, model=str(first))
    ids = stage._trained.tokenizer.convert_tokens_to_ids(list(family.TOKENS))
    assert ids == list(range(32000, 32016))
    assert len(stage._model.head.weight) == 32016


def test_documents_become_passages_and_what_follows_them(tmp_path: Path) -> None:
    file = tmp_path / "documents.txt"
    file.write_text("one two three four five\n", encoding="utf-8")
    found = list(read_passages(Source(file), words=2))
    assert [(row.text, row.following) for row in found] == [
        ("one two", "three four"),
        ("three four", "five"),
        ("five", ""),
    ]


def test_content_words() -> None:
    assert content_words("Ada Lovelace's notes hold the first_program!") == (
        "Ada Lovelace notes hold first program"
    )
    assert content_words("It was the") == ""
    assert len(STOP_WORDS) == 153 + 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cutoff": 30}, r"cutoff=30 leaves no room for a text: the prompts alone take \d+"),
        ({"cutoff": 40_000}, r"cutoff=40000 exceeds the model's 32768 positions"),
        ({"words": 0}, r"words=0 must be 1 or more"),
        ({"save": "adapter", "lora": LoraOptions()}, r"save='adapter' cannot hold new tokens"),
        ({"recipe": "last-token"}, r"recipe 'last-token' does not put two prompts behind"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, data: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stage_of(tmp_path, data, **change)


def test_a_model_without_a_head_is_refused(tmp_path: Path, data: str) -> None:
    bare = str(GOLDEN / "e5-mistral/model")
    with pytest.raises(ValueError, match=r"has no lm_head.weight"):
        stage_of(tmp_path, data, model=bare)


@pytest.mark.golden
@pytest.mark.skipif(
    not (GOLDEN / "llara-pretrain/model/tokenizer.json").exists(),
    reason="Llama's tokenizer may not lie here: LLM_EMBEDDINGS_GOLDEN names a folder that has it",
)
@pytest.mark.parametrize("run", ["cutoff128_no_stopwords", "cutoff96_with_stopwords"])
def test_batches_are_those_of_the_reference(run: str) -> None:
    case = GOLDEN / "llara-pretrain"
    meta, table = read_case(case), np.load(case / "golden.npz")
    tokenizer = load_tokenizer(case / "model")
    prompts = joint_prompts(tokenizer, llara.LLARA_RECIPE)
    assert list(prompts.summary) == meta["suffix_ids"]["summarize"]
    assert list(prompts.following) == meta["suffix_ids"]["predict"]
    lines = (case / "toy.jsonl").read_text(encoding="utf-8").splitlines()
    passages = [
        Passage(row["input"], row["output_summarize"], row["output_predict"])
        for row in map(json.loads, lines)
    ]
    options = meta["runs"][run]
    rows = tokenize_joint(
        tokenizer,
        llara.LLARA_RECIPE,
        prompts,
        passages,
        cutoff=options["cutoff_len"],
        stop_words=not options["remove_stop_words"],
    )
    for place, row in enumerate(rows):
        kept = table[f"{run}/attention_mask"][place].astype(bool)
        expected = table[f"{run}/input_ids"][place][kept].tolist()
        assert [*row.ids, *prompts.summary, *prompts.following] == expected
        for words, name in ((row.summary, "summarize"), (row.following, "predict")):
            ids = table[f"{run}/output_{name}_ids"][place]
            assert words == sorted({int(i) for i in ids if i > 2})


def test_recipe_of_the_stage_is_llaras() -> None:
    published = family.RECIPES["BAAI/LLARA-pretrain"]
    changes = {"name": "", "source": "", "bos": True}
    assert dataclasses.replace(llara.LLARA_RECIPE, **changes) == dataclasses.replace(
        published, **changes
    )


@pytest.mark.slow
def test_a_model_that_cannot_be_packed_is_refused_before_training(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "choose_kernel", lambda *_: (None, "padded batches: a reason"))
    with pytest.raises(ValueError, match=r"cannot be trained this way \(padded batches: a reason"):
        stage_of(tmp_path, data)
