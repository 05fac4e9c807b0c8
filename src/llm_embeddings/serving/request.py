"""The body of a request -> its fields, or an error that names the field and the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainValidator,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import from_json

from .errors import ApiError, shown

Arrays = list[list[int]]
Inputs = list[str] | Arrays
_SHAPES = "a string, strings, an array of token ids, or arrays of token ids"
# What the same thing is called in the dialects.
_SYNONYMS = (
    ("input", "inputs", "texts", "documents", "sentences"),
    ("dimensions", "output_dimension", "truncate_dim", "output_dimensionality"),
    ("input_type", "prompt_name", "role", "task", "task_type", "type", "embedding_input_type"),
    ("encoding_format", "embedding_types", "embedding_type", "output_dtype"),
    ("truncate", "truncation"),
    ("instruction", "prompt", "query_instruction"),
    ("max_tokens", "max_tokens_per_doc", "truncate_prompt_tokens", "max_length"),
    ("normalize", "normalized", "normalize_embeddings"),
    ("top_n", "top_k"),
    ("return_documents", "return_text"),
)
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks for, in whichever dialect.

    Attributes:
        texts: Texts or arrays of token ids.
        model: A name of the model; None = the one that is served.
        kinds: What the texts are, by the field that says so: a role, a word for one in a dialect,
            or the name of a prompt.
        instruction: None = the default.
        dimensions: How many of a vector are kept; None = all.
        normalize: Whether vectors get unit L2 length; None = as the server says.
        max_length: Limit of a text in tokens where it is below the server's; None = that one.
        cut: Whether texts over the limit are cut; else they are refused.
        field: The field that holds the texts.
    """

    texts: Inputs
    model: str | None = None
    kinds: Mapping[str, str | None] = field(default_factory=dict)
    instruction: str | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    max_length: int | None = None
    cut: bool = True
    field: str = "input"


class Body(BaseModel):
    """What the body of a request may hold; each dialect has its own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


B = TypeVar("B", bound=Body)


def _checked_inputs(value: Any, info: ValidationInfo) -> Inputs:
    """All texts of a field as a list of strings or of arrays, checked.

    Raises:
        ApiError: 400, there are none, too many, or values of another type.
    """
    texts = value if isinstance(value, list) else [value]
    if texts and type(texts[0]) is int:
        texts = [texts]
    name = info.field_name or "input"
    check_count(texts, info)
    kind = type(texts[0])
    for index, text in enumerate(texts):
        if type(text) is not kind or kind not in (str, list):
            which = f"{name}[{index}]" if len(texts) > 1 else name
            raise ApiError(400, f"{which} is {_name(text)}: {name} must be {_SHAPES}", param=name)
        if kind is list and not all(type(token) is int for token in text):
            raise ApiError(400, f"{name}[{index}] must hold token ids and nothing else", param=name)
    return texts


def check_count(texts: list[Any], info: ValidationInfo) -> list[Any]:
    """Texts, if they are neither none nor too many; else an `ApiError` 400."""
    name, most = info.field_name or "input", (info.context or {})["inputs"]
    if not texts:
        raise ApiError(400, f"{name} is empty: send at least one text", param=name)
    if len(texts) > most:
        raise ApiError(
            400,
            f"{name} has {len(texts)} texts and this server takes {most}: send fewer at a time",
            code="too_many_inputs",
            param=name,
        )
    return texts


def _cuts_ends(value: Any, info: ValidationInfo) -> Any:
    """A side of texts that may be cut off, else an `ApiError` 400."""
    if str(value).lower() in ("start", "left"):
        name = info.field_name
        words = f"{name} is {value!r}, and this server cuts texts at their ends alone"
        raise ApiError(400, words, code="invalid_value", param=name)
    return value


TextsOrIds = Annotated[
    Inputs,
    PlainValidator(_checked_inputs, json_schema_input_type=str | list[str] | list[int] | Arrays),
]
Texts = Annotated[list[str], AfterValidator(check_count)]
Cut = Annotated[bool | Literal["NONE", "START", "END"] | None, AfterValidator(_cuts_ends)]
Side = Annotated[Literal["left", "right", "Left", "Right"] | None, AfterValidator(_cuts_ends)]


def cuts(truncate: bool | str | None) -> bool:
    """Whether texts over the limit are cut; where a request does not say so, they are."""
    return truncate not in (False, "NONE")


def parse(body: bytes | bytearray, kind: type[B], most_inputs: int) -> B:
    """What a body asks for.

    Args:
        body: JSON in UTF-8, without NaN and without infinity; half a surrogate pair counts as
            U+FFFD.
        kind: The fields that it may have.
        most_inputs: Most texts that it may have.

    Raises:
        ApiError: 400, with the field that is wrong.
    """
    values = _values(body)
    if not isinstance(values, dict):
        raise ApiError(400, f"the body is {_name(values)}: it must be a JSON object")
    for name in values:
        if name not in kind.model_fields:
            raise _unknown(name, list(kind.model_fields))
    try:
        return kind.model_validate(values, context={"inputs": most_inputs})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "missing":
        name = ".".join(map(str, first["loc"]))
        raise ApiError(400, f"{name} is missing", code="missing_field", param=name)
    field, *within = first["loc"]  # and the kinds of a field that may be of several
    name = ".".join(map(str, (field, *(part for part in within if isinstance(part, int)))))
    raise ApiError(
        400, f"{name} is {shown(first['input'])}. {first['msg']}", code="invalid_value", param=name
    )


def _values(body: bytes | bytearray) -> Any:
    """The JSON of a body.

    Raises:
        ApiError: 400, it is none.
    """
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        mended = _ESCAPE.sub(_whole, body)
        if mended != body:
            return _values(mended)
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error


def _whole(escape: re.Match[bytes]) -> bytes:
    """An escape of JSON; half a surrogate pair as the character that stands for what is lost."""
    return escape[0] if escape["half"] is None else rb"\ufffd"


def _unknown(name: str, known: list[str]) -> ApiError:
    """The error for a field that does not exist: its name here, else the nearest."""
    groups = (group for group in _SYNONYMS if name in group)
    ours = [other for group in groups for other in group if other in known]
    near = difflib.get_close_matches(name[:100], known, n=1)
    if ours:
        hint = f"here it is {ours[0]!r}"
    else:
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
