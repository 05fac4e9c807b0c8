"""Conversations as a language model is trained on them: token ids, and which of them it learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...generation.chat import ASSISTANT, USER
from ...recipe import Recipe
from ...records.examples import Conversation
from ...tokens import special_id
from ..losses import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def render(conversation: Conversation, eos: str) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as one string, and the ranges of characters that the model learns to write.

    Turns are framed as Tulu 2's and GritLM's (arXiv 2402.09906, appendix; gritlm at 9710681):
    an answer loses the white space around it and ends with EOS, which is learnt too; turns are
    joined by a newline. A plain text has no frame and is learnt whole.

    Args:
        conversation: Turns of user and assistant, or one plain text.
        eos: The tokenizer's end-of-sequence token.

    Returns:
        The string, and (begin, end) of each range, in characters.
    """
    string, learnt = "", []
    for message in conversation.messages:
        if message.speaker == "text":
            learnt.append((len(string), len(string) + len(message.text)))
            string += message.text
        elif message.speaker == "user":
            string += f"{chr(10) if string else ''}{USER}{message.text}\n{ASSISTANT}"
        else:
            answer = message.text.strip() + eos
            learnt.append((len(string), len(string) + len(answer)))
            string += answer
    return string, learnt


def tokenize_conversation(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, conversation: Conversation, max_length: int
) -> tuple[list[int], list[int]]:
    """Token ids of a conversation and, for each, its label: the id, or `IGNORED` if not learnt.

    A token belongs to an answer if it begins in it. (gritlm counts the tokens of each turn on its
    own instead, and from the second turn on is two tokens off.)

    Args:
        tokenizer: The checkpoint's tokenizer.
        recipe: Says whether BOS comes first.
        conversation: The turns, or a plain text.
        max_length: Tokens kept, BOS included; the rest is cut off.

    Raises:
        ValueError: the tokenizer has no EOS to end an answer with.
    """
    if tokenizer.eos_token is None:
        raise ValueError("the tokenizer has no EOS token, with which an answer ends: set one")
    string, learnt = render(conversation, str(tokenizer.eos_token))
    backend: Any = tokenizer.backend_tokenizer
    encoded = backend.encode(string, add_special_tokens=False)
    bos = special_id(tokenizer, recipe.bos, "bos")
    ids = [] if bos is None else [bos]
    labels = [IGNORED] * len(ids)
    for token, (begin, _) in zip(encoded.ids, encoded.offsets, strict=True):
        ids.append(token)
        labels.append(token if any(a <= begin < b for a, b in learnt) else IGNORED)
    return ids[:max_length], labels[:max_length]
