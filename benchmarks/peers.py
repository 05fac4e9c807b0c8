"""Who is compared: each contender loaded as its documentation says, on the same weights.

All give unit vectors of the same texts with the same prompts. sentence-transformers and the two
frameworks' wrappers around it read the native export of our checkpoint, so that even the tokens
that they would get wrong from the published files are right. Batch sizes are each peer's default.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llm_embeddings import Encoder

from .models import Layout, Shape, checkpoint, exported

OURS = "llm-embeddings"
ST = "sentence-transformers"
LANGCHAIN = "langchain-huggingface"
LLAMA_INDEX = "llama-index-embeddings-huggingface"
OURS_LANGCHAIN = f"{OURS} in LangChain"
OURS_LLAMA_INDEX = f"{OURS} in LlamaIndex"

Role = Literal["query", "document"]
Texts = list[str]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all contenders of a comparison have in common.

    Attributes:
        shape: Of the model.
        layout: Its family.
        dtype: Name of a torch dtype; None = each contender's own default.
        role: Whether texts are queries or documents.
        max_length: Tokens of the longest text that is not cut; None = the recipe's.
    """

    shape: Shape
    layout: Layout
    dtype: str | None
    role: Role = "document"
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that turns texts into vectors.

    Attributes:
        name: As the report shows it.
        encode: Texts -> vectors `[n, dim]`.
        against: The contender of ours that does the same; "" = the first one.
        encoder: Of our contenders.
        backbone: The decoder that runs, where its work is counted.
        cpu: CPU seconds used for it outside this process.
    """

    name: str
    encode: Callable[[Texts], Vectors]
    against: str = ""
    encoder: Encoder | None = None
    backbone: Any = None
    cpu: Callable[[], float] | None = None


Loader = Callable[[Setting], Contender]


def ours(setting: Setting) -> Contender:
    """This package's `encode`."""
    encoder = load_encoder(setting)
    return Contender(
        OURS,
        lambda texts: encoder.encode(texts, setting.role),
        encoder=encoder,
        backbone=encoder.backbone,
    )


def ours_int8(setting: Setting) -> Contender:
    """The same with weights and activations in int8."""
    encoder = load_encoder(setting, quantization="int8")
    return Contender(
        f"{OURS}, int8", lambda texts: encoder.encode(texts, setting.role), encoder=encoder
    )


def load_encoder(setting: Setting, *, quantization: Literal["int8"] | None = None) -> Encoder:
    """Our encoder of a setting."""
    recipe = setting.layout.recipe
    if setting.max_length is not None:
        recipe = recipe.replace(max_length=setting.max_length)
    return Encoder.from_pretrained(
        checkpoint(setting.shape, setting.layout),
        recipe=recipe,
        dtype=setting.dtype or "auto",
        quantization=quantization,
        device="cpu",
    )


def both_together(setting: Setting) -> Contender:
    """Query and document vectors of every text from one pass."""
    encoder = load_encoder(setting)
    return Contender(
        f"{OURS}, encode_both",
        lambda texts: np.concatenate(encoder.encode_both(texts)),
        encoder=encoder,
        backbone=encoder.backbone,
    )


def both_apart(setting: Setting) -> Contender:
    """Query and document vectors of every text from a call each."""
    encoder = load_encoder(setting)
    return Contender(
        f"{OURS}, two calls",
        lambda texts: np.concatenate([encoder.encode_query(texts), encoder.encode_document(texts)]),
        encoder=encoder,
        backbone=encoder.backbone,
    )


def sentence_transformers(setting: Setting) -> Contender:
    """`SentenceTransformer` with native modules, batch size 32."""
    model = require("sentence_transformers").SentenceTransformer(
        str(exported(setting.shape, setting.layout)),
        device="cpu",
        local_files_only=True,
        model_kwargs=_dtype(setting),
    )
    if setting.max_length is not None:
        model.max_seq_length = setting.max_length
    call = model.encode_query if setting.role == "query" else model.encode_document
    return Contender(
        ST, lambda texts: call(texts, show_progress_bar=False), backbone=model[0].auto_model
    )


