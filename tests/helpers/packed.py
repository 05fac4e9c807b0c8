"""Random backbones of several architectures, their stock passes, and stand-ins for kernels."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from llm_embeddings import Encoder, Recipe, Template
from llm_embeddings.packed import kernels

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 32100,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
KINDS: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": None},
    "Mixtral": {"num_local_experts": 4, "sliding_window": None},
    "Qwen2": {},
    "Qwen3": {},
    "Gemma": {},
    "Phi3": {},
}
QUERY = Template("Instruct: {instruction}\nQuery: ")
LAST = Recipe(
    name="last",
    causal=True,
    pooling="last_token",
    query=QUERY,
    eos=True,
    instruction="Given a question, retrieve passages that answer it",
)
MEAN = LAST.replace(name="mean", causal=False, window="drop", pooling="mean", pool_span="text")
WORDS = "the cat sat on a mat while rain fell over quiet hills and nobody spoke of it".split()


def make(kind: str, **changes: Any) -> PreTrainedModel:
    """A random backbone whose states depend visibly on what it attends to."""
    config: PreTrainedConfig = getattr(transformers, f"{kind}Config")(
        **{**SMALL, **KINDS.get(kind, {}), **changes}
    )
    torch.manual_seed(0)
    backbone = AutoModel.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in backbone.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.25)
    return backbone  # type: ignore[no-any-return]


def one_by_one(
    backbone: PreTrainedModel, encoder: Encoder, texts: list[str], role: Any
) -> np.ndarray[Any, Any]:
    """Last token or mean of the text, from stock passes over single texts."""
    backbone.config.is_causal = encoder.recipe.causal
    prefix = encoder.recipe.prefix(role)
    skip = len(encoder.tokenizer(prefix, add_special_tokens=False)["input_ids"]) if prefix else -1
    vectors = []
    for ids in encoder.tokenize(texts, role):
        with torch.inference_mode():
            states = backbone(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[0]
        last = encoder.recipe.pooling == "last_token"
        vectors.append(states[-1] if last else states[skip + 1 :].mean(0))
    found = torch.stack(vectors)
    return (found / found.norm(dim=1, keepdim=True)).numpy()


def varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor,
    most_queries: int,
    most_keys: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
    num_splits: int,
) -> torch.Tensor:
    """What `torch.nn.attention.varlen.varlen_attn` documents, text by text."""
    assert queries.dtype == keys.dtype == torch.int32
    assert int(queries.diff().max()) == most_queries
    assert int(keys.diff().max()) == most_keys
    assert num_splits == 1
    found = []
    for text in range(len(queries) - 1):
        q = query[queries[text] : queries[text + 1]].transpose(0, 1)
        k, v = (s[keys[text] : keys[text + 1]].transpose(0, 1) for s in (key, value))
        row = torch.arange(q.shape[1])[:, None] + k.shape[1] - q.shape[1]
        column = torch.arange(k.shape[1])
        left, right = window_size
        seen = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool)
        seen &= (column <= row + right) if right >= 0 else seen
        seen &= (column >= row - left) if left >= 0 else seen
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=seen, scale=scale, enable_gqa=enable_gqa
        )
        found.append(out.transpose(0, 1))
    return torch.cat(found)


def flash(
    *positional: Any, softmax_scale: float | None, causal: bool, window_size: tuple[int, int]
) -> tuple[torch.Tensor, None]:
    """What `flash_attn_varlen_func` documents; version 3 also returns a second value."""
    left, right = window_size
    sizes = (left, 0 if causal else right)
    out = varlen(*positional, scale=softmax_scale, window_size=sizes, enable_gqa=True, num_splits=1)
    return out, None


varlen_kernels = pytest.mark.parametrize(
    "kernel",
    [
        partial(kernels.torch_varlen, function=varlen),
        partial(kernels.flash_attention, function=flash),
    ],
    ids=["torch", "flash_attn"],
)
