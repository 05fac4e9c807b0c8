"""The last layer computes only what is pooled, and gives it the states that it has among all."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers import assert_close
from helpers.packed import KINDS, LAST, MEAN, WORDS, make, one_by_one, varlen_kernels
from transformers import PreTrainedTokenizerFast

from llm_embeddings import Encoder, Recipe
from llm_embeddings import forward as passes
from llm_embeddings.packed import choice, last_layer, served

TEXTS = [" ".join(WORDS[i % 7 : i % 7 + n]) for i, n in enumerate([1, 3, 9, 4, 2, 10, 7, 3, 1] * 4)]
RECIPES = {
    "last token": LAST,
    "last tokens": LAST.replace(pooling="last_k_mean", last_k=4),
    "causal mean": LAST.replace(pooling="mean", pool_span="text"),
    "weighted mean": LAST.replace(pooling="weighted_mean", pool_span="text"),
    "both ways": MEAN,
    "last token, both ways": LAST.replace(causal=False, window="drop"),
}


@contextmanager
def rows_of_last_mlp(encoder: Encoder) -> Iterator[list[int]]:
    """Tokens of each pass that reach the MLP of the last layer."""
    sizes: list[int] = []
    mlp: Any = encoder.backbone.layers[-1].mlp  # type: ignore[index]
    handle = mlp.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1]))
    try:
        yield sizes
    finally:
        handle.remove()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("kind", [*KINDS, "Gemma3Text"])
def test_the_states_are_those_of_whole_passes(
    kind: str,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passes, "_MIN_UNREAD", 1)
    window = {"sliding_window": 6, "query_pre_attn_scalar": 8} if kind == "Gemma3Text" else {}
    encoder = Encoder(make(kind, **window), tokenizer, recipe)
    monkeypatch.setattr(served, "trims", lambda backbone, recipe, kernel: False)
    whole = Encoder(make(kind, **window), tokenizer, recipe)
    for role in ("query", "query", "document"):  # the second time the instruction is there
        with rows_of_last_mlp(encoder) as some, rows_of_last_mlp(whole) as everything:
            assert_close(encoder.encode(TEXTS, role), whole.encode(TEXTS, role))
        all_are_read = "mean" in recipe.pooling and (recipe.causal or role == "document")
        assert sum(some) < sum(everything) or (all_are_read and recipe.last_k is None)
    for ours, theirs in zip(encoder.encode_both(TEXTS), whole.encode_both(TEXTS), strict=True):
        assert_close(ours, theirs)


def test_one_row_per_text(tokenizer: PreTrainedTokenizerFast) -> None:
    backbone = make("Llama")
    stock = copy.deepcopy(backbone)
    encoder = Encoder(backbone, tokenizer, LAST)
    with rows_of_last_mlp(encoder) as sizes:
        found = encoder.encode(TEXTS)
    assert sum(sizes) == len(set(TEXTS)) + 2  # a multiple of four
    assert_close(found, one_by_one(stock, encoder, TEXTS, "document"))


@pytest.mark.parametrize("recipe", [LAST, MEAN], ids=["causal", "both ways"])
@varlen_kernels
def test_variable_length_kernels(
    kernel: Any,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Encoder(make("Mistral", sliding_window=6), tokenizer, recipe)
    monkeypatch.setattr(choice, "kernels", lambda device, dtype: [("varlen", kernel)])
    encoder = Encoder(make("Mistral", sliding_window=6), tokenizer, recipe)
    for role in ("query", "query", "document"):
        with rows_of_last_mlp(encoder) as sizes:
            assert_close(encoder.encode(TEXTS, role), plain.encode(TEXTS, role))
        assert role == "document" or sum(sizes) < sum(map(len, encoder.tokenize(TEXTS, role))) / 2


def test_hidden_states_are_those_of_all_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(make("Llama"), tokenizer, LAST)
    with rows_of_last_mlp(encoder) as sizes:
        encoder.encode_tokens(TEXTS)
    assert 0 <= sum(sizes) - sum(map(len, encoder.tokenize(TEXTS))) < 16


class Flipped(torch.nn.Module):
    """Hands states on in the wrong order."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states.flip(1)


def test_a_backbone_that_cannot_is_run_whole(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Encoder(make("Llama"), tokenizer, LAST).encode(TEXTS)

    def no_layers(backbone: Any) -> Any:
        raise AttributeError("layers")

    def scrambled(backbone: Any) -> Any:
        twin: Any = trimmed(backbone)
        twin.norm = torch.nn.Sequential(twin.norm, Flipped())
        return twin

    trimmed = last_layer.trimmed
    for wrong in (no_layers, scrambled):
        monkeypatch.setattr(last_layer, "trimmed", wrong)
        encoder = Encoder(make("Llama"), tokenizer, LAST)
        with rows_of_last_mlp(encoder) as sizes:
            assert_close(encoder.encode(TEXTS), right)
        assert sum(sizes) > len(TEXTS)


def test_training_and_stock_passes_see_all_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    backbone = make("Llama")
    Encoder(backbone, tokenizer, LAST).encode(TEXTS)
    assert not backbone.layers[-1]._forward_pre_hooks  # type: ignore[index]
    assert "forward" not in vars(backbone.layers[-1])  # type: ignore[index]
    states = backbone(input_ids=torch.arange(12)[None] + 5).last_hidden_state
    assert states.shape[1] == 12
    states.sum().backward()
