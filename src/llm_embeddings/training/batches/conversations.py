"""Conversations as a language model is trained on them: token ids, and which of them it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...checkpoint import sidecar
from ...checkpoint.files import Source, find, resolve
from ...checkpoint.sidecar import ChatFormat
from ...generation.chat import ASSISTANT, USER, ends_of
from ...recipe import Recipe
from ...records.examples import Conversation, Message
from ...tokens import special_id
from ..losses import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# What a template is tried on before training.
_TRIAL = Conversation(
    (
        Message("user", "What is two and two?"),
        Message("assistant", "four"),
        Message("user", "And three more?"),
        Message("assistant", "seven"),
    )
)


@dataclass(frozen=True, slots=True)
class Chat:
    """How conversations are framed.

    Attributes:
        format: GritLM's frame, or the tokenizer's own template.
        ends: Ids that end an answer; the model learns to write the first of them that follows.
    """

    format: ChatFormat
    ends: tuple[int, ...]


def chat_for(model: str, tokenizer: PreTrainedTokenizerFast, kind: ChatFormat | None) -> Chat:
    """`chat_of` for a model: the frame asked for, or that of an earlier run, or GritLM's."""
    directory = find(model, Source())
    saved = sidecar.read(directory)
    before = None if saved is None else saved.chat
    ends = ends_of(resolve(directory, (), Source()).root, tokenizer.eos_token_id)
    return chat_of(tokenizer, kind or before or "gritlm", ends)


def chat_of(tokenizer: PreTrainedTokenizerFast, kind: ChatFormat, ends: list[int]) -> Chat:
    """The frame of conversations, tried out.

    Args:
        tokenizer: The checkpoint's tokenizer.
        kind: Which frame.
        ends: Ids at which the checkpoint stops writing (`generation.chat.ends_of`). Where the
            tokenizer's template ends an answer with another special token, that one is added.

    Raises:
        ValueError: the tokenizer has no EOS or no template, or the template refuses a conversation
            or does not go with training: it changes what it has said, leaves out an answer, or
            does not end it.
    """
    if kind == "gritlm":
        if tokenizer.eos_token is None:
            raise ValueError("the tokenizer has no EOS token, with which an answer ends: set one")
        return Chat(kind, tuple({*ends, int(tokenizer.eos_token_id)}))
    string, learnt = _by_template(tokenizer, _TRIAL)
    answers = [turn.text for turn in _TRIAL.messages if turn.speaker == "assistant"]
    for answer, (begin, end) in zip(answers, learnt, strict=True):
        said, found, rest = string[begin:end].partition(answer)
        if not found:
            raise ValueError(f"the chat template leaves out the answer {answer!r}: {said!r:.80}")
        backend: Any = tokenizer.backend_tokenizer
        special = {*tokenizer.all_special_ids, *backend.get_added_tokens_decoder()}
        after = [
            number
            for number in backend.encode(rest, add_special_tokens=False).ids
            if number in special
        ]
        if not set(ends) & set(after):
            if not after:
                raise ValueError(
                    "the chat template ends an answer with no special token, so the model would "
                    "never learn to stop: train in GritLM's format, chat_format='gritlm'"
                )
            ends = [*ends, after[0]]
    return Chat(kind, tuple(ends))


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
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    conversation: Conversation,
    max_length: int,
    chat: Chat | None = None,
) -> tuple[list[int], list[int]]:
    """Token ids of a conversation and, for each, its label: the id, or `IGNORED` if not learnt.

    A token belongs to an answer if it begins in it. (gritlm counts the tokens of each turn on its
    own instead, and from the second turn on is two tokens off.) In a tokenizer's own template an
    answer goes on to the first token that ends it.

    Args:
        tokenizer: The checkpoint's tokenizer.
        recipe: Says whether BOS comes first; a tokenizer's template writes it itself.
        conversation: The turns, or a plain text.
        max_length: Tokens kept, BOS included; the rest is cut off.
        chat: From `chat_of`; None = GritLM's frame.

    Raises:
        ValueError: the tokenizer's template refuses the conversation.
    """
    plain = conversation.messages[0].speaker == "text"
    backend: Any = tokenizer.backend_tokenizer
    bos = special_id(tokenizer, recipe.bos, "bos")
    if chat is None or chat.format == "gritlm" or plain:
        string, learnt = render(conversation, str(tokenizer.eos_token))
        ids, ends = ([] if bos is None else [bos]), set[int]()
    else:
        string, learnt = _by_template(tokenizer, conversation)
        ids, ends = [], set(chat.ends)
    encoded = backend.encode(string, add_special_tokens=False)
    labels = [IGNORED] * len(ids)
    over = -1  # the begin of the last answer that has ended
    for token, (begin, _) in zip(encoded.ids, encoded.offsets, strict=True):
        answer = next((a for a, b in learnt if a <= begin < b), None)
        ids.append(token)
        labels.append(IGNORED if answer is None or answer == over else token)
        if answer is not None and token in ends:
            over = answer
    return ids[:max_length], labels[:max_length]


def _by_template(
    tokenizer: PreTrainedTokenizerFast, conversation: Conversation
) -> tuple[str, list[tuple[int, int]]]:
    """As `render`, in the tokenizer's own template; a range goes on to the next answer's prompt.

    Raises:
        ValueError: there is no template, it refuses the conversation, or a prompt in it is not how
            the whole conversation begins.
    """
    if not isinstance(tokenizer.chat_template, str):
        raise ValueError(
            "the tokenizer has no chat template of its own: train in GritLM's format, "
            "chat_format='gritlm', or give it one"
        )
    messages = [
        {"role": turn.speaker, "content": _stripped(turn)} for turn in conversation.messages
    ]

    def written(count: int, *, prompt: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    messages[:count], tokenize=False, add_generation_prompt=prompt
                )
            )
        except Exception as error:  # whatever a template raises
            raise ValueError(f"the chat template refuses a conversation: {error}") from error

    string = written(len(messages), prompt=False)
    begins = []
    for place in range(1, len(messages), 2):
        before = written(place, prompt=True)
        if not string.startswith(before):
            raise ValueError(
                "the chat template writes the beginning of a conversation in another way once it "
                f"goes on ({before[-40:]!r}): train in GritLM's format, chat_format='gritlm'"
            )
        begins.append(len(before))
    return string, list(zip(begins, [*begins[1:], len(string)], strict=True))


def _stripped(turn: Message) -> str:
    """The text of a turn; an answer without the white space around it."""
    return turn.text.strip() if turn.speaker == "assistant" else turn.text
