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
    """Make each of `tokens` one entry of the vocabulary.

    Ids that the embeddings have no row for get one, drawn from the normal distribution that the
    model's weights were, the same on every process. Where the embeddings have more rows than the
    tokenizer has tokens (Qwen), some of those are taken.

    Args:
        tokenizer: Changed in place: gets those of `tokens` that it lacks.
        backbone: Changed in place: its embedding matrix gets the missing rows.
        head: Language-model head, changed with the embeddings; None = there is none.
        tokens: What to add; a token that the tokenizer knows keeps its id.
        seed: Seed of the random new rows.

    Returns:
        The id of each of `tokens`.
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
    """Append random rows to a head that has a weight of its own (not tied to the embeddings)."""
    old = head.weight
    weight = old.new_empty(rows, old.shape[1])
    weight[: len(old)] = old.detach()
    head.weight = torch.nn.Parameter(weight, requires_grad=old.requires_grad)
    head.out_features = rows
    _fill(head.weight, len(old), scale, generator)


def _fill(weight: torch.Tensor, first: int, scale: float, generator: torch.Generator) -> None:
    """Draw the rows from `first` on from a normal distribution of standard deviation `scale`."""
    with torch.no_grad():
        drawn = torch.randn(len(weight) - first, weight.shape[1], generator=generator)
        weight[first:] = (drawn * scale).to(weight)
