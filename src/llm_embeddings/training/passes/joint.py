"""LLaRA's forward pass: a text once, and both of its prompts continuing it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ...recipe import Recipe, Role
from ...tokens import tokenize
from ..batches.passages import Passage
from ..losses import IGNORED, bag_of_words_nll, head_nll_sum, next_tokens
from .encoding import Encoding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# NLTK's English stop words without apostrophes, which the rule below never leaves, and the marks
# that FlagEmbedding's research/LLARA/pretrain/data.py (7ed43d6) adds to them.
STOP_WORDS = frozenset(
    """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she
    her hers herself it its itself they them their theirs themselves what which who whom this that
    these those am is are was were be been being have has had having do does did doing a an the and
    but if or because as until while of at by for with about against between into through during
    before after above below to from up down in out on off over under again further then once here
    there when where why how all any both each few more most other some such no nor not only own
    same so than too very s t can will just don should now d ll m o re ve y ain aren couldn didn
    doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn ! , . ?
    """.split()
)


@dataclass(frozen=True, slots=True)
class JointPrompts:
    """The token ids around every text: what comes before it and the two prompts that follow.

    Attributes:
        prefix: Ids before a text, BOS included.
        summary: Ids of the prompt SELF, which follows documents.
        following: Ids of the prompt NEXT, which follows queries.
        slots: How many last tokens of a prompt are pooled into its vector.
    """

    prefix: tuple[int, ...]
    summary: tuple[int, ...]
    following: tuple[int, ...]
    slots: int

    @property
    def tokens(self) -> int:
        """How many tokens the prefix and both prompts have together."""
        return len(self.prefix) + len(self.summary) + len(self.following)


@dataclass(frozen=True, slots=True)
class Joint:
    """A passage as token ids, with the words that its two embeddings are trained to tell.

    Attributes:
        ids: Ids of prefix and text.
        summary: Different ids of the words that SELF's embedding has to tell.
        following: The same for NEXT; empty where nothing follows the passage.
    """

    ids: list[int]
    summary: list[int]
    following: list[int]


def check_recipe(recipe: Recipe) -> None:
    """Check that both prompts of a recipe can continue one and the same text.

    Raises:
        ValueError: its roles differ before the text, or it is not causal with "last_k_mean".
    """
    if recipe.join != "segments" or recipe.query.prefix != recipe.document.prefix:
        raise ValueError(
            f"recipe {recipe.name!r} does not put two prompts behind the same text: llara trains "
            "LLaRA's recipe, or one with join='segments' and one prefix for both roles"
        )
    if not recipe.causal or recipe.last_k is None:
        raise ValueError(f"recipe {recipe.name!r} is not causal with pooling='last_k_mean'")


def joint_prompts(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> JointPrompts:
    """The prefix and both prompts of a recipe that `check_recipe` accepts."""
    assert recipe.last_k is not None
    roles: tuple[Role, Role] = ("document", "query")
    empty = [tokenize(tokenizer, recipe, [""], role)[0] for role in roles]
    prefix = empty[0].ids[: empty[0].start]
    suffixes = [tuple(row.ids[row.start :]) for row in empty]
    return JointPrompts(tuple(prefix), suffixes[0], suffixes[1], recipe.last_k)


def tokenize_joint(
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    prompts: JointPrompts,
    passages: Sequence[Passage],
    *,
    cutoff: int,
    stop_words: bool,
) -> list[Joint]:
    """Token ids of passages and of their targets.

    As FlagEmbedding's research/LLARA/pretrain/data.py (7ed43d6) makes them.

    Args:
        tokenizer: The tokenizer, with the recipe's special tokens added.
        recipe: The model's recipe.
        prompts: As `joint_prompts` gives them.
        passages: The passages of a batch.
        cutoff: Most tokens of a text with prefix and both prompts, and of a target with its BOS.
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
    """Backbone and language-model head; one forward gives the three sums of a chunk's loss."""

    def __init__(self, encoding: Encoding, head: torch.nn.Linear, prompts: JointPrompts) -> None:
        """Keep the three; the parameters of backbone and head are this module's."""
        super().__init__()
        self.encoding, self.head, self.prompts = encoding, head, prompts

    def forward(self, rows: Sequence[Any], starts: Sequence[int] | None = None) -> torch.Tensor:
        """The three sums of negative log-likelihoods of `Joint` rows; with `starts`, vectors.

        Args:
            rows: `Joint` rows or, with `starts`, token ids.
            starts: First pooled position of each row.

        Returns:
            `[3]`, float32: of the next tokens, summed over tokens; of SELF's words and of NEXT's
            words, summed over rows that have words. With `starts`, vectors `[rows, dim]`.
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
        """Hidden states of texts and of both prompts' pooled tokens.

        Each prompt continues the text: its positions go on from the text's end, and it does not see
        the other prompt. The reference computes the same with a mask and rewound positions, in rows
        that hold text and both prompts.

        Returns:
            Prefix and text, `[tokens, dim]` per row; the last tokens of SELF and of NEXT,
            `[rows, slots, dim]` each.
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


def content_words(text: str) -> str:
    """A text without punctuation and English stop words, one space between words."""
    words = re.sub(r"[\W_]+", " ", text).split()
    return " ".join(word for word in words if word.lower() not in STOP_WORDS)


def _words(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], limit: int) -> list[list[int]]:
    """The different ids among each text's first `limit` tokens, without special ones, sorted."""
    backend: Any = tokenizer.backend_tokenizer
    special = set(tokenizer.all_special_ids)
    encoded = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    return [sorted(set(row.ids[:limit]) - special) for row in encoded]
