"""Texts -> rows within the model's positions -> forward passes under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .batching import plan
from .recipe import Recipe, Role
from .tokens import Tokens, tokenize
from .vectors import Vectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_CPU_TOKENS, _ACCELERATOR_TOKENS = 2048, 16384


def positions(backbone: PreTrainedModel) -> int:
    """How many positions a sequence may have."""
    return int(getattr(backbone.config, "max_position_embeddings", None) or 2**31)


def default_limit(backbone: PreTrainedModel, recipe: Recipe) -> int:
    """The recipe's limit in tokens, within the backbone's positions."""
    return min(recipe.max_length, positions(backbone))


def rows_of(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    texts: Sequence[str],
    role: Role,
    instruction: str | None,
    max_length: int | None,
    *,
    with_offsets: bool = False,
) -> list[Tokens]:
    """Token ids of texts; arguments as for `tokenize`.

    Raises:
        ValueError: as `tokenize`, or more tokens than the model has positions.
    """
    most = positions(backbone)
    limit = default_limit(backbone, recipe) if max_length is None else max_length
    if not 1 <= limit <= most:
        raise ValueError(
            f"max_length={limit} is not between 1 and the {most} positions of this model"
        )
    rows = tokenize(tokenizer, recipe, texts, role, instruction, limit, with_offsets=with_offsets)
    longest = max((len(row.ids) for row in rows), default=0)
    if longest > most:
        raise ValueError(
            f"text and prompt take {longest} tokens, and this model has {most} positions: lower "
            "max_length"
        )
    return rows


def run(
    backbone: PreTrainedModel,
    recipe: Recipe,
    rows: Sequence[Tokens],
    max_batch_tokens: int | None,
    *,
    show_progress: bool,
    pooled: bool = True,
) -> Iterator[tuple[list[int], Vectors]]:
    """Run all rows, batch by batch.

    Yields:
        The indices of a batch's rows, and their vectors `[n, dim]` or, if not `pooled`, their
        hidden states `[n, longest, dim]`; float32.
    """
    import torch
    from tqdm.auto import tqdm

    from .pooling import embed, forward, pad

    device = backbone.device
    budget = max_batch_tokens or (_CPU_TOKENS if device.type == "cpu" else _ACCELERATOR_TOKENS)
    with tqdm(total=len(rows), unit="text", disable=not show_progress) as bar:
        for batch in plan([len(row.ids) for row in rows], budget):
            with torch.inference_mode():
                ids, lengths = pad([rows[index].ids for index in batch], device)
                starts = torch.tensor([rows[index].start for index in batch], device=device)
                if pooled:
                    result = embed(backbone, recipe, ids, starts, lengths)
                else:
                    result = forward(backbone, recipe, ids, lengths).float()
                found: Vectors = result.cpu().numpy()
            yield batch, found  # outside, or a caller who stops here stays in inference mode
            bar.update(len(batch))
