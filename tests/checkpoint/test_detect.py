"""Recognising published layouts that no golden case has, from files written here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import BUNDLED, SMALL, write_model
from transformers import LlamaConfig, Qwen3Config

from llm_embeddings import Encoder, get_recipe
from llm_embeddings.families import RECIPES, llara, llm2vec


def write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def edit_tokenizer(path: Path, before: list[str], after: list[str]) -> None:
    """Give tokenizer.json a post-processor, as published tokenizers have one."""
    values = json.loads((path / "tokenizer.json").read_text())
    single = [
        *({"SpecialToken": {"id": token, "type_id": 0}} for token in before),
        {"Sequence": {"id": "A", "type_id": 0}},
        *({"SpecialToken": {"id": token, "type_id": 0}} for token in after),
    ]
    ids = {"<s>": 1, "</s>": 2}
    values["post_processor"] = {
        "type": "Sequence",
        "processors": [
            {
                "type": "TemplateProcessing",
                "single": single,
                "pair": single,
                "special_tokens": {
                    token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ids
                },
            }
        ],
    }
    write_json(path / "tokenizer.json", values)


@pytest.mark.slow
def test_llara_by_its_tokens(tmp_path: Path) -> None:
    shuffled = tuple(reversed(llara.TOKENS))
    encoder = Encoder.from_pretrained(write_model(tmp_path, LlamaConfig(**SMALL), shuffled))
    listed = get_recipe("BAAI/LLARA-passage")
    assert encoder.recipe.replace(name="", source="") == listed.replace(name="", source="")
    ids = encoder.tokenize("text", "document")[0]
    assert ids[-8:] == [32016 - i for i in range(1, 9)]


def test_bge_en_icl_by_its_tokens(tmp_path: Path) -> None:
    listed = get_recipe("BAAI/bge-en-icl")
    model = write_model(tmp_path, LlamaConfig(**SMALL), listed.required_tokens)
    assert Encoder.from_pretrained(model).recipe.replace(name="") == listed.replace(name="")


@pytest.mark.slow
@pytest.mark.parametrize("modern", [True, False])
def test_qwen3_embedding_by_its_sentence_transformers_files(tmp_path: Path, modern: bool) -> None:
    model = write_model(tmp_path / "local", Qwen3Config(**SMALL, head_dim=8))
    edit_tokenizer(model, [], ["</s>"])
    write_json(
        model / "modules.json",
        [
            {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
    )
    pooling: dict[str, Any] = {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}
    write_json(
        model / "1_Pooling/config.json", {"pooling_mode": "lasttoken"} if modern else pooling
    )
    instruction = get_recipe("Qwen/Qwen3-Embedding-0.6B").instruction
    prompts = {"query": f"Instruct: {instruction}\nQuery:", "document": ""}
    write_json(model / "config_sentence_transformers.json", {"prompts": prompts})
    recipe = Encoder.from_pretrained(model).recipe
    listed = get_recipe("Qwen/Qwen3-Embedding-0.6B").replace(
        name=recipe.name,
        family=recipe.family,
        source=recipe.source,
        eos="</s>",
        max_length=recipe.max_length,
    )
    assert recipe == listed


@pytest.mark.slow
def test_llm2vec_template_follows_the_name_of_the_base(tmp_path: Path) -> None:
    case = shutil.copytree(BUNDLED / "llm2vec-mistral", tmp_path / "case")
    config = json.loads((case / "mntp/config.json").read_text())
    for base, prefix in (
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "{instruction} "),
        ("meta-llama/Llama-2-7b-chat-hf", "[INST] {instruction} "),
    ):
        write_json(case / "mntp/config.json", config | {"_name_or_path": base})
        recipe = Encoder.from_pretrained(case / "mntp").recipe
        assert (recipe.family, recipe.query.prefix) == ("llm2vec", prefix)
    write_json(case / "mntp/config.json", config | {"_name_or_path": ""})
    with pytest.raises(ValueError, match="none of its files names the base model"):
        Encoder.from_pretrained(case / "mntp")
    named = "McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp"
    assert Encoder.from_pretrained(case / "mntp", recipe=named).recipe is get_recipe(named)


def test_llm2vec_settings_beside_the_last_stage(tmp_path: Path) -> None:
    case = shutil.copytree(BUNDLED / "llm2vec-mistral", tmp_path / "case")
    settings = {"pooling_mode": "weighted_mean", "max_length": 64, "doc_max_length": 40}
    write_json(case / "supervised/llm2vec_config.json", settings | {"skip_instruction": False})
    recipe = Encoder.from_pretrained(case / "mntp", adapters=[case / "supervised"]).recipe
    assert (recipe.pooling, recipe.pool_span) == ("weighted_mean", "all")
    assert (recipe.max_length, recipe.max_text_length) == (64, 40)
    assert Encoder.from_pretrained(case / "mntp").max_length == 512
    write_json(case / "mntp/llm2vec_config.json", {"pooling_mode": "median"})
    with pytest.raises(ValueError, match="pooling_mode='median'"):
        Encoder.from_pretrained(case / "mntp")


def test_llm2vec_closes_texts_by_the_kind_of_the_base(tmp_path: Path) -> None:
    case = shutil.copytree(BUNDLED / "llm2vec-mistral", tmp_path / "case")
    write_json(case / "mntp/llm2vec_config.json", {"pooling_mode": "eos_token"})
    recipe = Encoder.from_pretrained(case / "mntp").recipe
    assert (recipe.pooling, recipe.document.suffix) == ("last_token", " [/INST] </s>")
    for base, kind, ending in (
        ("google/gemma-2b", "gemma", "<eos>"),
        ("Qwen/Qwen2-1.5B", "qwen2", "<|endoftext|>"),
        ("meta-llama/Meta-Llama-3-8B", "llama", "<|end_of_text|>"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama", "<|eot_id|>"),
        ("meta-llama/Llama-3.1-8B", "llama", " </s>"),
    ):
        plain = llm2vec.recipe("mine", base)
        found = llm2vec.configured(plain, {"pooling_mode": "eos_token"}, base, kind)
        assert found.query.suffix == ending
    with pytest.raises(ValueError, match="no closing text of qwen3 models"):
        llm2vec.configured(plain, {"pooling_mode": "eos_token"}, "Qwen/Qwen3-0.6B", "qwen3")


def test_second_stages_name_their_mntp_stage() -> None:
    stages = {name: recipe for name, recipe in RECIPES.items() if recipe.base}
    assert len(stages) >= 15
    for name, recipe in stages.items():
        assert recipe.base in RECIPES
        assert name.startswith(f"{recipe.base}-")
        assert recipe.query == RECIPES[recipe.base].query
