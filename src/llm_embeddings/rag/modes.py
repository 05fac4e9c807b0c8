"""Prompts with documents: the order of their parts, and which parts' states are kept.

Prompts and modes are GritLM's (arXiv 2402.09906), strings those of the rag folder of
github.com/ContextualAI/gritlm at 9710681. There are two rules for the states (keys and values):

- "paper" takes those of the bidirectional pass that embeds a text, in place of causal ones. Each
  text has states of its own, so they can be combined in any order, but answers differ from those
  without a cache.
- "exact" keeps those of a causal pass over the beginning of the prompt. Answers are those without a
  cache, but only texts at the very beginning of the prompt can be kept.
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
_RULES: tuple[Rule, ...] = get_args(Rule)

_QUERY_LAST = "Answer the prior query while optionally using the context prior to it"
_QUERY_FIRST = "Optionally using the prior context answer the query prior to it"
_GAP = "\n\n"


@dataclass(frozen=True, slots=True)
class Laid:
    """A prompt as token ids.

    Attributes:
        ids: All its token ids.
        borders: For each part whose states are kept, the number of tokens up to its end.
    """

    ids: list[int]
    borders: list[int]


def check_mode(mode: str, rule: str, generator: Generator) -> None:
    """Check a mode and a rule.

    Raises:
        ValueError: there is no such mode or rule, or the model cannot use it.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is not one of {MODES}")
    if rule not in _RULES:
        raise ValueError(f"rule={rule!r} is not one of {_RULES}")
    encoder = generator.encoder
    if rule == "paper" and (encoder.recipe.causal or generator.chat_template is not None):
        raise ValueError(
            f"rule='paper' takes GritLM's bidirectional states in GritLM's prompts, and "
            f"{encoder.recipe.name!r} has not both: use rule='exact', which any model can"
        )


def query_first(mode: Mode) -> bool:
    """Whether the question stands before the documents in the prompt of a mode."""
    return mode.startswith("query")


def lay_out(
    generator: Generator,
    mode: Mode,
    question: str,
    documents: Sequence[str],
    answer_start: str = "",
) -> Laid:
    """The prompt for the rule "exact", and for no cache: one conversation with all texts.

    Borders are counted in the tokens of the whole prompt, as its tokenizer may merge characters
    across texts; so the states before a border are exactly those of this prompt.

    Raises:
        ValueError: the chat template changes the text of a message, so nothing can be kept.
    """
    if generator.chat_template is not None:
        # Templates may strip a message, so none may begin or end with white space.
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
    """Token ids of the texts whose bidirectional states come before the prompt, by rule "paper".

    All begin with BOS but documents after a question, as in the reference's evaluation.
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
    """Token ids of the prompt after `paper_blocks`: tokenised alone, without BOS, as in gritlm."""
    open_parts = {"query": list(documents), "doc": [question]}.get(mode, [])
    content = _GAP.join([*open_parts, _request(mode)])
    return text_ids(generator.encoder.tokenizer, f"\n{USER}{content}\n{ASSISTANT}{answer_start}")


def _request(mode: Mode) -> str:
    """The sentence that asks for the answer."""
    return _QUERY_FIRST if query_first(mode) else _QUERY_LAST


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many items two sequences have in common at their beginnings."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((place for place, (x, y) in pairs if x != y), min(len(a), len(b)))
