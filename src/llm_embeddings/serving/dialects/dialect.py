"""A dialect: where its requests go, what they may hold, and how answers and errors are written."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import Shape
from ..request import Body

if TYPE_CHECKING:
    from ...encoder import Encoder
    from ..service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One kind of request.

    Attributes:
        paths: Where it is sent.
        body: The fields that it may have.
        answer: Computes what it asks for; gives the body of the response.
        error: How an error is written.
    """

    paths: tuple[str, ...]
    body: type[Body]
    answer: Callable[[Service, Encoder, Any], Coroutine[None, None, bytes]]
    error: Shape
