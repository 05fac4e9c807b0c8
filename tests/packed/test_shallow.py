"""A narrow model answers for a large one what does not depend on the values of weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from helpers import BUNDLED
from helpers.random_architectures import ARCHITECTURES, make_backbone
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from llm_embeddings import Encoder, Recipe
from llm_embeddings.arithmetic.stored import MODEL_TYPES
from llm_embeddings.checkpoint.checks import attends_causally
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.packed import shallow

TOKENIZER = load_tokenizer(BUNDLED / "e5-mistral/model")
KNOWN = [
    name
    for name, architecture in ARCHITECTURES.items()
    if getattr(transformers, architecture.config).model_type in MODEL_TYPES
]
MEAN = Recipe(name="mean", causal=False, pooling="mean")


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shallow, "_LARGE", 0)


def made(name: str, **values: Any) -> PreTrainedModel:
    return make_backbone(ARCHITECTURES[name], TOKENIZER, 3, rows=len(TOKENIZER), **values)


def is_narrow(backbone: PreTrainedModel) -> bool:
    return shallow.shallow(backbone).get_input_embeddings().weight.shape[0] < len(TOKENIZER)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("causal", [True, False, None])
def test_it_attends_as_the_layers_themselves_do(
    name: str, causal: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = made(name)
    if causal is not None:
        backbone.config.is_causal = causal
    assert is_narrow(backbone)
    found = attends_causally(backbone)
    monkeypatch.setattr(shallow, "_LARGE", 2**40)
    assert not is_narrow(backbone)
    assert found == attends_causally(backbone) == (causal is not False)


@pytest.mark.parametrize("name", KNOWN)
def test_a_class_that_ignores_the_switch_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = made(name)
    attention = type(backbone.get_submodule("layers.0.self_attn"))
    forward = attention.forward

    def deaf(self: Any, *given: Any, **more: Any) -> Any:
        return forward(self, *given, **more | {"is_causal": True, "attention_mask": None})

    monkeypatch.setattr(attention, "forward", deaf)
    assert is_narrow(backbone)
    with pytest.raises(ValueError, match=r"needs bidirectional attention, but \w+ attends caus"):
        Encoder(backbone, TOKENIZER, MEAN)


def test_what_is_not_stock_answers_for_itself() -> None:
    adapted = made("llama")
    get_peft_model(adapted, LoraConfig(target_modules=["q_proj"]))
    hooked = made("llama")
    hooked.get_submodule("layers.1.mlp").register_forward_hook(lambda *_: None)
    bound = made("llama")
    layer = bound.get_submodule("layers.1")
    layer.forward = layer.forward  # as accelerate does
    assert not any(map(is_narrow, (adapted, hooked, bound)))


def test_windows_of_some_layers_stay_apart() -> None:
    kinds = ["sliding_attention", "full_attention"]
    backbone = made("qwen2", layer_types=kinds, sliding_window=4, use_sliding_window=True)
    found = shallow.shallow(backbone)
    assert found.config.layer_types == kinds
    assert found.config.sliding_window == 4


def test_torchs_generator_stays_where_it_was() -> None:
    backbone = made("llama")
    before = torch.get_rng_state()
    shallow.shallow(backbone)
    assert torch.equal(before, torch.get_rng_state())
