"""Hidden states -> one vector per row, in tensors. Serving and training share it."""

from __future__ import annotations

import torch

from ..recipe import Pooling, Recipe


def pool(
    hidden: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, recipe: Recipe
) -> torch.Tensor:
    """One vector per row, pooled in float32.

    Formulas: llm2vec 0.2.3 `LLM2Vec.get_pooling` and gritlm 1.0.2 `GritLM.pooling` agree on the
    mean and on weights 1..n for the weighted mean; the last k tokens are FlagEmbedding's LLARA; the
    maximum and the sum over the root of the length are sentence-transformers' `Pooling`.

    Args:
        hidden: `[batch, length, dim]`.
        starts: `[batch]`, first pooled position of the means; at `lengths` where there is none.
        lengths: `[batch]`, real tokens per row.
        recipe: Says which pooling.

    Returns:
        `[batch, poolings * dim]`, float32, not normalised.
    """
    firsts = torch.zeros_like(starts)
    if recipe.pool_span == "behind_prompt":
        firsts = starts.where(starts < lengths, 0)
    parts = [
        hidden[torch.arange(len(hidden), device=hidden.device), firsts].float()
        if mode == "first_token"
        else _pooled(mode, hidden, starts, lengths, recipe.last_k or 1)
        for mode in recipe.poolings
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _pooled(
    mode: Pooling, hidden: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor, last_k: int
) -> torch.Tensor:
    """One vector per row by one pooling, float32."""
    if mode == "last_token":
        states = hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1].float()
        return states.masked_fill((starts >= lengths)[:, None], 0.0)
    if mode == "last_k_mean":
        starts = (lengths - last_k).clamp(min=0)
    positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
    inside = (positions >= starts[:, None]) & (positions < lengths[:, None])
    if mode == "max":
        return hidden.float().masked_fill(~inside[..., None], -torch.inf).amax(1)
    weights = inside.float()
    if mode == "weighted_mean":
        weights = weights * weights.cumsum(1)
    # A span without tokens gives zeros.
    total = weights.sum(1, keepdim=True).clamp(min=1)
    weights = weights / (total.sqrt() if mode == "mean_sqrt_length" else total)
    # Padding may hold anything, NaN included, and 0 * NaN is NaN.
    states = hidden.float().masked_fill(~inside[..., None], 0.0)
    return (states * weights[..., None]).sum(1)
