"""Rows of token ids padded to the longest -> hidden states, where packing cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..recipe import Recipe

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
        mask = torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]
    hidden: torch.Tensor = backbone(
        input_ids=ids, attention_mask=mask, use_cache=False
    ).last_hidden_state
    return hidden
