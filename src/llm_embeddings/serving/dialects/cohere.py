"""Cohere's `/v2/embed`, which vLLM serves too."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import to_json

from ...arithmetic.precision import NEEDS_RANGES, quantize
from ..errors import ApiError, cohere_error
from ..request import Asked, Body, Cut, Texts, check_count, cuts
from ..response import array, numbers, packed, with_values
from .dialect import Dialect

if TYPE_CHECKING:
    from ...encoder import Encoder
    from ...vectors import Vectors
    from ..service import Service

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


class Part(Body):
    """A part of an input."""

    type: Literal["text"]
    text: str


def _check_one(parts: list[Part]) -> list[Part]:
    if len(parts) != 1:
        raise ApiError(400, f"an input has {len(parts)} parts: send one text each", param="inputs")
    return parts


class Input(Body):
    """An input in parts, of which there is one here."""

    content: Annotated[list[Part], AfterValidator(_check_one)]


class EmbedRequest(Body):
    """The body of `POST /v2/embed`."""

    model: str
    texts: Texts | None = None
    inputs: Annotated[list[Input], AfterValidator(check_count)] | None = None
    input_type: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    output_dimension: Annotated[int, Field(ge=1)] | None = None
    embedding_types: list[EmbeddingType] | None = None
    truncate: Cut = None
    priority: int | None = None


async def _answer(service: Service, encoder: Encoder, body: EmbedRequest) -> bytes:
    texts = _texts(body)
    asked = Asked(
        texts=texts,
        model=body.model,
        kinds={"input_type": body.input_type},
        dimensions=body.output_dimension,
        max_length=body.max_tokens,
        cut=cuts(body.truncate),
        field="texts",
    )
    vectors, tokens = await service.embed(encoder, asked)
    kinds = dict.fromkeys(body.embedding_types or ("float",))
    unit = service.normalizes(encoder, asked)
    values = {kind: await _values(encoder, vectors, kind, unit) for kind in kinds}
    meta = {
        "api_version": {"version": "2"},
        "billed_units": {"input_tokens": tokens},
        "tokens": {"input_tokens": tokens},
    }
    fields: dict[str, object] = {"id": uuid.uuid4().hex, "response_type": "embeddings_by_type"}
    return with_values(
        fields, embeddings=with_values({}, **values), texts=to_json(texts), meta=to_json(meta)
    )


def _texts(body: EmbedRequest) -> list[str]:
    """The texts of a request, which has them in one of two fields."""
    if (body.texts is None) == (body.inputs is None):
        raise ApiError(400, "send either texts or inputs", code="missing_field", param="texts")
    parts = (part for one in body.inputs or () for part in one.content)
    return body.texts or [part.text for part in parts]


async def _values(encoder: Encoder, vectors: Vectors, kind: EmbeddingType, unit: bool) -> bytes:
    """The vectors, of unit length or not, in one of Cohere's types, as JSON."""
    if kind in ("float", "base64"):
        return await array(vectors, numbers if kind == "float" else packed)
    ranges = None
    if kind in NEEDS_RANGES:  # measured by the encoder when they are first needed
        ranges = await asyncio.to_thread(encoder.ranges_of, vectors.shape[1], unit)
    found: Any = quantize(vectors, kind, ranges)
    return await array(found)


EMBED = Dialect(paths=("/v2/embed",), body=EmbedRequest, answer=_answer, error=cohere_error)
