"""Options as plain values, checked early; shared by the embeddings and the LLM."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from llm_embeddings import Encoder, Recipe
from llm_embeddings.checkpoint.options import LoadOptions, from_plain, plain
from llm_embeddings.faces import hint

if TYPE_CHECKING:
    import torch

PathText = str | os.PathLike[str]
FloatPrecision = Literal["float32", "float16", "int8", "uint8"]

# The fields of the core's options that LlamaIndex calls otherwise.
SPELLED = {"cache_dir": "cache_folder"}


class ModelKeywords(TypedDict, total=False):
    """What loads a model: the core's `LoadOptions` in LlamaIndex's spelling."""

    recipe: Recipe | str | Mapping[str, Any] | None
    adapters: Sequence[PathText] | None
    device: str | torch.device | None
    devices: Sequence[str] | None
    dtype: str | torch.dtype
    attn_implementation: str | None
    quantization: Any
    device_map: str | Mapping[str, Any] | None
    revision: str | None
    token: str | bool | None
    cache_folder: PathText | None
    local_files_only: bool
    trust_remote_code: bool
    vector_cache: PathText | None


class EmbeddingKeywords(ModelKeywords, total=False):
    """And what decides a vector: the core's `EncodeOptions`, those of queries and texts apart.

    `show_progress` is no option here: LlamaIndex's own methods take it, and show its own bar.
    """

    query_instruction: str | None
    text_instruction: str | None
    query_prompt_name: str | None
    text_prompt_name: str | None
    normalize: bool | None
    truncate_dim: int | None
    precision: FloatPrecision
    max_length: int | None
    max_batch_tokens: int | None


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON holds them.

    Raises:
        TypeError: a recipe or a quantization config that is none.
        ValueError: a precision that packs dimensions.
    """
    core = {host: name for name, host in SPELLED.items()}
    if (precision := options.get("precision")) in ("binary", "ubinary"):
        raise ValueError(
            f"precision={precision!r} packs eight dimensions into one number, which vector stores "
            "would compare as one: use encoder.encode(..., precision=...) and an index of Hamming "
            "distances"
        )
    return {name: plain(core.get(name, name), value) for name, value in options.items()}


def load_options(values: Mapping[str, Any]) -> LoadOptions:
    """The core's options from plain ones, among which others may be."""
    core = [field.name for field in dataclasses.fields(LoadOptions)]
    names = {name: SPELLED.get(name, name) for name in core}
    return from_plain({name: values[host] for name, host in names.items() if host in values})


def check_options(
    options: Mapping[str, Any], known: Iterable[str], taker: Callable[..., Any]
) -> None:
    """Raise `TypeError` for an option that is not among the known ones, with what to say instead.

    Words of `HuggingFaceEmbedding` are answered with ours. The parameters of `taker` may be meant,
    too.
    """
    own = inspect.signature(taker).parameters.values()
    taken = [each.name for each in own if each.kind is not each.VAR_KEYWORD]
    names = [*known, *(name for name in taken if name != "self")]
    for name, value in options.items():
        if name in ("show_progress", "show_progress_bar"):
            said = "LlamaIndex's own methods take it: get_text_embedding_batch(show_progress=True)"
        else:
            said = hint(name, names, value, {**SPELLED, "prompt_name": "text_prompt_name"})
        if name not in names:
            raise TypeError(f"unexpected keyword argument {name!r}; {said}")


def check_list(texts: Any) -> None:
    if isinstance(texts, str):
        raise TypeError(
            f"texts is the string {texts!r:.80}, not a list of strings: put it in a list"
        )


def check_encoder(encoder: Any) -> None:
    if encoder is not None and not isinstance(encoder, Encoder):
        raise TypeError(
            f"encoder is {type(encoder).__name__}, not an llm_embeddings.Encoder: make one with "
            "Encoder.from_pretrained, or pass model_name="
        )


def to_lists(vectors: NDArray[Any]) -> list[list[float]]:
    """Vectors as LlamaIndex wants them."""
    lists: list[list[float]] = vectors.astype(np.float64).tolist()
    return lists
