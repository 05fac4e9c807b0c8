"""New tokens for a model: in its tokenizer, its embeddings and its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def add_tokens(
    tokenizer: PreTrainedTokenizerFast,
    backbone: PreTrainedModel,
    head: torch.nn.Linear | None,
    tokens: Sequence[str],
    *,
    seed: int,
) -> list[int]:
    """Make each of `tokens` one entry of the vocabulary, and return their ids.

    Ids that the embeddings have no row for get one, drawn from the normal distribution that the
    model's weights were, the same on every process. Where the embeddings have more rows than the
    tokenizer has tokens (Qwen), some of those are taken.

    Args:
        tokenizer: Grows.
        backbone: Its embeddings grow.
        head: Grows with them; None = there is none.
        tokens: Those the tokenizer has already keep their ids.
        seed: Of the new rows.
    """
    from transformers import AddedToken

    missing = [token for token in tokens if token not in tokenizer.get_vocab()]
    if missing:
        fresh = [AddedToken(token, special=True, normalized=False) for token in missing]
        tokenizer.add_tokens(fresh, special_tokens=True)
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[token] for token in tokens]
    embedding: Any = backbone.get_input_embeddings()
    before = len(embedding.weight)
    if max(ids) >= before:
        config: Any = backbone.config
        tied = head is not None and head.weight is embedding.weight
        backbone.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        embedding = backbone.get_input_embeddings()
        generator = torch.Generator().manual_seed(seed)
        _fill(embedding.weight, before, config.initializer_range, generator)
        if head is not None and tied:
            head.weight = embedding.weight
            head.out_features = len(head.weight)
        elif head is not None:
            _grow(head, max(ids) + 1, config.initializer_range, generator)
    return ids


def _grow(head: torch.nn.Linear, rows: int, scale: float, generator: torch.Generator) -> None:
    """Append rows to a head that shares no weight."""
    old = head.weight
    weight = old.new_empty(rows, old.shape[1])
    weight[: len(old)] = old.detach()
    head.weight = torch.nn.Parameter(weight, requires_grad=old.requires_grad)
    head.out_features = rows
    _fill(head.weight, len(old), scale, generator)


def _fill(weight: torch.Tensor, first: int, scale: float, generator: torch.Generator) -> None:
    with torch.no_grad():
        drawn = torch.randn(len(weight) - first, weight.shape[1], generator=generator)
        weight[first:] = (drawn * scale).to(weight)
