"""What went wrong, in the shape that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Response
from pydantic_core import to_json

MOST_SHOWN = 80


class ApiError(Exception):
    """An answer other than vectors."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Say what is wrong and what helps.

        Args:
            status: Of HTTP, 400 or more.
            message: For a person.
            code: For a program.
            param: Field of the request that is wrong.
            headers: More headers of the answer.
        """
        super().__init__(message)
        self.status, self.message = status, message
        self.code, self.param, self.headers = code, param, headers


def error_response(error: ApiError) -> Response:
    """`{"error": {"message", "type", "param", "code"}}`."""
    body = {
        "message": error.message,
        "type": _kind(error.status),
        "param": error.param,
        "code": error.code,
    }
    return Response(
        to_json({"error": body}),
        error.status,
        headers=dict(error.headers or {}),
        media_type="application/json",
    )


def shown(value: object) -> str:
    """A value of the client's in a message, not at its full length."""
    words = repr(value)
    return words if len(words) <= MOST_SHOWN else words[: MOST_SHOWN - 3] + "..."


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
