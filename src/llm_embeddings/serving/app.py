"""The ASGI application: its routes, the check of the API key, and errors as responses."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from .. import __version__
from ..encoder import Encoder
from ..inputs import names_checked
from .body import read_body, while_connected
from .dialects import DIALECTS
from .dialects.dialect import Dialect
from .dialects.tei import info
from .errors import ApiError, error_response, openai_error
from .judging import RankBy
from .limits import Limits
from .middleware import RequestLog
from .request import Body, parse
from .service import Served, Service

JSON = "application/json"
_QUICK = 2**18  # bytes; a body of so many is parsed in about a millisecond, without a thread


@names_checked
def create_app(
    encoder: Encoder,
    *,
    name: str | None = None,
    api_key: str | None = None,
    instruction: str | None = None,
    normalize: bool | None = None,
    token_arrays: bool = False,
    max_length: int | None = None,
    max_batch_tokens: int | None = None,
    rank_by: RankBy = "vectors",
    limits: Limits | None = None,
) -> FastAPI:
    """An ASGI application that serves an encoder, which its caller has to close.

    Args:
        encoder: Computes the vectors.
        name: Name by which clients ask for the model; None = the recipe's name.
        api_key: Key that clients must send as `Authorization: Bearer KEY`; None = none is needed.
        instruction: Instruction of queries that come without; None = the recipe's default.
        normalize: Whether vectors get unit L2 length; None = as the recipe says.
        token_arrays: Whether arrays of ids of the model's own tokenizer are taken as input.
        max_length: Limit of a text in tokens, beyond which it is cut; None = the model's.
        max_batch_tokens: Tokens per forward pass; None = by device.
        rank_by: What ranks documents for `/rerank`: the cosine of "vectors", or by "generation" how
            likely the model, which has to generate, finds it that they answer the query.
        limits: Bounds on requests; None = the defaults.

    Raises:
        ValueError: the model has no place for the instruction, cannot take a limit or cannot
            generate, or the key cannot be sent.
    """
    served = Served(
        name=name,
        instruction=instruction,
        normalize=normalize,
        token_arrays=token_arrays,
        max_length=max_length,
        max_batch_tokens=max_batch_tokens,
        rank_by=rank_by,
    )
    service = Service(served, limits or Limits())
    service.open(encoder)
    return build(service, api_key)


def build(service: Service, api_key: str | None) -> FastAPI:
    """The application around a service.

    Raises:
        ValueError: the key is empty, or cannot stand in a header.
    """
    app = FastAPI(
        title="llm-embeddings",
        version=__version__,
        docs_url=None,  # this page and the next load scripts from other sites
        redoc_url=None,
        redirect_slashes=False,
    )
    shapes = {path: one.error for one in DIALECTS for path in one.paths}
    app.add_middleware(RequestLog, metrics=service.metrics, shapes=shapes)

    async def answer_error(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = _of_the_framework(app, request, error)
        assert isinstance(error, ApiError)
        return error_response(error, shapes.get(request.url.path, openai_error))

    app.add_exception_handler(ApiError, answer_error)
    app.add_exception_handler(HTTPException, answer_error)
    routes, key = _Routes(service), [Depends(_key_check(api_key))]
    for path, probe in (
        ("/healthz", routes.alive),
        ("/readyz", routes.ready),
        ("/health", routes.ready),
    ):
        app.get(path)(probe)
        app.head(path, include_in_schema=False)(probe)
    app.get("/metrics", dependencies=key)(routes.metrics)
    app.get("/info", dependencies=key)(routes.info)
    app.get("/v1/models", dependencies=key)(routes.models)
    app.get("/v1/models/{name:path}", dependencies=key)(routes.model)
    for dialect in DIALECTS:
        schema = {"content": {JSON: {"schema": dialect.body.model_json_schema()}}, "required": True}
        for path in dialect.paths:
            app.post(
                path,
                dependencies=key,
                summary=path.strip("/") or "embed",
                openapi_extra={"requestBody": schema},
            )(routes.answering(dialect))
    return app


class _Routes:
    """The functions of the routes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def alive(self) -> Response:
        """Whether the process answers."""
        return _json({"status": "ok"})

    async def ready(self) -> Response:
        """Whether the model is loaded and requests are taken."""
        self._service.check_ready()
        return _json({"status": "ready"})

    async def metrics(self) -> Response:
        """The metrics in Prometheus' text format."""
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def models(self) -> Response:
        """All names of the model."""
        return _json({"object": "list", "data": self._service.models()})

    async def model(self, name: str) -> Response:
        """One name of the model."""
        models = {model["id"]: model for model in self._service.models()}
        self._service.role_of(name)
        return _json(models[name])

    async def info(self) -> Response:
        """The model and the limits, as Text Embeddings Inference tells them."""
        return _json(info(self._service, self._service.check_ready()))

    def answering(self, dialect: Dialect) -> Callable[[Request], Awaitable[Response]]:
        """The function of a route where work is done."""

        async def answer(request: Request) -> Response:
            service = self._service
            encoder = service.check_ready()
            with service.queue.request():
                body = await self._read(request, dialect.body)
                work = dialect.answer(service, encoder, body)
                return Response(await while_connected(request, work), media_type=JSON)

        answer.__doc__ = dialect.body.__doc__
        return answer

    async def _read(self, request: Request, kind: type[Body]) -> Body:
        """Read and parse the body of a request."""
        limits = self._service.limits
        body = await read_body(request, limits)
        if len(body) < _QUICK:
            return parse(body, kind, limits.inputs)
        return await asyncio.to_thread(parse, body, kind, limits.inputs)


def _key_check(api_key: str | None) -> Any:
    """A FastAPI dependency that raises `ApiError` 401 for a request without the key.

    Raises:
        ValueError: the key is empty, or cannot be sent in a header.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key):
        raise ValueError("the API key must be printable ASCII and not empty")
    expected = f"bearer {api_key}".encode()

    async def check(request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = f"{scheme.lower()} {key}".encode("latin-1")
        if api_key is not None and not hmac.compare_digest(given, expected):
            raise ApiError(
                401,
                "send the server's key as `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


def _of_the_framework(app: FastAPI, request: Request, error: HTTPException) -> ApiError:
    """The error for what the framework refuses: an unknown path, another method."""
    words = f"{error.detail}: {request.method} is not served at this path"
    last = request.url.path.rstrip("/").rpartition("/")[2]
    paths = (getattr(route, "path", "") for route in app.routes)
    meant = [path for path in paths if last and path.rpartition("/")[2] == last]
    if meant and error.status_code == 404:
        words += f"; served here: {', '.join(dict.fromkeys(meant))}"
    return ApiError(error.status_code, words, headers=error.headers)


def _json(value: object) -> Response:
    return Response(to_json(value), media_type=JSON)
