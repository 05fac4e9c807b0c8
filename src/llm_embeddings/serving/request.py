"""The body of a request -> what is asked for, or an error that names the field and the remedy."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo
from pydantic_core import from_json

from ..recipe import Role
from .errors import ApiError, shown

Arrays = list[list[int]]
Inputs = list[str] | Arrays
_SHAPES = "a string, strings, an array of token ids, or arrays of token ids"


def _check_inputs(value: Any, info: ValidationInfo) -> Inputs:
    """All texts of the field `input` as a list of strings or of arrays, checked.

    Raises:
        ApiError: 400, there are none, too many, or values of another type.
    """
    texts = value if isinstance(value, list) else [value]
    if texts and type(texts[0]) is int:
        texts = [texts]
    most: int = (info.context or {})["inputs"]
    if not texts:
        raise ApiError(400, "input is empty: send at least one text", param="input")
    if len(texts) > most:
        raise ApiError(
            400,
            f"input has {len(texts)} texts and this server takes {most}: send fewer at a time",
            code="too_many_inputs",
            param="input",
        )
    kind = type(texts[0])
    for index, text in enumerate(texts):
        if type(text) is not kind or kind not in (str, list):
            what = (
                f"input[{index}] is {_name(text)}" if len(texts) > 1 else f"input is {_name(text)}"
            )
            raise ApiError(400, f"{what}: input must be {_SHAPES}", param="input")
        if kind is list and not all(type(token) is int for token in text):
            raise ApiError(
                400, f"input[{index}] must hold token ids and nothing else", param="input"
            )
    return texts


class EmbeddingRequest(BaseModel):
    """The body of `POST /v1/embeddings`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    input: Annotated[
        Inputs,
        PlainValidator(_check_inputs, json_schema_input_type=str | list[str] | list[int] | Arrays),
    ]
    model: str
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
    role: Role | None = None
    instruction: str | None = None
    prompt_name: str | None = None


def parse(body: bytes | bytearray, most_inputs: int) -> EmbeddingRequest:
    """What a body asks for.

    Args:
        body: JSON in UTF-8, without NaN and without infinity.
        most_inputs: Most texts that it may have.

    Raises:
        ApiError: 400, with the field that is wrong.
    """
    try:
        values = from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(values, dict):
        raise ApiError(400, f"the body is {_name(values)}: it must be a JSON object")
    for name in values:
        if name not in EmbeddingRequest.model_fields:
            raise _unknown(name)
    try:
        return EmbeddingRequest.model_validate(values, context={"inputs": most_inputs})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "missing":
        raise ApiError(400, f"{name} is missing", code="missing_field", param=name)
    raise ApiError(
        400, f"{name} is {shown(first['input'])}. {first['msg']}", code="invalid_value", param=name
    )


def _unknown(name: str) -> ApiError:
    """The error for a field that does not exist."""
    known = list(EmbeddingRequest.model_fields)
    near = difflib.get_close_matches(name[:100], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return ApiError(
        400, f"unknown field {shown(name)}: {hint}", code="unknown_field", param=name[:100]
    )


def _name(value: Any) -> str:
    """The type of a JSON value in words."""
    if isinstance(value, list):
        return "an array"
    names = {str: "a string", dict: "an object", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
