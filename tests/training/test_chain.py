"""LLM2Vec's chain from random weights: each stage starts from the one before, any host loads it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_close
from helpers.training_files import read_metrics, write_language_model, write_pairs, write_texts

from llm_embeddings import Encoder
from llm_embeddings.training import llara
from llm_embeddings.training.contrastive import Contrastive, train_contrastive
from llm_embeddings.training.grit import GRIT_RECIPE
from llm_embeddings.training.llara import LLaRA
from llm_embeddings.training.mntp import MNTP, MNTP_RECIPE, train_mntp
from llm_embeddings.training.options import LoraOptions
from llm_embeddings.training.run.card import PROVENANCE
from llm_embeddings.training.simcse import SimCSE, train_simcse
from llm_embeddings.training.weights.loading import load_backbone_for_training

pytestmark = pytest.mark.slow

TEXTS = ["the cat sat", "a dog ran home and then sat again", ""]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the three stages made; the last is an adapter."""
    folder = tmp_path_factory.mktemp("chain")
    shared: dict[str, Any] = {"dtype": "float32", "show_progress": False, "batch_size": 8}
    shared |= {"max_steps": 8, "learning_rate": 1e-2, "log_every": 1, "warmup": 0}
    model = write_language_model(folder / "base")
    texts = str(write_texts(folder / "texts.txt"))
    pairs = str(write_pairs(folder / "pairs.jsonl"))
    mntp = train_mntp(
        MNTP(
            model=str(model),
            output=folder / "mntp",
            data=texts,
            block_length=24,
            mask_token="mask",
            **shared,
        )
    )
    simcse = train_simcse(
        SimCSE(model=str(mntp), output=folder / "simcse", data=texts, batch_tokens=100, **shared)
    )
    shared |= {"learning_rate": 1e-3, "max_steps": 12}
    supervised = train_contrastive(
        Contrastive(
            model=str(simcse), output=folder / "supervised", data=pairs, save="adapter", **shared
        )
    )
    return [model, mntp, simcse, supervised]


def test_every_stage_learns_and_loads(chain: list[Path]) -> None:
    before = None
    for path in chain[1:]:
        losses = [line["loss"] for line in read_metrics(path)]
        assert np.mean(losses[-3:]) < np.mean(losses[:3])
        encoder = Encoder.from_pretrained(path, dtype="float32")
        assert (encoder.recipe.name, encoder.recipe.causal) == (path.name, False)
        vectors = encoder.encode(TEXTS)
        assert np.isfinite(vectors).all()
        assert before is None or abs(vectors - before).max() > 1e-3
        before = vectors


