"""Checkpoints that nobody listed: equal to what sentence-transformers makes of them, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.differential import compare
from helpers.random_adapters import AdapterPlan
from helpers.random_checkpoints import Plan, plain, write
from helpers.random_modules import ModulesPlan
from safetensors.torch import load_file, save_file

from llm_embeddings import Encoder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mean pooling, no prompts."""
    return write(plain("llama"), tmp_path_factory.mktemp("any"))


def changed(path: Path, copy: Path, file: str, **values: Any) -> Path:
    """A copy of a checkpoint with some values of one of its JSON files changed."""
    import shutil

    shutil.copytree(path, copy)
    place = copy / file
    read = json.loads(place.read_text()) if place.is_file() else {}
    place.write_text(json.dumps({**read, **values}))
    return copy


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("sentence_bert_config.json", "transformer_task", "fill-mask"),
        ("sentence_bert_config.json", "something_new", 1),
        ("config_sentence_transformers.json", "model_type", "ColBERT"),
        ("1_Pooling/config.json", "something_new", True),
    ],
)
def test_a_key_that_is_not_honoured_is_refused_by_name(
    file: str, key: str, value: Any, checkpoint: Path, tmp_path: Path
) -> None:
    copy = changed(checkpoint, tmp_path / "copy", file, **{key: value})
    with pytest.raises(ValueError, match=rf"{Path(file).name}: {key} = .* is not honoured"):
        Encoder.from_pretrained(copy, dtype="float32")


def test_a_template_is_not_taken_for_a_likeness(checkpoint: Path, tmp_path: Path) -> None:
    """bge-en-icl puts a suffix behind a query; a prompt that only begins like its has none."""
    prompt = "<instruct>the cat\n<query>"
    copy = changed(
        checkpoint,
        tmp_path / "copy",
        "config_sentence_transformers.json",
        prompts={"query": prompt, "document": ""},
    )
    copy = changed(copy, tmp_path / "longer", "tokenizer_config.json", model_max_length=64)
    recipe = Encoder.from_pretrained(copy, dtype="float32").recipe
    assert recipe.query.suffix == ""
    assert recipe.prefix("query") == prompt


@pytest.mark.parametrize("name", ["layers.0.self_attn.q_proj.bias", "layers.1.x.lora_A.weight"])
def test_weights_without_a_place_are_an_error(name: str, checkpoint: Path, tmp_path: Path) -> None:
    copy = changed(checkpoint, tmp_path / "copy", "config.json")
    weights = load_file(copy / "model.safetensors")
    save_file({**weights, name: torch.ones(32)}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="1 weights have no place in LlamaModel"):
        Encoder.from_pretrained(copy, dtype="float32")
    weights["lm_head.weight"] = torch.ones(4, 32)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    Encoder.from_pretrained(copy, dtype="float32")


