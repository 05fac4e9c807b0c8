"""Prompts with documents: which part comes first, and which states are kept between questions.

Prompts and modes are GritLM's (arXiv 2402.09906); the strings are those of the rag folder of
github.com/ContextualAI/gritlm at 9710681. There are two rules:

- "paper" takes the states of the bidirectional pass that embeds a text as if a causal pass had left
  them. Each text is cached by itself, so any texts can be put together. Answers differ from those
  without a cache.
- "exact" keeps the states of a causal pass over the beginning of the prompt. Answers are those
  without a cache; only texts at the very beginning of the prompt can come from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ..generation.chat import ASSISTANT, USER, prompt_text, text_ids, with_bos

if TYPE_CHECKING:
    from ..generation import Generator

Mode = Literal["none", "query", "doc", "doc-query", "query-doc"]
Rule = Literal["exact", "paper"]
MODES: tuple[Mode, ...] = get_args(Mode)
RULES: tuple[Rule, ...] = get_args(Rule)

_QUERY_LAST = "Answer the prior query while optionally using the context prior to it"
_QUERY_FIRST = "Optionally using the prior context answer the query prior to it"
_GAP = "\n\n"


@dataclass(frozen=True, slots=True)
class Laid:
    """A prompt as token ids.

    Attributes:
        ids: All of them.
        borders: After how many tokens each part that is kept ends.
    """

    ids: list[int]
    borders: list[int]


def check_mode(mode: str, rule: str, generator: Generator) -> None:
    """Raise `ValueError` for a mode or rule that is not there, or not for this model."""
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is not one of {MODES}")
    if rule not in RULES:
        raise ValueError(f"rule={rule!r} is not one of {RULES}")
    encoder = generator.encoder
    if rule == "paper" and (encoder.recipe.causal or generator.chat_template is not None):
        raise ValueError(
            f"rule='paper' takes GritLM's bidirectional states in GritLM's prompts, and "
            f"{encoder.recipe.name!r} has not both: use rule='exact', which any model can"
        )


def query_first(mode: Mode) -> bool:
    """Whether the question stands before the documents; without a cache it does not."""
    return mode.startswith("query")


def lay_out(
    generator: Generator,
    mode: Mode,
    question: str,
    documents: Sequence[str],
    answer_start: str = "",
) -> Laid:
    """The prompt of the exact rule, and of no cache at all: one conversation with all texts.

    Borders are counted in the tokens of the whole prompt, wherever its tokenizer merges across
    texts, so states of the tokens before a border are those of this very prompt.
    """
    if generator.chat_template is not None:
        # Templates may trim a message, so white space must not stand at its beginning.
        question, documents = question.strip(), [text.strip() for text in documents]
    parts = [question, *documents] if query_first(mode) else [*documents, question]
    kept = {"none": 0, "query": 1, "doc": len(documents)}.get(mode, len(parts))
    content = _GAP.join([*parts, _request(mode)]) if documents else question
    tokenizer, recipe = generator.encoder.tokenizer, generator.encoder.recipe
    message = {"role": "user", "content": content}
    ids = generator.prompt_ids([message], answer_start=answer_start)
    if not kept or not documents:
        return Laid(ids, [])
    text = prompt_text(tokenizer, [message], generator.chat_template)
    before, found, _ = text.partition(content)
    if not found:
        raise ValueError(
            "this chat template changes the text of a message, so its beginning cannot be kept: "
            "use mode='none'"
        )
    borders = []
    for number in range(1, kept + 1):
        beginning = before + content[: len(_GAP.join(parts[:number]))]
        alone = (
            with_bos(tokenizer, recipe, beginning)
            if generator.chat_template is None
            else text_ids(tokenizer, beginning)
        )
        borders.append(min(_common(alone, ids), len(ids) - 1))
    return Laid(ids, borders)


def paper_blocks(
    generator: Generator, mode: Mode, question: str, documents: Sequence[str]
) -> list[list[int]]:
    """Ids of the texts whose bidirectional states stand before a prompt of the paper's rule.

    All begin with BOS but documents behind a question: so the reference's evaluation has it.
    """
    encoder = generator.encoder
    recipe, tokenizer = encoder.recipe, encoder.tokenizer

    def block(text: str, *, bos: bool = True) -> list[int]:
        framed = recipe.prefix("document", "") + text
        return with_bos(tokenizer, recipe, framed) if bos else text_ids(tokenizer, framed)

    queries = [] if mode == "doc" else [block(question)]
    texts = [] if mode == "query" else [block(text, bos=mode != "query-doc") for text in documents]
    return [*queries, *texts] if query_first(mode) else [*texts, *queries]


def paper_prompt(
    generator: Generator,
    mode: Mode,
    question: str,
    documents: Sequence[str],
    answer_start: str = "",
) -> list[int]:
    """Ids of what follows the blocks; tokenised by itself, without BOS, as in the reference."""
    open_parts = {"query": list(documents), "doc": [question]}.get(mode, [])
    content = _GAP.join([*open_parts, _request(mode)])
    return text_ids(generator.encoder.tokenizer, f"\n{USER}{content}\n{ASSISTANT}{answer_start}")


def _request(mode: Mode) -> str:
    return _QUERY_FIRST if query_first(mode) else _QUERY_LAST


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first items are the same."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((place for place, (x, y) in pairs if x != y), min(len(a), len(b)))