def one_by_one(load: Loader) -> Loader:
    """The same contender, asked for one text at a time."""

    def loaded(setting: Setting) -> Contender:
        contender = load(setting)
        return replace(
            contender,
            encode=lambda texts: np.concatenate([contender.encode([text]) for text in texts]),
        )

    return loaded


def ours_in_langchain(setting: Setting) -> Contender:
    """`LLMEmbeddings`."""
    encoder = load_encoder(setting)
    embeddings = require("langchain_llm_embeddings").LLMEmbeddings(encoder=encoder)
    return Contender(OURS_LANGCHAIN, langchain_call(embeddings, setting), encoder=encoder)


def langchain(setting: Setting) -> Contender:
    """`HuggingFaceEmbeddings`."""
    prompt = {"prompt_name": setting.role} if setting.layout.recipe.prefix(setting.role) else {}
    embeddings = require("langchain_huggingface").HuggingFaceEmbeddings(
        model_name=str(exported(setting.shape, setting.layout)),
        model_kwargs={
            "device": "cpu",
            "local_files_only": True,
            "model_kwargs": _dtype(setting),
        },
        encode_kwargs=prompt,
        query_encode_kwargs=prompt,
    )
    return Contender(LANGCHAIN, langchain_call(embeddings, setting), OURS_LANGCHAIN)


def langchain_call(embeddings: Any, setting: Setting) -> Callable[[Texts], Vectors]:
    """A coroutine per query, or all documents at once."""
    if setting.role == "query":
        return concurrently(embeddings.aembed_query)
    return lambda texts: np.array(embeddings.embed_documents(texts), np.float32)


def ours_in_llama_index(setting: Setting) -> Contender:
    """`LLMEmbedding`."""
    encoder = load_encoder(setting)
    embedding = require("llama_index.embeddings.llm_embeddings").LLMEmbedding(encoder=encoder)
    return Contender(OURS_LLAMA_INDEX, llama_index_call(embedding, setting), encoder=encoder)


def llama_index(setting: Setting) -> Contender:
    """`HuggingFaceEmbedding`, batches of 10."""
    embedding = require("llama_index.embeddings.huggingface").HuggingFaceEmbedding(
        model_name=str(exported(setting.shape, setting.layout)),
        query_instruction=setting.layout.recipe.prefix("query"),
        text_instruction=setting.layout.recipe.prefix("document"),
        device="cpu",
        model_kwargs=_dtype(setting),
    )
    return Contender(LLAMA_INDEX, llama_index_call(embedding, setting), OURS_LLAMA_INDEX)


def llama_index_call(embedding: Any, setting: Setting) -> Callable[[Texts], Vectors]:
    """A coroutine per query, or all documents at once."""
    if setting.role == "query":
        return concurrently(embedding.aget_query_embedding)
    return lambda texts: np.array(embedding.get_text_embedding_batch(texts), np.float32)


def concurrently(embed: Callable[[str], Any]) -> Callable[[Sequence[str]], Vectors]:
    """Texts -> vectors with one coroutine per text, all started at once."""

    async def gather(texts: Sequence[str]) -> list[list[float]]:
        found: list[list[float]] = await asyncio.gather(*map(embed, texts))
        return found

    return lambda texts: np.array(asyncio.run(gather(texts)), np.float32)


def be_silent() -> None:
    """No bars while weights are loaded, no notes on default prompts."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def require(module: str) -> Any:
    """Import a peer.

    Raises:
        ModuleNotFoundError: it is not installed; the message says what installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name or module} is not installed: `make bench` installs all peers, "
            "benchmarks/requirements/ names them"
        ) from error


def _dtype(setting: Setting) -> dict[str, Any]:
    return {} if setting.dtype is None else {"dtype": setting.dtype}
