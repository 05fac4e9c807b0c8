"""OpenAI's requests, with fields of vLLM and NVIDIA NIM and of our own beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic_core import to_json

from ...recipe import Role
from ..errors import openai_error
from ..request import Asked, Body, Cut, TextsOrIds, cuts
from ..response import each, numbers, packed, with_values
from .dialect import Dialect

if TYPE_CHECKING:
    from ...encoder import Encoder
    from ..service import Service


class EmbeddingRequest(Body):
    """The body of `POST /v1/embeddings`."""

    input: TextsOrIds
    model: str
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
    role: Role | None = None
    input_type: str | None = None
    instruction: str | None = None
    prompt_name: str | None = None
    truncate: Cut = None


async def _answer(service: Service, encoder: Encoder, body: EmbeddingRequest) -> bytes:
    asked = Asked(
        texts=body.input,
        model=body.model,
        kinds=body.model_dump(include={"role", "input_type", "prompt_name"}),
        instruction=body.instruction,
        dimensions=body.dimensions,
        cut=cuts(body.truncate),
    )
    vectors, tokens = await service.embed(encoder, asked)
    write = packed if body.encoding_format == "base64" else numbers
    items = (
        b'{"object":"embedding","index":%d,"embedding":%b}' % item
        for item in enumerate(await each(vectors, write))
    )
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    data = b"[%b]" % b",".join(items)
    fields: dict[str, object] = {"object": "list"}
    return with_values(fields, data=data, model=to_json(body.model), usage=to_json(usage))


EMBEDDINGS = Dialect(
    paths=("/v1/embeddings",), body=EmbeddingRequest, answer=_answer, error=openai_error
)
