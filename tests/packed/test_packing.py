"""Packed passes: every backbone, direction and kernel gives the vectors of one text at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close
from helpers.packed import (
    KINDS,
    LAST,
    MEAN,
    WORDS,
    make,
    one_by_one,
    varlen_kernels,
)
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedTokenizerFast

from llm_embeddings import Encoder, Recipe
from llm_embeddings.packed import attention, choice, kernels, sliding_window
from llm_embeddings.packed.pack import group

TEXTS = [" ".join(WORDS[i % 9 : i % 9 + n]) for i, n in enumerate([1, 3, 9, 4, 2, 16, 7, 3, 1, 12])]


@pytest.mark.parametrize("recipe", [LAST, MEAN], ids=["causal", "both ways"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_is_one_by_one(
    kind: str, recipe: Recipe, tokenizer: PreTrainedTokenizerFast
) -> None:
    backbone = make(kind)
    stock = copy.deepcopy(backbone)
    encoder = Encoder(backbone, tokenizer, recipe)
    assert encoder.packing == "packed without padding (SDPA)"
    for role in ("query", "document"):
        right = one_by_one(stock, encoder, TEXTS, role)
        assert np.abs(right[0] - right[1:]).max() > 0.05, "the texts must differ to prove anything"
        for _ in range(2):  # the second time the prefix is there
            assert_close(encoder.encode(TEXTS, role), right)
        assert_close([encoder.encode(text, role) for text in TEXTS], right)
        assert_close(encoder.encode(TEXTS, role, max_batch_tokens=30), right)


def test_passes_are_of_few_lengths(tokenizer: PreTrainedTokenizerFast) -> None:
    """A kernel is made and kept for each number of rows that is multiplied."""
    encoder = Encoder(make("Llama"), tokenizer, LAST)
    rows: set[int] = set()
    first: Any = encoder.backbone.layers[0].mlp  # type: ignore[index]
    first.register_forward_pre_hook(lambda _, args: rows.add(args[0].shape[1]))
    for words in range(1, 130):
        encoder.encode(" ".join(WORDS[i % len(WORDS)] for i in range(words)))
    assert len(rows) <= 64 / 4 + (130 - 64) / 16 + 1


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Mistral", {"sliding_window": 6}),
        ("Qwen2", {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}),
        ("Gemma3Text", {"sliding_window": 6, "query_pre_attn_scalar": 8}),
    ],
)
def test_sliding_window(
    kind: str, changes: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    backbone = make(kind, **changes)
    stock, whole = copy.deepcopy(backbone), make(kind, **{**changes, "sliding_window": 500})
    encoder = Encoder(backbone, tokenizer, LAST)
    assert encoder.packing.startswith("packed")
    right = one_by_one(stock, encoder, TEXTS, "query")
    assert np.abs(right - one_by_one(whole, encoder, TEXTS, "query")).max() > 0.01
    for _ in range(2):
        assert_close(encoder.encode(TEXTS, "query"), right)
    both = Encoder(make(kind, **changes), tokenizer, MEAN)
    assert both.packing.startswith("packed")
    assert_close(
        both.encode(TEXTS),
        one_by_one(make(kind, **{**changes, "sliding_window": 500}), both, TEXTS, "document"),
    )
    kept = Encoder(make(kind, **changes), tokenizer, MEAN.replace(window="keep"))
    assert kept.packing == "padded batches: its sliding window goes both ways"
    assert_close(kept.encode(TEXTS), one_by_one(make(kind, **changes), kept, TEXTS, "document"))


@pytest.mark.parametrize("recipe", [LAST, MEAN], ids=["causal", "both ways"])
def test_long_texts_with_heads_apart(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = make("Mistral")
    stock = copy.deepcopy(backbone)
    monkeypatch.setattr(attention, "_MANY_QUERIES", 4)
    encoder = Encoder(backbone, tokenizer, recipe)
    for role in ("query", "query", "document"):
        assert_close(encoder.encode(TEXTS, role), one_by_one(stock, encoder, TEXTS, role))


@pytest.mark.parametrize("window", [6, 40])
def test_long_texts_in_blocks(
    window: int, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of queries, the last of them not full, behind shared tokens and without."""
    texts = [" ".join(WORDS * n) for n in (3, 1, 6, 2)]
    right = [
        Encoder(make("Mistral", sliding_window=window), tokenizer, LAST).encode(texts, role)
        for role in ("document", "query")
    ]
    used, in_blocks = 0, sliding_window.in_blocks

    def counted(*states: torch.Tensor, **options: Any) -> torch.Tensor:
        nonlocal used
        used += 1
        return in_blocks(*states, **options)

    monkeypatch.setattr(sliding_window, "_BLOCK", 16)
    monkeypatch.setattr(attention, "LONG", 1)
    monkeypatch.setattr(attention, "pays", lambda query, keys, window: True)
    monkeypatch.setattr(sliding_window, "in_blocks", counted)
    encoder = Encoder(make("Mistral", sliding_window=window), tokenizer, LAST)
    for role, vectors in (("document", right[0]), ("query", right[1]), ("query", right[1])):
        assert_close(encoder.encode(texts, role), vectors)
    assert used > 12


