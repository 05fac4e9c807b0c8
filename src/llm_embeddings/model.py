"""Texts -> rows of token ids within the model's positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .recipe import Recipe, Role
from .tokens import Tokens, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


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
