"""A conversation -> the prompt in the format that a chat model was trained on, as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint.files import read_json
from ..checkpoint.sidecar import ChatFormat
from ..recipe import Recipe
from ..tokens import special_id, without_lone_surrogates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ChatMessage = Mapping[str, str]  # "role" and "content"
ChatPrompt = str | Sequence[ChatMessage]

USER, ASSISTANT = "<|user|>\n", "<|assistant|>\n"
_ROLES = ("system", "user", "assistant")
# `gritlm_prompt` in Jinja, without BOS; answers end with EOS. Names are as transformers gives them.
_GRITLM = (
    "{% set ns = namespace(system='', begun=false) %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{% set ns.system = ns.system + message['content'] + '\n' %}{% else %}"
    "{% if ns.begun %}{{ '\n' }}{% endif %}{% set ns.begun = true %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>\n' + ns.system + message['content'] }}"
    "{% set ns.system = '' %}{% else %}"
    "{{ '<|assistant|>\n' + message['content'] + eos_token }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<|assistant|>\n' }}{% endif %}"
)


def check_messages(prompt: ChatPrompt) -> list[dict[str, str]]:
    """A conversation as messages, checked; a string is one turn of the user.

    Raises:
        TypeError: neither a string nor messages with a role and a content that are strings.
        ValueError: an unknown role, or the last message is not the user's.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    found = []
    for index, message in enumerate(prompt):
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise TypeError(
                f"messages[{index}] is {message!r:.80}: a message is "
                "{'role': 'user', 'content': 'text'}"
            )
        if message.get("role") not in _ROLES:
            raise ValueError(f"messages[{index}]: role={message.get('role')!r} is not in {_ROLES}")
        found.append({"role": message["role"], "content": message["content"]})
    if not found or found[-1]["role"] != "user":
        raise ValueError("a conversation ends with a message of the user, which is answered")
    return found


def check_format(
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    template: str | None,
    trained: ChatFormat | None = None,
) -> str | None:
    """The Jinja template of prompts, or None for GritLM's format.

    Args:
        tokenizer: The checkpoint's tokenizer.
        recipe: Its family says in which format a published checkpoint was trained.
        template: What was asked for; None = nothing.
        trained: The format in which this package trained it; None = it did not.

    Raises:
        ValueError: there is neither a template nor a known format.
    """
    if template is None and (trained or recipe.family) == "gritlm":
        return None
    template = tokenizer.chat_template if template is None else template
    if not isinstance(template, str):
        raise ValueError(
            f"the tokenizer of {recipe.name!r} has no chat template: pass chat_template=..., a "
            "Jinja template as in transformers"
        )
    return template


def gritlm_template(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> str:
    """GritLM's format as a Jinja template, with the recipe's BOS, for other programs."""
    bos = special_id(tokenizer, recipe.bos, "bos")
    begin = "" if bos is None else str(tokenizer.convert_ids_to_tokens(bos))
    return begin + _GRITLM


def ends_of(directory: Path, eos: int | None) -> list[int]:
    """Token ids that end an answer: by the checkpoint's generation_config.json, else EOS."""
    found = read_json(directory / "generation_config.json").get("eos_token_id", eos)
    return [found] if isinstance(found, int) else list(found or [])


def prompt_ids(
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    messages: Sequence[ChatMessage],
    template: str | None,
    answer_start: str = "",
) -> list[int]:
    """Token ids of a prompt.

    Args:
        tokenizer: The checkpoint's tokenizer.
        recipe: Names the BOS with which GritLM's format begins.
        messages: From `check_messages`.
        template: From `check_format`; a template writes BOS itself.
        answer_start: First words of the answer, which the model continues.
    """
    text = prompt_text(tokenizer, messages, template) + answer_start
    return with_bos(tokenizer, recipe, text) if template is None else text_ids(tokenizer, text)


def prompt_text(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[ChatMessage], template: str | None
) -> str:
    """The prompt as a string, without BOS unless a template writes it."""
    if template is None:
        return gritlm_prompt(messages, str(tokenizer.eos_token))
    text = tokenizer.apply_chat_template(
        list(map(dict, messages)),
        chat_template=template,
        tokenize=False,
        add_generation_prompt=True,
    )
    return str(text)


def gritlm_prompt(messages: Sequence[ChatMessage], eos: str) -> str:
    r"""GritLM's format without BOS (arXiv 2402.09906; the same as Tülu 2's).

    Turns are joined by a newline and an answer ends with EOS. The format has no system role: in
    training such text stood before the next turn of the user, with a newline between them.
    """
    turns, system = [], ""
    for message in messages:
        content = message["content"]
        if message["role"] == "system":
            system += content + "\n"
        elif message["role"] == "user":
            turns.append(USER + system + content)
            system = ""
        else:
            turns.append(ASSISTANT + content + eos)
    return "\n".join([*turns, ASSISTANT])


def with_bos(tokenizer: PreTrainedTokenizerFast, recipe: Recipe, text: str) -> list[int]:
    """Token ids of a text after the recipe's BOS, if it has one."""
    bos = special_id(tokenizer, recipe.bos, "bos")
    return [*([] if bos is None else [bos]), *text_ids(tokenizer, text)]


def text_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids of a text alone: special tokens only where the text itself spells them."""
    clean = without_lone_surrogates(text)
    ids: list[int] = tokenizer.backend_tokenizer.encode(clean, add_special_tokens=False).ids
    return ids
