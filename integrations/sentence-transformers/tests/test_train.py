from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, inject_adapter_in_model
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers_llm_embeddings import as_sentence_transformer

from llm_embeddings import Encoder

pytestmark = pytest.mark.slow

PAIRS = Dataset.from_dict(
    {
        "question": [f"question {i}?" for i in range(4)],
        "answer": [f"answer {i} " * (i + 1) for i in range(4)],
    }
)
ROLES = {"question": "query", "answer": "document"}


def train(
    model: SentenceTransformer, loss: torch.nn.Module, path: Path, **options
) -> SentenceTransformerTrainer:
    arguments = SentenceTransformerTrainingArguments(
        str(path),
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        use_cpu=True,
        router_mapping=ROLES,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **{"save_strategy": "no", **options},
    )
    trainer = SentenceTransformerTrainer(model, arguments, train_dataset=PAIRS, loss=loss)
    trainer.train()
    return trainer


def add_lora(encoder: Encoder) -> None:
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["q_proj", "v_proj"]), encoder.backbone)


def weights(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in encoder.backbone.named_parameters()}


def moved(encoder: Encoder, before: dict[str, torch.Tensor]) -> set[str]:
    after = encoder.backbone.named_parameters()
    return {name for name, weight in after if not torch.equal(weight, before[name])}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("cached", [False, True], ids=["mnrl", "cached"])
def test_training_moves_what_it_should_and_can_be_saved(
    lora: bool, cached: bool, fresh: Encoder, tmp_path: Path
) -> None:
    if lora:
        add_lora(fresh)
    model, before = as_sentence_transformer(fresh), weights(fresh)
    loss = (
        CachedMultipleNegativesRankingLoss(model, mini_batch_size=3)
        if cached
        else MultipleNegativesRankingLoss(model)
    )
    train(model, loss, tmp_path / "run")
    changed = moved(fresh, before)
    if lora:
        assert changed == {name for name in before if "lora_" in name}
    else:
        assert {name for name in before if "proj" in name} <= changed
    model.save(str(tmp_path / "saved"))
    saved = Encoder.from_pretrained(tmp_path / "saved")
    assert not any("lora_" in name for name, _ in saved.backbone.named_parameters())
    np.testing.assert_allclose(
        saved.encode_query(["a cat"]), fresh.encode_query(["a cat"]), atol=1e-5
    )
    assert moved(fresh, before) == changed


def test_cached_and_plain_loss_have_the_same_gradients(fresh: Encoder) -> None:
    model = as_sentence_transformer(fresh).train()
    features = [model.preprocess(PAIRS[column][:], task=role) for column, role in ROLES.items()]
    found = []
    for loss in (
        MultipleNegativesRankingLoss(model),
        CachedMultipleNegativesRankingLoss(model, mini_batch_size=2),
    ):
        model.zero_grad()
        loss([dict(column) for column in features], None).backward()
        found.append([p.grad.clone() for p in fresh.backbone.parameters() if p.grad is not None])
    for plain, cached in zip(*found, strict=True):
        torch.testing.assert_close(plain, cached, atol=1e-5, rtol=1e-4)


def test_training_sees_what_serving_sees(encoder: Encoder) -> None:
    model = as_sentence_transformer(encoder).train()
    vectors = model(model.preprocess(["a cat", "a dog " * 9], task="query"))["sentence_embedding"]
    model.eval()
    expected = encoder.encode_query(["a cat", "a dog " * 9])
    np.testing.assert_allclose(vectors.detach(), expected, atol=1e-5)


def test_dropout_is_active_in_train_mode_only(fresh: Encoder) -> None:
    fresh.backbone.config.attention_dropout = 0.5
    for layer in fresh.backbone.layers:
        layer.self_attn.attention_dropout = 0.5
    model = as_sentence_transformer(fresh)
    features = model.preprocess(["a cat sat on a mat"])
    model.train()
    first, second = (model(dict(features))["sentence_embedding"] for _ in range(2))
    assert not torch.equal(first, second)
    model.eval()
    first, second = (model(dict(features))["sentence_embedding"] for _ in range(2))
    assert torch.equal(first, second)


def test_bfloat16_autocast(fresh: Encoder, tmp_path: Path) -> None:
    model, before = as_sentence_transformer(fresh), weights(fresh)
    train(model, CachedMultipleNegativesRankingLoss(model, mini_batch_size=2), tmp_path, bf16=True)
    assert moved(fresh, before)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.encode(["a"]).dtype == np.float32


def test_checkpoints_resume(fresh: Encoder, tmp_path: Path) -> None:
    model = as_sentence_transformer(fresh)
    loss = MultipleNegativesRankingLoss(model)
    trainer = train(model, loss, tmp_path, save_strategy="steps", save_steps=1)
    after = model.encode(["a"])
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    np.testing.assert_allclose(model.encode(["a"]), after, atol=1e-6)


def test_add_adapter_of_sentence_transformers(fresh: Encoder, tmp_path: Path) -> None:
    model = as_sentence_transformer(fresh)
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    model.save(str(tmp_path))
    saved = Encoder.from_pretrained(tmp_path)
    np.testing.assert_allclose(saved.encode(["a"]), fresh.encode(["a"]), atol=1e-5)