def test_last_stage_is_an_adapter_on_the_one_before(chain: list[Path]) -> None:
    assert not (chain[-1] / "model.safetensors").exists()
    config = json.loads((chain[-1] / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(chain[-2])
    assert config["inference_mode"] is True


def test_new_mask_token_is_saved(chain: list[Path]) -> None:
    encoder = Encoder.from_pretrained(chain[1], dtype="float32")
    assert encoder.tokenizer.mask_token == "<mask>"


def test_provenance_tells_the_whole_chain(chain: list[Path]) -> None:
    found = json.loads((chain[-1] / PROVENANCE).read_text(encoding="utf-8"))
    assert [found["stage"], found["before"]["stage"], found["before"]["before"]["stage"]] == [
        "contrastive",
        "simcse",
        "mntp",
    ]
    assert found["facts"]["data"][0]["name"] == "pairs.jsonl"
    assert found["options"]["learning_rate"] == 1e-3
    assert found["versions"]["torch"]
    card = (chain[-1] / "README.md").read_text(encoding="utf-8")
    assert f"`{chain[0]}` → mntp → simcse → contrastive" in card
    assert "| attention | `bidirectional` |" in card


def test_result_works_in_every_host(chain: list[Path]) -> None:
    from langchain_llm_embeddings import LLMEmbeddings
    from llama_index.embeddings.llm_embeddings import LLMEmbedding
    from sentence_transformers_llm_embeddings import as_sentence_transformer

    path = str(chain[-1])
    encoder = Encoder.from_pretrained(path, dtype="float32")
    wanted = encoder.encode_document(TEXTS)
    assert_close(LLMEmbeddings(model=path, dtype="float32").embed_documents(TEXTS), wanted)
    llama_index = LLMEmbedding(model_name=path, dtype="float32")
    assert_close(llama_index.get_text_embedding_batch(TEXTS), wanted)
    assert_close(as_sentence_transformer(encoder).encode_document(TEXTS), wanted)


def test_simcse_needs_dropout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both copies of a text would be the same"):
        SimCSE(
            model="m",
            output=tmp_path,
            data="t.txt",
            attention_dropout=0,
            lora=LoraOptions(dropout=0),
        )


def test_all_weights_with_checkpointing_are_trained_alike(tmp_path: Path) -> None:
    model = str(write_language_model(tmp_path / "base"))
    texts = str(write_texts(tmp_path / "texts.txt"))
    losses = []
    for checkpointing in (False, True):
        options = MNTP(
            model=model,
            output=tmp_path / str(checkpointing),
            data=texts,
            lora=None,
            dtype="float32",
            max_steps=3,
            batch_size=4,
            block_length=16,
            train_head=True,
            gradient_checkpointing=checkpointing,
            log_every=1,
            show_progress=False,
        )
        losses.append([line["loss"] for line in read_metrics(train_mntp(options))])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    from transformers import AutoModelForCausalLM

    trained, before = (
        AutoModelForCausalLM.from_pretrained(path, dtype="float32").lm_head.weight
        for path in (tmp_path / "True", model)
    )
    assert abs(trained - before).max() > 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "last-token"}, "'last-token' is causal"),
        ({"block_length": 10**6}, "positions of this model"),
        ({"mask_token": "mask", "save": "adapter"}, "an adapter cannot hold"),
        ({"probability": 1.0}, r"must be in \(0, 1\)"),
    ],
)
def test_what_mntp_cannot_do(chain: list[Path], changes: dict[str, Any], message: str) -> None:
    texts = chain[0].parent / "texts.txt"
    with pytest.raises(ValueError, match=message):
        train_mntp(
            MNTP(
                model=str(chain[0]),
                output=chain[0].parent / "never",
                data=str(texts),
                dtype="float32",
                **changes,
            )
        )


def test_model_without_a_head(chain: list[Path], tmp_path: Path) -> None:
    texts = str(chain[0].parent / "texts.txt")
    with pytest.raises(ValueError, match="has no lm_head"):
        train_mntp(MNTP(model=str(chain[1]), output=tmp_path / "out", data=texts, dtype="float32"))


def test_equal_texts_are_no_negatives_of_each_other(tmp_path: Path) -> None:
    """The gradient of a batch with equal texts is that of InfoNCE over the others."""
    model = str(write_language_model(tmp_path / "base"))
    texts = tmp_path / "texts.txt"
    texts.write_text("the same cat\n" * 4)
    shared: dict[str, Any] = {"dtype": "float32", "show_progress": False, "max_steps": 1}
    simcse = SimCSE(
        model=model, output=tmp_path / "out", data=str(texts), batch_size=4, log_every=1, **shared
    )
    train_simcse(simcse)
    assert read_metrics(tmp_path / "out")[0]["loss"] == 0


def test_stages_put_no_bos_that_the_tokenizer_does_not_put(tmp_path: Path) -> None:
    model = write_language_model(tmp_path / "base")
    values = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    (model / "tokenizer.json").write_text(json.dumps(values | {"post_processor": None}))
    for default in (MNTP_RECIPE, GRIT_RECIPE):
        options = SimCSE(model=str(model), output=tmp_path, data="t", dtype="float32")
        found = load_backbone_for_training(options, default).recipe
        assert found == default.replace(bos=False)
        named = replace(options, recipe=default)
        assert load_backbone_for_training(named).recipe == default
    texts = str(write_texts(tmp_path / "texts.txt"))
    options = LLaRA(
        model=str(model), output=tmp_path, data=texts, dtype="float32", batch_size=2, cutoff=64
    )
    assert llara._Stage(options)._model.prompts.prefix[0] != 1


@pytest.mark.parametrize(("recipe", "way"), [("mean", "leave it out"), (None, "the model's own")])
def test_mntp_refuses_a_causal_recipe_with_a_way_that_works(
    tmp_path: Path, recipe: str | None, way: str
) -> None:
    model = write_language_model(tmp_path / "base")
    if recipe is None:
        Encoder.from_pretrained(model, recipe="mean").save_pretrained(model)
    options = MNTP(model=str(model), output=tmp_path / "out", data="t", recipe=recipe)
    with pytest.raises(ValueError, match=f"{way}.*, or pass recipe=Recipe"):
        train_mntp(options)
