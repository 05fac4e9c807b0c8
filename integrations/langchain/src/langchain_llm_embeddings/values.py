"""What the fields of `LLMEmbeddings` hold: values that JSON can hold, whatever was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainValidator

from llm_embeddings import Recipe
from llm_embeddings.checkpoint.options import plain

Role = Literal["query", "document"]


def _as_plain(name: str) -> Callable[[Any], Any]:
    """What makes values of an option of loading plain, with errors that pydantic reports."""

    def validate(value: Any) -> Any:
        try:
            return plain(name, value)
        except TypeError as error:
            raise ValueError(str(error)) from error

    return validate


def _refuse_packed(value: Any) -> Any:
    if value in ("binary", "ubinary"):
        raise ValueError(
            f"precision={value!r} packs eight dimensions into one number, which LangChain's vector "
            "stores would compare as one: use encoder.encode(..., precision=...) and an index of "
            "Hamming distances"
        )
    return value


PathText = Annotated[str | Path, BeforeValidator(_as_plain("cache_dir"))]
DeviceText = Annotated[str, BeforeValidator(_as_plain("device"))]
DtypeText = Annotated[str, BeforeValidator(_as_plain("dtype"))]
DeviceMap = Annotated[str | dict[str, Any], BeforeValidator(_as_plain("device_map"))]
RecipeValue = Annotated[Recipe | str | dict[str, Any] | None, PlainValidator(_as_plain("recipe"))]
QuantizationValue = Annotated[Any, PlainValidator(_as_plain("quantization"))]
FloatPrecision = Annotated[
    Literal["float32", "float16", "int8", "uint8"], BeforeValidator(_refuse_packed)
]