def test_a_window_over_a_long_text() -> None:
    """What is computed in blocks from 1024 tokens on, against torch's kernel with a mask."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1500, heads, 8) for heads in (4, 2, 2))
    place = torch.arange(1500)
    seen = (place[:, None] >= place) & (place > place[:, None] - 900)
    states = (s.transpose(0, 1) for s in (query, key, value))
    wanted = scaled_dot_product_attention(*states, attn_mask=seen, enable_gqa=True)
    found = sliding_window.in_blocks(query, key, value, seen=0, scaling=None, window=900)
    assert_close(found, wanted.transpose(0, 1))
    pays = sliding_window.pays
    assert not pays(query[None], 1500, 900)  # gradients may be wanted
    with torch.inference_mode():
        assert pays(query[None], 1500, 900)
        assert not pays(query[None], 1500, 1500)
        assert not pays(query[None, :1000], 1500, 900)


def test_positions_that_depend_on_the_longest_row(tokenizer: PreTrainedTokenizerFast) -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 4.0, 9.0, 16.0],
        "original_max_position_embeddings": 24,
    }
    backbone = make("Phi3", rope_parameters=rope, original_max_position_embeddings=24)
    stock = copy.deepcopy(backbone)
    encoder = Encoder(backbone, tokenizer, LAST)
    texts = [" ".join(WORDS * 2), *TEXTS]
    lengths = [len(ids) for ids in encoder.tokenize(texts)]
    assert min(lengths) < 24 < max(lengths)
    for role in ("document", "query"):
        assert_close(encoder.encode(texts, role), one_by_one(stock, encoder, texts, role))


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("Gemma2", {}, "runs 'eager' attention of its own"),
        ("Llama", {"attn_implementation": "eager"}, "runs 'eager' attention of its own"),
        ("Cohere2", {"layer_types": ["full_attention"] * 3}, None),
    ],
)
def test_what_cannot_be_packed_is_padded(
    kind: str, changes: dict[str, Any], reason: str | None, tokenizer: PreTrainedTokenizerFast
) -> None:
    backbone = make(kind, **changes)
    stock = copy.deepcopy(backbone)
    encoder = Encoder(backbone, tokenizer, LAST)
    if reason:
        assert encoder.packing.startswith("padded batches: ")
        assert reason in encoder.packing
    for role in ("query", "document"):
        assert_close(encoder.encode(TEXTS, role), one_by_one(stock, encoder, TEXTS, role))


# -- variable-length kernels -----------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("recipe", [LAST, MEAN], ids=["causal", "both ways"])
@varlen_kernels
def test_variable_length_kernels(
    kernel: Callable[..., torch.Tensor],
    recipe: Recipe,
    window: int | None,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Encoder(make("Mistral", sliding_window=window), tokenizer, recipe)
    monkeypatch.setattr(choice, "kernels", lambda device, dtype: [("varlen", kernel)])
    encoder = Encoder(make("Mistral", sliding_window=window), tokenizer, recipe)
    assert encoder.packing == "packed without padding (varlen)"
    for role in ("query", "query", "document"):
        assert_close(encoder.encode(TEXTS, role), plain.encode(TEXTS, role))
    for ours, theirs in zip(encoder.encode_both(TEXTS), plain.encode_both(TEXTS), strict=True):
        assert_close(ours, theirs)


def test_a_kernel_that_is_wrong_or_fails_is_not_taken(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaks(pack: Any, query: Any, key: Any, value: Any, *others: Any) -> Any:
        states = (s.transpose(0, 1) for s in (query, key, value))
        out = scaled_dot_product_attention(*states, is_causal=True, enable_gqa=True)
        return out.transpose(0, 1)

    def fails(*arguments: Any) -> Any:
        raise RuntimeError("no kernel image")

    usual = kernels.kernels(torch.device("cpu"), torch.float32)
    bad = [("leaks", leaks), ("fails", fails)]
    monkeypatch.setattr(choice, "kernels", lambda device, dtype: [*bad, *usual])
    assert Encoder(make("Llama"), tokenizer, LAST).packing == "packed without padding (SDPA)"
    monkeypatch.setattr(choice, "kernels", lambda device, dtype: bad)
    encoder = Encoder(make("Llama"), tokenizer, LAST)
    assert "leaks: states differ by" in encoder.packing
    assert "fails: no kernel image" in encoder.packing
    assert_close(encoder.encode(TEXTS), one_by_one(make("Llama"), encoder, TEXTS, "document"))


def test_the_backbone_itself_stays_as_it_was(tokenizer: PreTrainedTokenizerFast) -> None:
    for recipe in (LAST, MEAN):
        backbone = make("Llama")
        stock = copy.deepcopy(backbone)
        stock.config.is_causal = recipe.causal
        Encoder(backbone, tokenizer, recipe)
        ids = torch.arange(12).reshape(2, 6) + 5
        for mask in (None, torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])):
            ours, theirs = (
                model(input_ids=ids, attention_mask=mask).last_hidden_state
                for model in (backbone, stock)
            )
            assert_close(ours[:, 2:].detach(), theirs[:, 2:].detach())


# -- two roles, shared first tokens ----------------------------------------------------------------


def test_both_roles_of_a_text(encoder: Encoder) -> None:
    texts = ["one text", "another, longer text", "one text", ""]
    queries, documents = encoder.encode_both(texts, normalize=True, truncate_dim=8)
    assert_close(queries, encoder.encode_query(texts, normalize=True, truncate_dim=8))
    assert_close(documents, encoder.encode_document(texts, normalize=True, truncate_dim=8))
    query, document = encoder.encode_both("one text")
    assert_close(query, encoder.encode_query("one text"))
    assert_close(document, encoder.encode_document("one text"))
    assert [part.shape for part in encoder.encode_both([])] == [(0, encoder.dimension)] * 2


def test_a_text_that_is_not_finite_stays_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    """Padding, shared tokens and pooling must not carry NaN from one text to another."""
    for recipe in (LAST, MEAN, LAST.replace(pooling="weighted_mean")):
        backbone = make("Llama")
        token = tokenizer("nobody", add_special_tokens=False)["input_ids"][0]
        encoder = Encoder(backbone, tokenizer, recipe)
        good = [text for text in TEXTS if "nobody" not in text]
        right = encoder.encode(good, "query")
        with torch.no_grad():
            backbone.embed_tokens.weight[token] = float("nan")
        with pytest.raises(ValueError, match=rf"texts\[{len(good)}\] \('of nobody'\)"):
            encoder.encode([*good, "of nobody"], "query")
        assert_close(encoder.encode(good, "query"), right)


@pytest.mark.parametrize("pooling", ["last_token", "mean", "weighted_mean", "first_token"])
@pytest.mark.parametrize("span", ["all", "text"])
def test_shared_first_tokens_with_every_pooling(
    pooling: Any, span: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    recipe = LAST.replace(pooling=pooling, pool_span=span)
    encoder = Encoder(make("Llama"), tokenizer, recipe)
    alone = [encoder.encode(t, "query", normalize=False, max_batch_tokens=1) for t in TEXTS]
    with torch.inference_mode():
        states = [
            encoder.backbone(input_ids=torch.tensor([ids])).last_hidden_state[0]
            for ids in encoder.tokenize(TEXTS, "query")
        ]
    if pooling == "last_token":
        assert_close(alone, [s[-1] for s in states])
    elif pooling == "mean" and span == "all":
        assert_close(alone, [s.mean(0) for s in states])
    assert_close(encoder.encode(TEXTS, "query", normalize=False), alone)


def test_groups_hold_every_sequence_and_waste_little() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 60, 300).tolist()
    keys = [n + int(random.integers(0, 2)) * 30 for n in lengths]
    groups = group(lengths, keys)
    assert sorted(i for texts in groups for i in texts) == list(range(300))
    for sizes in (lengths, keys):
        padded = sum(len(texts) * max(sizes[i] for i in texts) for texts in groups)
        assert padded <= 1.15 * sum(sizes)
