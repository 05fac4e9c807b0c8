"""Masked next token prediction: blocks of token ids, and which tokens in them are hidden.

Facts: llm2vec 0.2.3 `experiments/run_mntp.py` and transformers' `DataCollatorForLanguageModeling`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch

from ..losses import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Style = Literal["bert", "all"]
MaskToken = Literal["blank", "eos", "mask"]

_MASKED, _RANDOM = 0.8, 0.5  # BERT: 80 % masked, half of the rest random, the other half kept
_BLANK, _MASK = "_", "<mask>"


def mask_tokens(
    ids: torch.Tensor,
    *,
    style: Style,
    mask_id: int,
    probability: float,
    vocabulary: int,
    generator: torch.Generator,
    special: Collection[int] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose tokens to predict and hide them.

    Args:
        ids: Token ids of any shape, int64, on the CPU.
        style: "bert": of the chosen tokens 80 % become the mask token, 10 % a random one, and 10 %
            stay (LLM2Vec's Llama models); "all": all become the mask token (its Mistral model).
        mask_id: Id of the mask token.
        probability: How likely a token is chosen.
        vocabulary: Random tokens are below this.
        generator: Source of randomness.
        special: Ids that are never chosen: BOS, EOS and their like.

    Returns:
        Ids to feed and labels, both int64 in the shape of `ids`. A label is the true id where a
        token was chosen, `IGNORED` elsewhere. `losses.next_tokens` pairs each with the state that
        predicts it, which is the one before.

    Raises:
        ValueError: an unknown style, or a probability that is not one.
    """
    if style not in get_args(Style):
        raise ValueError(f"style={style!r} is not one of {get_args(Style)}")
    if not 0 < probability < 1:
        raise ValueError(f"probability={probability!r} must lie between 0 and 1")

    def chance(of: float) -> torch.Tensor:
        return torch.rand(ids.shape, generator=generator) < of

    chosen = chance(probability)
    if special:
        chosen &= ~torch.isin(ids, torch.tensor(sorted(special)))
    labels = ids.masked_fill(~chosen, IGNORED)
    if style == "all":
        return ids.masked_fill(chosen, mask_id), labels
    hidden = chance(_MASKED) & chosen
    swapped = chance(_RANDOM) & chosen & ~hidden
    others = torch.randint(vocabulary, ids.shape, generator=generator)
    return torch.where(swapped, others, ids.masked_fill(hidden, mask_id)), labels


def mask_token(tokenizer: PreTrainedTokenizerFast, choice: MaskToken) -> str:
    """The token that stands for what is hidden.

    A tokenizer that has a mask token keeps it, as in the reference, whatever is chosen.

    Args:
        tokenizer: The checkpoint's tokenizer.
        choice: "blank" is the vocabulary's "_", "eos" the tokenizer's EOS, "mask" a new "<mask>".

    Returns:
        The token. Only "<mask>" may be missing from the vocabulary: add it, and resize the model.

    Raises:
        ValueError: the tokenizer lacks the token, or the choice is unknown.
    """
    if choice not in get_args(MaskToken):
        raise ValueError(f"mask_token={choice!r} is not one of {get_args(MaskToken)}")
    if tokenizer.mask_token is not None:
        return str(tokenizer.mask_token)
    if choice == "mask":
        return _MASK
    token = _BLANK if choice == "blank" else tokenizer.eos_token
    if token is None or tokenizer.backend_tokenizer.token_to_id(str(token)) is None:
        raise ValueError(
            f"mask_token={choice!r} needs the token {token!r}, which this tokenizer does not have: "
            "take 'mask', which adds one"
        )
    return str(token)


def blocks(
    rows: Iterable[Sequence[int]], length: int, *, lines: int | None = None
) -> Iterator[list[int]]:
    """Rows of ids laid end to end and cut into blocks of `length`, nothing padded.

    Args:
        rows: Token ids of each line, BOS included; read as they are needed.
        length: Tokens per block.
        lines: After each so many rows, ids that do not fill a block are dropped, as the reference
            does after every 1000; None = only at the very end.

    Yields:
        `length` ids each.
    """
    waiting: list[int] = []
    for number, row in enumerate(rows, 1):
        waiting.extend(row)
        while len(waiting) >= length:
            yield waiting[:length]
            del waiting[:length]
        if lines is not None and number % lines == 0:
            waiting.clear()
