"""What the fields of `LLMEmbeddings` hold: values that JSON can hold, whatever was given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainValidator

from llm_embeddings import Recipe

Role = Literal["query", "document"]


def _path_to_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _torch_to_text(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    import torch

    is_torch = isinstance(value, torch.device | torch.dtype)
    return str(value).removeprefix("torch.") if is_torch else value


def _recipe_to_plain(value: Any) -> str | dict[str, Any] | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = Recipe.from_dict(value)
    if not isinstance(value, Recipe):
        raise ValueError(f"recipe={value!r:.80} is not a name, a Recipe or a Recipe's to_dict()")
    return value.to_dict()


def _refuse_packed(value: Any) -> Any:
    if value in ("binary", "ubinary"):
        raise ValueError(
            f"precision={value!r} packs eight dimensions into one number, which LangChain's vector "
            "stores would compare as one: use encoder.encode(..., precision=...) and an index of "
            "Hamming distances"
        )
    return value


PathText = Annotated[str | Path, BeforeValidator(_path_to_text)]
TorchText = Annotated[str, BeforeValidator(_torch_to_text)]
RecipeValue = Annotated[Recipe | str | dict[str, Any] | None, PlainValidator(_recipe_to_plain)]
FloatPrecision = Annotated[
    Literal["float32", "float16", "int8", "uint8"], BeforeValidator(_refuse_packed)
]