def test_tokens_without_an_embedding_are_named(checkpoint: Path, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    copy = changed(checkpoint, tmp_path / "copy", "config.json")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(copy)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(copy)
    with pytest.raises(ValueError, match="1 tokens that the model has no embedding for .'<new>'"):
        Encoder.from_pretrained(copy, dtype="float32")


def test_a_directory_may_be_named_as_a_recipe_is(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(checkpoint, tmp_path / "last-token", "config.json")
    monkeypatch.chdir(tmp_path)
    assert Encoder.from_pretrained("last-token").recipe.family == "sentence-transformers"


def test_weights_that_count_the_prompt_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    copy = changed(
        checkpoint,
        tmp_path / "copy",
        "1_Pooling/config.json",
        pooling_mode="weightedmean",
        include_prompt=False,
    )
    settings = copy / "config_sentence_transformers.json"
    settings.write_text(
        json.dumps({**json.loads(settings.read_text()), "prompts": {"query": "q "}})
    )
    with pytest.raises(ValueError, match="include_prompt = false"):
        Encoder.from_pretrained(copy, dtype="float32")


def with_tokenizer(checkpoint: Plan, **changes: Any) -> Plan:
    return replace(checkpoint, tokenizer=replace(checkpoint.tokenizer, **changes))


@pytest.mark.parametrize("span", ["first", "last"])
def test_a_text_that_fuses_with_its_prompt_is_as_in_sentence_transformers(
    span: str, tmp_path: Path
) -> None:
    """Its own tokens are none: zeros there, and here."""
    modes = {"first": ("cls", "mean_sqrt_len_tokens"), "last": ("mean", "lasttoken")}[span]
    modules = ModulesPlan("saved", modes, False, prompts={"query": "query: "})
    made = with_tokenizer(plain("qwen3", modules=modules), kind="byte-level", ends="nothing")
    outcome = compare(made, write(made, tmp_path), ["rain", "", "x y z"])
    assert outcome.verdict == "equal", outcome


@pytest.mark.parametrize("mode", ["mean", "weightedmean", "mean_sqrt_len_tokens", "lasttoken"])
def test_a_text_without_tokens_is_as_in_a_batch_of_sentence_transformers(
    mode: str, tmp_path: Path
) -> None:
    """Where the tokenizer puts nothing around it: alone most architectures refuse it there."""
    from sentence_transformers import SentenceTransformer

    modules = ModulesPlan("saved", (mode,), True)
    made = with_tokenizer(plain("qwen3", modules=modules), kind="byte-level", ends="nothing")
    path = write(made, tmp_path)
    texts = ["rain on the hills", "", "x"]
    wanted = SentenceTransformer(str(path), device="cpu").encode(texts)
    found = Encoder.from_pretrained(path, dtype="float32").encode(texts)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("llama", {"named": "BertTokenizer"}),  # lower-cases where its file does not
        ("gemma", {"kind": "unigram", "named": "XLMRobertaTokenizerFast"}),
        ("llama", {"flags": {"add_eos_token": False}}),
    ],
)
def test_the_tokenizer_is_what_transformers_makes_of_its_files(
    architecture: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    modules = ModulesPlan("old", ("mean",), True, ("normalize",))
    made = with_tokenizer(plain(architecture, modules=modules), **changes)
    outcome = compare(made, write(made, tmp_path), ["What Is CAPITAL", "日本語 and É"])
    assert outcome.verdict == "equal", outcome


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("llama", {"ends": "BOS", "flags": {"add_eos_token": True}}, "add_eos_token = true, which"),
        ("llama", {"ends": "two"}, "one special token on a side"),
        ("llama", {"cuts_left": True}, "truncation_side = 'left' is not honoured"),
        ("gpt2", {"named": "BertTokenizer"}, "GPT2Model takes the token types"),
    ],
)
def test_a_tokenizer_that_cannot_be_followed_is_refused(
    architecture: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    modules = ModulesPlan("old", ("mean",), True, ("normalize",))
    made = with_tokenizer(plain(architecture, modules=modules), **changes)
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(write(made, tmp_path))


def test_a_closing_token_that_was_lost_is_missed(tmp_path: Path) -> None:
    prompts = {"query": "Instruct: find it\nQuery: "}
    modules = ModulesPlan("saved", ("lasttoken",), True, ("normalize",), prompts=prompts)
    made = with_tokenizer(plain("mistral", modules=modules), kind="metaspace", ends="BOS")
    path = write(made, tmp_path)
    with pytest.raises(ValueError, match="transformers 5 loses add_eos_token"):
        Encoder.from_pretrained(path)
    assert Encoder.from_pretrained(path, recipe="intfloat/e5-mistral-7b-instruct").recipe.eos
    closed = changed(path, tmp_path / "closed", "tokenizer_config.json", add_eos_token=True)
    assert Encoder.from_pretrained(closed).recipe.eos == "</s>"


def test_a_recipe_by_name_does_not_turn_a_model(checkpoint: Path, tmp_path: Path) -> None:
    copy = changed(checkpoint, tmp_path / "copy", "config.json", is_causal=False)
    with pytest.raises(ValueError, match="config.json says is_causal = False"):
        Encoder.from_pretrained(copy, recipe="mean")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "wonder"}, "model type `wonder` but Transformers does not recognize"),
        ({"num_attention_heads": 5}, "config.json cannot be used: .*"),
        ({"model_type": "bart"}, "a 'bart' model has an encoder and a decoder"),
    ],
)
def test_a_config_that_is_none(
    change: dict[str, Any], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    copy = changed(checkpoint, tmp_path / "copy", "config.json", **change)
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(copy)


def test_a_lora_on_tied_embeddings_is_refused(tmp_path: Path) -> None:
    made = plain("t5", adapter=AdapterPlan("inside", "embeddings"))
    with pytest.raises(ValueError, match="a weight that stands in two places"):
        Encoder.from_pretrained(write(made, tmp_path))
