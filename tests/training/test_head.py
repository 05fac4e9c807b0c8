"""The language-model head as stages use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import BUNDLED
from helpers.training_files import write_texts
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    PhiConfig,
)

from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.training import mntp
from llm_embeddings.training.mntp import MNTP
from llm_embeddings.training.options import StageOptions
from llm_embeddings.training.weights.head import load_head

SHARED: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}
# Caps and factors that small random logits feel.
KINDS = {
    "Gemma 2": Gemma2Config(**SHARED, head_dim=8, final_logit_softcapping=0.05),
    "Cohere": CohereConfig(**SHARED, logit_scale=0.25),
    "Granite": GraniteConfig(**SHARED, logits_scaling=8.0),
}


def written(config: Any, path: Path) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(path)
    load_tokenizer(BUNDLED / "e5-mistral/model").save_pretrained(path)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    model = written(KINDS[kind], tmp_path)
    options = StageOptions(model=str(tmp_path), output=tmp_path / "out", data="t")
    head = load_head(options, model.model)
    found = model(torch.tensor([[5, 6, 7]]), output_hidden_states=True)
    torch.testing.assert_close(head(found.hidden_states[-1]), found.logits)
    assert not torch.allclose(head(found.hidden_states[-1]), model.lm_head(found.hidden_states[-1]))


def test_a_soft_capped_model_is_trained(tmp_path: Path) -> None:
    """Gemma 2 in MNTP: the loss of transformers' own model with the same attention."""
    model = written(KINDS["Gemma 2"], tmp_path / "model")
    texts = str(write_texts(tmp_path / "texts.txt"))
    options = MNTP(
        model=str(tmp_path / "model"),
        output=tmp_path / "out",
        data=texts,
        dtype="float32",
        block_length=12,
        batch_size=3,
    )
    stage = mntp._Stage(options)
    batch = next(stage.batches(0))
    total = stage.model.eval()(batch.rows, labels=batch.labels)
    model.config.is_causal = False
    for module in model.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False
    model.config.use_bidirectional_attention = True
    found = model(torch.tensor(batch.rows), labels=torch.tensor(batch.labels)).loss
    count = sum(label != -100 for row in batch.labels for label in row[1:])
    torch.testing.assert_close(total / count, found)


def test_a_head_with_a_bias_is_refused(tmp_path: Path) -> None:
    shared = {**SHARED, "num_key_value_heads": 2}
    model = written(PhiConfig(**shared), tmp_path)
    options = StageOptions(model=str(tmp_path), output=tmp_path / "out", data="t")
    with pytest.raises(ValueError, match="has a bias"):
        load_head(options, model.model)
