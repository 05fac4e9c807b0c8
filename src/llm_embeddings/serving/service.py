"""From what is asked to vectors: names, roles, limits, and one encoder for all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Literal

from ..encoder import Encoder
from ..recipe import Role
from ..vectors import Vectors
from .errors import ApiError, shown
from .metrics import Metrics
from .options import Limits
from .queue import Queue
from .request import EmbeddingRequest, Inputs
from .token_arrays import REMEDY, texts_of

_QUICK = 8192  # characters or ids that are tokenised faster than a thread is woken


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What clients get.

    Attributes:
        name: Of the model; None = its recipe's.
        instruction: Of a query that brings none; None = the recipe's.
        normalize: Unit L2 length; None = as the recipe says.
        token_arrays: Whether arrays of token ids are taken.
    """

    name: str | None = None
    instruction: str | None = None
    normalize: bool | None = None
    token_arrays: bool = False


@dataclass(frozen=True, slots=True)
class _Counted:
    """Texts as they will run."""

    texts: list[str]
    tokens: int
    cut: int


class Service:
    """One encoder behind a bounded queue.

    Attributes:
        limits: Its bounds.
        queue: What is in hand.
        metrics: What has happened.
        state: Whether requests are taken, and if not, why.
        name: Of the model.
    """

    def __init__(self, served: Served, limits: Limits) -> None:
        """Wait for an encoder."""
        self.limits, self.queue = limits, Queue(limits)
        self.metrics = Metrics(self.queue)
        self.state: Literal["loading", "ready", "draining"] = "loading"
        self.name = served.name or ""
        self._loaded_at = 0
        self._served = served
        self._encoder: Encoder | None = None
        self._roles: dict[str, Role | None] = {}

    def open(self, encoder: Encoder) -> None:
        """Take requests from now on, after a first pass, which is slower than others.

        Raises:
            ValueError: the model has no place for the instruction of queries.
        """
        encoder.encode("warm", "query", self._served.instruction)
        self.name = name = self._served.name or encoder.recipe.name
        self._roles = {name: None, f"{name}:query": "query", f"{name}:document": "document"}
        self._encoder, self._loaded_at = encoder, int(time.time())
        self.metrics.watch(encoder)
        if self.state == "loading":
            self.state = "ready"

    def drain(self) -> None:
        """Take no more requests; those in hand go on."""
        self.state = "draining"

    def check_ready(self) -> Encoder:
        """The encoder that new requests get.

        Raises:
            ApiError: 503, it is not there yet, or no longer for new requests.
        """
        if self._encoder is None or self.state != "ready":
            raise ApiError(
                503, f"the server is {self.state}", code=self.state, headers={"Retry-After": "5"}
            )
        return self._encoder

    def role_of(self, name: str) -> Role | None:
        """The role that a served name stands for.

        Raises:
            ApiError: 404, there is no such model.
        """
        if name not in self._roles:
            raise ApiError(
                404,
                f"the model {shown(name)} is not served here: use one of {', '.join(self._roles)}",
                code="model_not_found",
                param="model",
            )
        return self._roles[name]

    def models(self) -> list[dict[str, object]]:
        """All served names, as `/v1/models` lists them."""
        encoder = self.check_ready()
        facts = {
            "object": "model",
            "created": self._loaded_at,
            "owned_by": "llm-embeddings",
            "dimensions": encoder.dimension,
            "max_length": encoder.max_length,
        }
        return [{"id": name, **facts} for name in self._roles]

    async def embed(self, encoder: Encoder, asked: EmbeddingRequest) -> tuple[Vectors, int]:
        """What is asked for, from an encoder that was ready when the request came.

        Returns:
            Vectors `[n, dim]`, float32, and how many tokens the model was fed.

        Raises:
            ApiError: what is asked cannot be, or not now, or took too long.
        """
        role, instruction = self._as_what(asked)
        _check_dimensions(encoder, asked.dimensions)
        try:
            async with asyncio.timeout(self.limits.timeout):
                counted = await self._count(encoder, asked.input, role, instruction)
                with self.queue.place(counted.tokens):
                    vectors: Vectors = await encoder.aencode(
                        counted.texts,
                        role,
                        instruction,
                        normalize=self._served.normalize,
                        truncate_dim=asked.dimensions,
                    )
        except TimeoutError as error:
            raise self._late() from error
        self.metrics.embedded(role, len(counted.texts), counted.tokens, counted.cut)
        return vectors, counted.tokens

    def _as_what(self, asked: EmbeddingRequest) -> tuple[Role, str | None]:
        """Role and instruction of a request."""
        named = self.role_of(asked.model)
        if named and asked.role and named != asked.role:
            raise ApiError(
                400,
                f"role is {asked.role!r} and the model's name says {named!r}: leave one out",
                code="invalid_value",
                param="role",
            )
        role: Role = asked.role or named or "document"
        if asked.instruction is not None or role == "document":
            return role, asked.instruction
        return role, self._served.instruction

    async def _count(
        self, encoder: Encoder, inputs: Inputs, role: Role, instruction: str | None
    ) -> _Counted:
        """Texts and their tokens; many are counted in a thread."""
        if isinstance(inputs[0], list) and not self._served.token_arrays:
            raise ApiError(
                400,
                f"this server takes no token ids: {REMEDY}. It does with --token-arrays, for "
                "clients that tokenise with this model's own tokenizer",
                code="invalid_token_ids",
                param="input",
            )
        arguments = encoder, inputs, role, instruction
        if sum(map(len, inputs)) < _QUICK:
            return _counted(*arguments)
        return await asyncio.to_thread(_counted, *arguments)

    def _late(self) -> ApiError:
        return ApiError(
            503,
            f"not done within {self.limits.timeout:g} s: send fewer texts at a time, or try again "
            "when the server is less busy",
            code="timeout",
            headers={"Retry-After": str(self.queue.seconds(self.queue.tokens))},
        )


def _counted(encoder: Encoder, inputs: Inputs, role: Role, instruction: str | None) -> _Counted:
    texts = _texts(encoder, inputs)
    try:
        rows = encoder.model.rows(texts, role, instruction)
    except ValueError as error:  # the instruction is the only thing of the client's that can fail
        raise ApiError(400, str(error), code="invalid_value", param="instruction") from error
    return _Counted(texts, sum(len(row.ids) for row in rows), sum(row.cut > 0 for row in rows))


def _texts(encoder: Encoder, inputs: Inputs) -> list[str]:
    arrays = [one for one in inputs if isinstance(one, list)]
    if arrays:
        return texts_of(encoder.tokenizer, arrays)
    return [one for one in inputs if isinstance(one, str)]


def _check_dimensions(encoder: Encoder, dimensions: int | None) -> None:
    if dimensions is not None and dimensions > encoder.dimension:
        raise ApiError(
            400,
            f"dimensions is {dimensions} and the model has {encoder.dimension}",
            code="invalid_value",
            param="dimensions",
        )
