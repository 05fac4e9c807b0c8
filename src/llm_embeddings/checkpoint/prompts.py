"""What sentence-transformers' files put around a text: named prompts, and a chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..families import e5_mistral, gritlm, siblings
from ..recipe import Recipe, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_INSTRUCTED = (e5_mistral.TEMPLATE, siblings.QWEN3, gritlm.TEMPLATE, siblings.BGE_ICL)
_PLACE = "{instruction}"
# Two texts that no template holds, and one whose ends are white space.
_PROBES = ("first-9f3b", "second-4c1d")
_WHITE = "\n  third-7e2a \n"

Frame = Callable[[str], Template]  # a prompt ("" = none) -> what stands around a text


@dataclass(frozen=True, slots=True)
class Stated:
    """The fields of a recipe that prompts decide."""

    query: Template
    document: Template
    instruction: str
    prompts: tuple[tuple[str, Template], ...]


def stated_templates(directory: Path, given: Mapping[str, Any], chat: Frame | None) -> Stated:
    """Templates of queries, of documents, and of every other named prompt.

    Args:
        directory: The checkpoint, for messages.
        given: `prompts` of config_sentence_transformers.json.
        chat: What the chat template makes of a prompt; None = texts follow the prompt.

    Raises:
        ValueError: a prompt that is no string, or names that versions read differently.
    """
    prompts = _strings(directory, given)
    other = next((name for name in ("passage", "corpus") if prompts.get(name)), None)
    if other and "document" not in prompts:
        raise ValueError(
            f"{directory} has a prompt {other!r} and none named 'document': sentence-transformers "
            "6 leaves it out, earlier versions do not. Name it 'document' in "
            "config_sentence_transformers.json, or pass recipe=Recipe(...)"
        )
    frame = chat or Template
    named = tuple((n, frame(p)) for n, p in prompts.items() if n not in ("query", "document"))
    query, document = prompts.get("query", ""), prompts.get("document", "")
    if not query and chat is None and _states_a_template(prompts.get("web_search_query", "")):
        # E5-Mistral's name for it, which sentence-transformers leaves out.
        query = prompts["web_search_query"]
    template = _states_a_template(query) if chat is None else None
    if template is None:
        return Stated(frame(query), frame(document), "", named)
    head, tail = template.prefix.split(_PLACE)
    documents = template if document == template.bare else Template(document)
    instruction = query.removeprefix(head).removesuffix(tail)
    return Stated(template, documents, instruction, named)


def agreed_prompts(directory: Path, known: Recipe, given: Mapping[str, Any]) -> Recipe:
    """A listed recipe with the default instruction and the further prompts that files name.

    Raises:
        ValueError: a prompt of queries or documents that the recipe's template does not make.
    """
    prompts = _strings(directory, given)
    instruction = known.instruction
    for role in ("query", "document"):
        stated, template = prompts.pop(role, ""), known.template(role)
        head, place, tail = template.prefix.partition(_PLACE)
        made = stated in ("", template.prefix, template.bare)
        if place and stated and stated.startswith(head) and stated.endswith(tail):
            made = True
            if role == "query":
                instruction = stated.removeprefix(head).removesuffix(tail)
        if not made:
            raise ValueError(
                f"{directory} was to be loaded as {known.name!r}, whose {role} template is "
                f"{template.prefix!r}, but its files say {stated!r}. Pass the right recipe, or a "
                "Recipe object to insist"
            )
    more = {name: Template(prompt) for name, prompt in prompts.items()}
    named = tuple({**dict(known.prompts), **more}.items())
    if (instruction, named) == (known.instruction, known.prompts):
        return known
    return known.replace(instruction=instruction, prompts=named)


def _strings(directory: Path, given: Mapping[str, Any]) -> dict[str, str]:
    """Prompts that can be put before a text.

    Raises:
        ValueError: one that cannot.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{directory}: prompts = {given!r:.80} must be an object of texts by name")
    for name, prompt in given.items():
        if not isinstance(prompt or "", str) or _PLACE in (prompt or ""):
            raise ValueError(
                f"{directory}: the prompt {name!r} is {prompt!r:.80}, which cannot be put before a "
                "text: name it otherwise, or pass recipe=Recipe(...)"
            )
    return {name: prompt or "" for name, prompt in given.items()}


def _states_a_template(prompt: str) -> Template | None:
    """The known template of which a prompt states all; one with a suffix no prompt can state."""
    for template in _INSTRUCTED:
        head, tail = template.prefix.split(_PLACE)
        if not template.suffix and prompt.startswith(head) and prompt.endswith(tail) and prompt:
            return template
    return None


def chat_frame(directory: Path, layout: str, options: Mapping[str, Any]) -> Frame:
    """The tokenizer's chat template as a frame: the prompt as system message, the text as user's.

    sentence-transformers >= 5.4 (`Transformer.preprocess`) renders every text so where the files
    name the modality "message".

    Args:
        directory: Holds the tokenizer.
        layout: "flat" messages, or "structured" ones whose content is a list.
        options: Further arguments of `apply_chat_template`.
    """
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    return partial(_framed, directory, tokenizer, layout, options)


def _framed(
    directory: Path,
    tokenizer: PreTrainedTokenizerFast,
    layout: str,
    options: Mapping[str, Any],
    prompt: str,
) -> Template:
    """What the chat template puts around a text.

    Raises:
        ValueError: there is no chat template, it fails, or does more than stand around the text.
    """

    def content(text: str) -> Any:
        return text if layout == "flat" else [{"type": "text", "text": text}]

    def render(text: str) -> str:
        system = [{"role": "system", "content": content(prompt)}] if prompt else []
        messages = [*system, {"role": "user", "content": content(text)}]
        found = tokenizer.apply_chat_template(messages, tokenize=False, **options)
        assert isinstance(found, str)
        return found

    try:
        parts = [render(text).split(text) for text in _PROBES]
        ends = parts[0]
        fits = len(ends) == 2 and parts[1] == ends and render("") == "".join(ends)
        if fits and _is_apart(tokenizer, ends):
            for shown in (_WHITE, _WHITE.strip()):
                if render(_WHITE) == shown.join(ends):
                    return Template(ends[0], ends[1], trims=shown != _WHITE)
    except Exception as error:  # whatever a template raises
        raise ValueError(
            f"{directory}: the chat template cannot render the prompt {prompt!r:.80}: {error}"
        ) from error
    raise ValueError(
        f"{directory}: the chat template does more than stand around a text (the text comes twice, "
        "or fuses with what is around it): pass recipe=Recipe(...) with its prefix and suffix"
    )


def _is_apart(tokenizer: PreTrainedTokenizerFast, ends: list[str]) -> bool:
    """Whether what follows a text has token ids of its own.

    sentence-transformers takes for these what "0" and "1 2 3 4" have in common at the end, and puts
    them back where a text is cut (`_chat_template_suffix_ids`).
    """
    own, *tails = (
        tokenizer(string, add_special_tokens=False)["input_ids"][::-1]
        for string in (ends[1], f"{ends[0]}0{ends[1]}", f"{ends[0]}1 2 3 4{ends[1]}")
    )
    pairs = enumerate(zip(*tails, strict=False))
    count = next((n for n, (a, b) in pairs if a != b), min(map(len, tails)))
    return bool(tails[0][:count] == own)
