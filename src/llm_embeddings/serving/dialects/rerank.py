"""`/rerank` as Cohere, vLLM and Jina have it and as TEI does: cosine, or the model's judgement."""

from __future__ import annotations

import asyncio
import math
import uuid
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import to_json

from ..errors import ApiError, Shape, cohere_error, tei_error
from ..request import Asked, Body, Cut, Side, Texts, cuts
from .dialect import Dialect

if TYPE_CHECKING:
    from ...encoder import Encoder
    from ..judging import Judge
    from ..service import Service


def _plain(documents: Any) -> Any:
    """Documents of which some are objects with a text, as Cohere's older clients send them."""
    if not isinstance(documents, list):
        return documents
    return [
        one["text"] if isinstance(one, dict) and [*one] == ["text"] else one for one in documents
    ]


class RerankRequest(Body):
    """The body of `POST /rerank`: with `documents` of Cohere's shape, with `texts` of TEI's."""

    query: str
    documents: Annotated[Texts, BeforeValidator(_plain)] | None = None
    texts: Texts | None = None
    model: str | None = None
    instruction: str | None = None
    top_n: Annotated[int, Field(ge=1)] | None = None
    max_tokens_per_doc: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    raw_scores: bool | None = None
    truncate: Cut = None
    truncation_direction: Side = None
    user: str | None = None
    priority: int | None = None


async def _answer(service: Service, encoder: Encoder, body: RerankRequest) -> bytes:
    texts = body.documents if body.texts is None else body.texts
    if texts is None or None not in (body.documents, body.texts):
        raise ApiError(400, "send either documents or texts", code="missing_field")
    scores, tokens = await _scores(service, encoder, body, texts)
    order = sorted(range(len(texts)), key=lambda index: -scores[index])[: body.top_n]
    if body.texts is not None:
        return to_json([_rank(index, scores, texts, body.return_text) for index in order])
    results = [_result(index, scores, texts, body.return_documents) for index in order]
    answer = {
        "id": uuid.uuid4().hex,
        "model": body.model or service.name,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {"api_version": {"version": "2"}, "tokens": {"input_tokens": tokens}},
    }
    return to_json(answer)


async def _scores(
    service: Service, encoder: Encoder, body: RerankRequest, texts: list[str]
) -> tuple[list[float], int]:
    """What each text is worth for the query, and how many tokens the model was fed."""
    if service.judge is not None:
        return await _judged(service, service.judge, body, texts)
    common: dict[str, Any] = {"model": body.model, "normalize": True, "cut": cuts(body.truncate)}
    query = Asked(
        texts=[body.query],
        kinds={"query": "query"},
        instruction=body.instruction,
        field="query",
        **common,
    )
    field = "documents" if body.texts is None else "texts"
    documents = Asked(
        texts=texts,
        kinds={field: "document"},
        max_length=body.max_tokens_per_doc,
        field=field,
        **common,
    )
    (wanted, first), (found, rest) = await asyncio.gather(
        service.embed(encoder, query), service.embed(encoder, documents)
    )
    return (found @ wanted[0]).tolist(), first + rest


async def _judged(
    service: Service, judge: Judge, body: RerankRequest, texts: list[str]
) -> tuple[list[float], int]:
    """How likely the model finds it that each text answers the query: raw, or as a probability."""
    for field in ("instruction", "max_tokens_per_doc"):
        if getattr(body, field) is not None:
            raise ApiError(400, f"this server ranks by generation, without {field}", param=field)
    if body.model is not None:
        service.role_of(body.model)
    scores, tokens = await service.judged(judge, body.query, texts)
    if not body.raw_scores:
        scores = [(1 + math.tanh(score / 2)) / 2 for score in scores]  # the logistic function
    return scores, tokens


def _rank(
    index: int, scores: list[float], texts: list[str], with_text: bool | None
) -> dict[str, object]:
    """A text in TEI's answer."""
    rank: dict[str, object] = {"index": index, "score": scores[index]}
    return {**rank, "text": texts[index]} if with_text else rank


def _result(
    index: int, scores: list[float], texts: list[str], with_text: bool | None
) -> dict[str, object]:
    """A document in Cohere's answer."""
    result: dict[str, object] = {"index": index, "relevance_score": scores[index]}
    return {**result, "document": {"text": texts[index]}} if with_text else result


def _served(error: Shape, *paths: str) -> Dialect:
    return Dialect(paths=paths, body=RerankRequest, answer=_answer, error=error)


RERANK = _served(tei_error, "/rerank"), _served(cohere_error, "/v1/rerank", "/v2/rerank")
