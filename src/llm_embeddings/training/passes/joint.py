"""LLaRA's joint prompt: a text once, and both prompts continuing it, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...recipe import Recipe, Role
from ...tokens import tokenize
from ..batches.passages import Passage
from ..losses import IGNORED, bag_of_words_nll, head_nll_sum, next_tokens
from .encoding import Encoding
from .words import content_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is the same for all texts.

    Attributes:
        prefix: Ids before a text, BOS included.
        summary: Ids of SELF, which stands behind documents.
        following: Ids of NEXT, which stands behind queries.
        slots: How many last tokens of each make its vector.
    """

    prefix: tuple[int, ...]
    summary: tuple[int, ...]
    following: tuple[int, ...]
    slots: int

    @property
    def tokens(self) -> int:
        """Tokens of all three."""
        return len(self.prefix) + len(self.summary) + len(self.following)


@dataclass(frozen=True, slots=True)
class Joint:
    """A passage as it is trained on.

    Attributes:
        ids: Prefix and text.
        summary: Ids of the words that SELF has to tell.
        following: Ids of the words that NEXT has to tell; empty where nothing follows.
    """

    ids: list[int]
    summary: list[int]
    following: list[int]


def check_recipe(recipe: Recipe) -> None:
    """Both prompts of a recipe must continue one and the same text.

    Raises:
        ValueError: they do not.
    """
    if recipe.join != "segments" or recipe.query.prefix != recipe.document.prefix:
        raise ValueError(
            f"recipe {recipe.name!r} does not put two prompts behind the same text: llara trains "
            "LLaRA's recipe, or one with join='segments' and one prefix for both roles"
        )
    if not recipe.causal or recipe.last_k is None:
        raise ValueError(f"recipe {recipe.name!r} is not causal with pooling='last_k_mean'")


def prompts_of(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Prompts:
    """Both prompts of a recipe, as `check_recipe` accepts them."""
    assert recipe.last_k is not None
    roles: tuple[Role, Role] = ("document", "query")
    empty = [tokenize(tokenizer, recipe, [""], role)[0] for role in roles]
    prefix = empty[0].ids[: empty[0].start]
    suffixes = [tuple(row.ids[row.start :]) for row in empty]
    return Prompts(tuple(prefix), suffixes[0], suffixes[1], recipe.last_k)


def tokenize_joint(
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    prompts: Prompts,
    passages: Sequence[Passage],
    *,
    cutoff: int,
    stop_words: bool,
) -> list[Joint]:
    """Passages as rows (FlagEmbedding research/LLARA/pretrain/data.py at 7ed43d6).

    Args:
        tokenizer: With the recipe's tokens.
        recipe: Of the model.
        prompts: As `prompts_of` gives them.
        passages: Of a batch.
        cutoff: Tokens of text and all prompts, and of a target with its BOS.
        stop_words: Whether targets keep their stop words and punctuation.
    """
    room = cutoff - prompts.tokens
    texts = [passage.text for passage in passages]
    rows = tokenize(tokenizer, recipe, texts, "document", max_length=room)
    clean = str if stop_words else content_words
    summaries, followings = (
        _words(tokenizer, [clean(text) for text in column], cutoff - 1)
        for column in (
            [passage.summary for passage in passages],
            [passage.following for passage in passages],
        )
    )
    tail = len(prompts.summary)
    return [
        Joint(row.ids[: len(row.ids) - tail], summary, following)
        for row, summary, following in zip(rows, summaries, followings, strict=True)
    ]


class JointModel(torch.nn.Module):
    """Backbone and head. One forward gives the three sums of a chunk's loss."""

    def __init__(self, encoding: Encoding, head: torch.nn.Linear, prompts: Prompts) -> None:
        """Put them together."""
        super().__init__()
        self.encoding, self.head, self.prompts = encoding, head, prompts

    def forward(self, rows: Sequence[Any], starts: Sequence[int] | None = None) -> torch.Tensor:
        """Sums over `Joint` rows, `[3]`, float32: next token, SELF's words, NEXT's words.

        The first is a sum over tokens, the others over rows that have words. With `starts`, rows
        are token ids, and their vectors are what comes back.
        """
        if starts is not None:
            return self.encoding.vectors(rows, starts)
        texts, summary, following = self.states(rows)
        start = len(self.prompts.prefix)
        labels = [[*[IGNORED] * start, *row.ids[start:]] for row in rows]
        places, wanted = next_tokens(labels)
        hidden = torch.cat(texts)
        language, _ = head_nll_sum(
            self.head, hidden[places], torch.tensor(wanted, device=hidden.device)
        )
        bags = [
            bag_of_words_nll(self.head(slots), words)[0]
            for slots, words in (
                (summary, [row.summary for row in rows]),
                (following, [row.following for row in rows]),
            )
        ]
        return torch.stack([language, *bags])

    def states(
        self, rows: Sequence[Joint]
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """States of prefix and text, `[tokens, dim]` each, and of the slots, `[rows, slots, dim]`.

        The prompts continue the text: positions go on from its end and neither sees the other. The
        reference computes the same with a mask and rewound positions, in rows that hold all three.
        """
        n, prompts = len(rows), self.prompts
        hidden = self.encoding.hidden(
            [
                *(row.ids for row in rows),
                *[list(prompts.summary)] * n,
                *[list(prompts.following)] * n,
            ],
            parents=[*[None] * n, *range(n), *range(n)],
        )
        slots = [
            torch.stack([states[-prompts.slots :] for states in part])
            for part in (hidden[n : 2 * n], hidden[2 * n :])
        ]
        return hidden[:n], slots[0], slots[1]


def _words(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], limit: int) -> list[list[int]]:
    """The different ids of each text's first tokens, special ones left out."""
    backend: Any = tokenizer.backend_tokenizer
    special = set(tokenizer.all_special_ids)
    encoded = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    return [sorted(set(row.ids[:limit]) - special) for row in encoded]
