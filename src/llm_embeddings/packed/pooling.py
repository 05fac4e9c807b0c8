"""Hidden states -> one vector per row, in tensors. Serving and training share it."""

from __future__ import annotations

import torch

from ..recipe import Recipe


def pool(
    hidden: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, recipe: Recipe
) -> torch.Tensor:
    """One vector per row, pooled in float32.

    Formulas: llm2vec 0.2.3 `LLM2Vec.get_pooling` and gritlm 1.0.2 `GritLM.pooling` agree on the
    mean and on weights 1..n for the weighted mean; the last k tokens are FlagEmbedding's LLARA.

    Args:
        hidden: `[batch, length, dim]`.
        starts: `[batch]`, first pooled position of the means.
        lengths: `[batch]`, real tokens per row.
        recipe: Says which pooling.

    Returns:
        `[batch, dim]`, float32, not normalised.
    """
    if recipe.pooling == "first_token":
        return hidden[:, 0].float()
    if recipe.pooling == "last_token":
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1].float()
    if recipe.pooling == "last_k_mean":
        starts = (lengths - (recipe.last_k or 1)).clamp(min=0)
    positions = _positions(hidden)
    inside = (positions >= starts[:, None]) & (positions < lengths[:, None])
    weights = inside.float()
    if recipe.pooling == "weighted_mean":
        weights = weights * weights.cumsum(1)
    weights = weights / weights.sum(1, keepdim=True)
    # Padding may hold anything, NaN included, and 0 * NaN is NaN.
    states = hidden.float().masked_fill(~inside[..., None], 0.0)
    return (states * weights[..., None]).sum(1)


def _positions(rows: torch.Tensor) -> torch.Tensor:
    return torch.arange(rows.shape[1], device=rows.device)[None]
