"""Errors as HTTP responses, in the forms that clients read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import Response
from pydantic_core import to_json

_MOST_SHOWN = 80  # characters


class ApiError(Exception):
    """An error that is the response to a request."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Describe an error.

        Args:
            status: HTTP status, 400 or more.
            message: What is wrong and what helps, for people.
            code: A word for it, for programs.
            param: Field of the request that is wrong.
            headers: Further headers of the response.
        """
        super().__init__(message)
        self.status, self.message = status, message
        self.code, self.param, self.headers = code, param, headers


Shape = Callable[[ApiError], dict[str, object]]


def openai_error(error: ApiError) -> dict[str, object]:
    """An error as OpenAI writes it, which is the form wherever no other is known."""
    body = {
        "message": error.message,
        "type": _kind(error.status),
        "param": error.param,
        "code": error.code,
    }
    return {"error": body}


def cohere_error(error: ApiError) -> dict[str, object]:
    """An error as Cohere writes it."""
    return {"message": error.message}


def tei_error(error: ApiError) -> dict[str, object]:
    """An error as Text Embeddings Inference writes it."""
    kinds = {429: "Overloaded", 503: "Unhealthy"}
    kind = kinds.get(error.status, "Backend" if error.status >= 500 else "Validation")
    return {"error": error.message, "error_type": kind}


def error_response(error: ApiError, shape: Shape = openai_error) -> Response:
    """The response of an error."""
    return Response(
        to_json(shape(error)),
        error.status,
        headers=dict(error.headers or {}),
        media_type="application/json",
    )


def shown(value: object) -> str:
    """A value from a request, shortened for a message."""
    words = repr(value)
    return words if len(words) <= _MOST_SHOWN else words[: _MOST_SHOWN - 3] + "..."


def _kind(status: int) -> str:
    """OpenAI's type of error for an HTTP status."""
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
