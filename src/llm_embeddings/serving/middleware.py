"""The outermost layer around the application: request ids, the log, and unexpected errors."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
import uuid
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from .errors import ApiError, Shape, error_response, openai_error
from .metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

CLIENT_GONE = 499  # nginx's status for a client that left; counted, as it cannot be sent


class RequestLog:
    """Gives each request an id, logs and counts it without its content, answers if it failed."""

    def __init__(self, app: ASGIApp, metrics: Metrics, shapes: Mapping[str, Shape]) -> None:
        """Wrap an application; `shapes` says how errors are written at paths where work is done."""
        self._app, self._metrics, self._shapes = app, metrics, shapes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, number = time.perf_counter(), uuid.uuid4().hex
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", number.encode()))
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            status = CLIENT_GONE
        except (Exception, asyncio.CancelledError) as error:
            if status:
                raise
            shape = self._shapes.get(scope["path"], openai_error)
            await error_response(_explained(error, number), shape)(scope, receive, answer)
        finally:
            self._note(scope, status, time.perf_counter() - begun, number)

    def _note(self, scope: Scope, status: int, seconds: float, number: str) -> None:
        """Count and log a response, by its route, not by its path, which may hold anything."""
        route = getattr(scope.get("route"), "path", "other")
        computed = route in self._shapes and scope["method"] == "POST"
        self._metrics.answered(route, status, seconds, computed=computed)
        client = (scope.get("client") or ["-"])[0]
        words = f"{client} {scope['method']} {route} {status} {1000 * seconds:.0f} ms {number}"
        probe = status < 400 and not computed and not route.startswith("/v1")
        logger.log(logging.DEBUG if probe else logging.INFO, "%s", words)


def _explained(error: BaseException, number: str) -> ApiError:
    """An unexpected error as the client may see it.

    The log gets its place in the code, not its message, which may quote a text.
    """
    if isinstance(error, asyncio.CancelledError):
        return ApiError(503, "the server is ending", code="draining", headers={"Retry-After": "5"})
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s in request %s\n%s", type(error).__name__, number, places.rstrip())
    return ApiError(
        500, f"the server failed; its log says where, under {number}", code="internal_error"
    )
