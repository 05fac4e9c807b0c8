"""Write docs/hosts.md: every option of the classes that users come from, and what it is here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from langchain_huggingface import HuggingFaceEmbeddings
from langchain_llm_embeddings import LLMEmbeddings
from langchain_llm_embeddings.loading import SPELLED as LANGCHAIN_NAMES
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.embeddings.llm_embeddings import LLMEmbedding
from llama_index.embeddings.llm_embeddings._options import SPELLED as LLAMA_INDEX_NAMES
from llama_index.embeddings.llm_embeddings._options import EmbeddingKeywords
from sentence_transformers import SentenceTransformer

from llm_embeddings.faces import ELSEWHERE, NESTED

PAGE = Path(__file__).parents[1] / "docs" / "hosts.md"
Answer = tuple[str, str]  # same, other name or refused; and what to say or why

INTRODUCTION = """\
<!-- Written by scripts/docs_hosts.py from the classes themselves: run it again. -->
# Options of other classes

Every option of the Hugging Face classes that people come from, and what becomes of it here:
**same**, **other name**, or **refused** with what to do instead. Nothing is swallowed: an option
with another name here is an error that says the name, before a model is loaded.
"""

# What the words of a class mean that no table of the package answers.
SAME, OTHER, REFUSED = "same", "other name", "refused"
SENTENCE_TRANSFORMERS: dict[str, Answer] = {
    "model_name_or_path": (SAME, "a directory that `model.save` wrote"),
    "modules": (OTHER, "`as_sentence_transformer(encoder)`"),
    "trust_remote_code": (
        SAME,
        "needed to import this package's module; no code of a repository runs",
    ),
    "model_kwargs": (
        SAME,
        "`recipe`, `adapters`, `dtype`, `attn_implementation`, `quantization`, `device_map`; "
        "another key is refused",
    ),
    "prompts": (
        SAME,
        "`as_sentence_transformer(prompts=)`; a prompt stands for the recipe's prefix",
    ),
    "processor_kwargs": (REFUSED, f"`model.max_seq_length`; {ELSEWHERE['processor_kwargs'][1]}"),
    "config_kwargs": (REFUSED, ELSEWHERE["config_kwargs"][1]),
    "backend": (REFUSED, f'but for "torch": {ELSEWHERE["backend"][1]}'),
}
ENCODE: dict[str, Answer] = {
    "inputs": (SAME, "strings"),
    "prompt_name": (SAME, '"query" and "document" are the whole roles, suffix included'),
    "prompt": (SAME, "stands for the recipe's prefix"),
    "precision": (SAME, "ranges of int8 are those of the call"),
    "output_value": (SAME, "states of tokens include prompt and special tokens"),
    "truncate_dim": (SAME, "unit length only with `normalize_embeddings=True`"),
    "kwargs": (SAME, "`instruction` and `task`; another is refused"),
}
LLAMA_INDEX: dict[str, Answer] = {
    "model": (REFUSED, "a loaded model is `encoder=`"),
    "show_progress_bar": (
        REFUSED,
        "`get_text_embedding_batch(texts, show_progress=True)` takes it",
    ),
    "embed_batch_size": (SAME, "texts per event; passes are filled by tokens (`max_batch_tokens`)"),
    "query_instruction": (SAME, "fills the recipe's template; it is not put before the text"),
    "text_instruction": (SAME, "fills the recipe's template; it is not put before the text"),
    "normalize": (
        SAME,
        "unless given, as the recipe says",
    ),
    "model_kwargs": (REFUSED, "all further keywords: the options of SentenceTransformer, below"),
}


def names_of(function: Callable[..., Any]) -> list[str]:
    """The parameters of a function but `self`."""
    return [name for name in inspect.signature(function).parameters if name != "self"]


def answered(
    names: Iterable[str], own: Iterable[str], said: dict[str, Answer]
) -> dict[str, Answer]:
    """Of each name what becomes of it in a class with options of its own."""
    known = set(own)
    return {name: said[name] if name in said else _answer(name, known) for name in names}


def _answer(name: str, known: set[str]) -> Answer:
    if name in known:
        return SAME, ""
    if name in NESTED:
        return REFUSED, "its entries are options of their own, below"
    ours, why = ELSEWHERE[name]
    ours = {**LANGCHAIN_NAMES, **LLAMA_INDEX_NAMES}.get(ours, ours)
    if ours in known:
        return OTHER, f"`{ours}`" + (f"; {why}" if why else "")
    return REFUSED, why or f"{ours} is no option"


def tables() -> dict[str, dict[str, Answer]]:
    """The answers by title."""
    init, encode = names_of(SentenceTransformer.__init__), names_of(SentenceTransformer.encode)
    fields = {*LLMEmbeddings.model_fields, "model_name"}
    keywords = {*names_of(LLMEmbedding.__init__), *EmbeddingKeywords.__annotations__}
    both = {"model_name_or_path": (OTHER, "`model` in LangChain, `model_name` in LlamaIndex")}
    every = {
        **both,
        "inputs": (OTHER, "the argument of `embed_documents`, `get_text_embedding_batch`"),
        "device": (SAME, "of the constructor; several: `devices`"),
        "prompt_name": (OTHER, "`query_prompt_name`, and that of documents or texts"),
        "default_prompt_name": (OTHER, "`query_prompt_name`, and that of documents or texts"),
        "show_progress_bar": (OTHER, "`show_progress`; in LlamaIndex its own methods take it"),
        "kwargs": (REFUSED, "an instruction is an option of the constructor"),
        "truncate_dim": (SAME, "unit length afterwards, as `normalize` says"),
        "precision": (SAME, "but the packed ones, which stores would compare as numbers"),
    }
    return {
        "`HuggingFaceEmbeddings` (LangChain), in `LLMEmbeddings`": answered(
            HuggingFaceEmbeddings.model_fields, fields, {}
        ),
        "`HuggingFaceEmbedding` (LlamaIndex), in `LLMEmbedding`": answered(
            names_of(HuggingFaceEmbedding.__init__), keywords, LLAMA_INDEX
        ),
        "`SentenceTransformer(...)`, of a model made here": answered(
            init, init, SENTENCE_TRANSFORMERS
        ),
        "`SentenceTransformer.encode(...)`, of a model made here": answered(encode, encode, ENCODE),
        "`SentenceTransformer(...)`, in `LLMEmbeddings` and `LLMEmbedding`": answered(
            init, fields & keywords, every
        ),
        "`SentenceTransformer.encode(...)`, in `LLMEmbeddings` and `LLMEmbedding`": answered(
            encode, fields & keywords, every
        ),
    }


def lines() -> Iterator[str]:
    """The page line by line."""
    yield INTRODUCTION
    for title, answers in tables().items():
        yield f"## {title}\n"
        yield "| option | here | |"
        yield "|---|---|---|"
        for name, (kind, text) in answers.items():
            yield f"| `{name}` | {kind} | {text} |"
        yield ""


def page() -> str:
    """The page."""
    return "\n".join(lines())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
