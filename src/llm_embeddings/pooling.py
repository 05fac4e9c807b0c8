"""Token ids -> hidden states -> vectors, in tensors. Serving and training share this forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-pad rows of token ids.

    Returns:
        Ids `[batch, length]` (int64, padded with 0: masks come from lengths, never from ids) and
        lengths `[batch]` (int64).
    """
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return ids.to(device), lengths.to(device)


def forward(
    backbone: PreTrainedModel, recipe: Recipe, ids: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Hidden states after the final norm.

    A causal backbone needs no mask: real tokens never see the padding on their right.

    Args:
        backbone: Decoder without a head, its attention direction set at load.
        recipe: The checkpoint's recipe.
        ids: `[batch, length]`, right-padded.
        lengths: `[batch]`, real tokens per row.

    Returns:
        `[batch, length, dim]` in the backbone's dtype; values at padding have no meaning.
    """
    mask = None
    if not recipe.causal and bool((lengths < ids.shape[1]).any()):
        mask = _positions(ids) < lengths[:, None]
    hidden: torch.Tensor = backbone(
        input_ids=ids, attention_mask=mask, use_cache=False
    ).last_hidden_state
    return hidden


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


def embed(
    backbone: PreTrainedModel,
    recipe: Recipe,
    ids: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """Vectors `[batch, dim]` (float32, not normalised) of right-padded rows; gradients flow."""
    return pool(forward(backbone, recipe, ids, lengths), starts.to(ids.device), lengths, recipe)


def _positions(rows: torch.Tensor) -> torch.Tensor:
    return torch.arange(rows.shape[1], device=rows.device)[None]
