"""What the server does: a request -> vectors, with names, roles, limits and one encoder."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Literal

from ..encoder import Encoder
from ..inputs import EncodeKeywords
from ..recipe import Role
from ..streams import Prepared
from ..vectors import Vectors
from .errors import ApiError, shown
from .limits import Limits
from .metrics import Metrics
from .queue import Queue
from .request import EmbeddingRequest, Inputs
from .token_arrays import REMEDY, texts_of_arrays

_QUICK = 8192  # characters or ids; so few are tokenised faster than a thread is woken


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How a model is served.

    Attributes:
        name: Name of the model; None = its recipe's.
        instruction: Instruction of a query that comes without; None = the recipe's.
        normalize: Whether vectors get unit L2 length; None = as the recipe says.
        token_arrays: Whether arrays of token ids are taken.
        max_length: Limit of a text in tokens; None = the model's.
        max_batch_tokens: Tokens per forward pass; None = by device.
    """

    name: str | None = None
    instruction: str | None = None
    normalize: bool | None = None
    token_arrays: bool = False
    max_length: int | None = None
    max_batch_tokens: int | None = None

    def options(
        self, dimensions: int | None = None, prompt_name: str | None = None
    ) -> EncodeKeywords:
        """What a call of the encoder is given; dimensions and prompt are the request's."""
        return {
            "normalize": self.normalize,
            "truncate_dim": dimensions,
            "max_length": self.max_length,
            "max_batch_tokens": self.max_batch_tokens,
            "prompt_name": prompt_name,
        }


class Service:
    """One encoder behind a bounded queue.

    Attributes:
        limits: Bounds on requests.
        queue: The requests in hand.
        metrics: Counts of what was served.
        state: Whether requests are taken ("ready"), and if not, why.
        name: Name of the model; "" before it is loaded, unless it was given.
    """

    def __init__(self, served: Served, limits: Limits) -> None:
        """Start without an encoder; `open` gives it one."""
        self.limits, self.queue = limits, Queue(limits)
        self.metrics = Metrics(self.queue)
        self.state: Literal["loading", "ready", "draining"] = "loading"
        self.name = served.name or ""
        self._loaded_at = 0
        self._served = served
        self._encoder: Encoder | None = None
        self._roles: dict[str, Role | None] = {}

    def open(self, encoder: Encoder) -> None:
        """Take requests from now on, after a first pass, which is slower than later ones.

        Raises:
            ValueError: the model has no place for the instruction of queries, or cannot take a
                limit.
        """
        encoder.encode("warm", "query", self._served.instruction, **self._served.options())
        self.name = name = self._served.name or encoder.recipe.name
        self._roles = {name: None, f"{name}:query": "query", f"{name}:document": "document"}
        self._encoder, self._loaded_at = encoder, int(time.time())
        self.metrics.watch(encoder)
        if self.state == "loading":
            self.state = "ready"

    def drain(self) -> None:
        """Take no more requests; those in hand are finished."""
        self.state = "draining"

    def check_ready(self) -> Encoder:
        """The encoder, if requests are taken.

        Raises:
            ApiError: 503, the model is still loading, or the server is ending.
        """
        if self._encoder is None or self.state != "ready":
            raise ApiError(
                503, f"the server is {self.state}", code=self.state, headers={"Retry-After": "5"}
            )
        return self._encoder

    def role_of(self, name: str) -> Role | None:
        """The role that a name of the model stands for; None = the request says it.

        Raises:
            ApiError: 404, there is no such name.
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
        """All names of the model, as `/v1/models` lists them."""
        encoder = self.check_ready()
        facts = {
            "object": "model",
            "created": self._loaded_at,
            "owned_by": "llm-embeddings",
            "dimensions": encoder.dimension,
            "max_length": self._served.max_length or encoder.max_length,
        }
        return [{"id": name, **facts} for name in self._roles]

    async def embed(self, encoder: Encoder, asked: EmbeddingRequest) -> tuple[Vectors, int]:
        """Compute the vectors of a request.

        Args:
            encoder: The encoder, from `check_ready` when the request came.
            asked: The request.

        Returns:
            Vectors `[n, dim]`, float32, and how many tokens the model was fed.

        Raises:
            ApiError: the request is wrong, too much for now, or took too long.
        """
        role, instruction = self._as_what(asked)
        if asked.prompt_name is not None:
            _check_prompt(encoder, asked.prompt_name)
        _check_dimensions(encoder, asked.dimensions)
        try:
            async with asyncio.timeout(self.limits.timeout):
                prepared = await self._prepare(encoder, asked, role, instruction)
                tokens = sum(prepared.tokens)
                with self.queue.place(tokens):
                    vectors: Vectors = await prepared.arun()
        except TimeoutError as error:
            raise self._late() from error
        self.metrics.embedded(role, len(vectors), tokens, prepared.cut)
        return vectors, tokens

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
        if asked.instruction is not None or role == "document" or asked.prompt_name:
            return role, asked.instruction
        return role, self._served.instruction

    async def _prepare(
        self, encoder: Encoder, asked: EmbeddingRequest, role: Role, instruction: str | None
    ) -> Prepared:
        """Tokenise the texts of a request; many texts in a thread."""
        inputs = asked.input
        if isinstance(inputs[0], list) and not self._served.token_arrays:
            raise ApiError(
                400,
                f"this server takes no token ids: {REMEDY}. It does with --token-arrays, for "
                "clients that tokenise with this model's own tokenizer",
                code="invalid_token_ids",
                param="input",
            )
        options = self._served.options(asked.dimensions, asked.prompt_name)
        arguments = encoder, inputs, role, instruction, options
        if sum(map(len, inputs)) < _QUICK:
            return _prepared(*arguments)
        return await asyncio.to_thread(_prepared, *arguments)

    def _late(self) -> ApiError:
        """The error for a request that takes longer than the timeout."""
        return ApiError(
            503,
            f"not done within {self.limits.timeout:g} s: send fewer texts at a time, or try again "
            "when the server is less busy",
            code="timeout",
            headers={"Retry-After": str(self.queue.seconds(self.queue.tokens))},
        )


def _prepared(
    encoder: Encoder,
    inputs: Inputs,
    role: Role,
    instruction: str | None,
    options: EncodeKeywords,
) -> Prepared:
    """The texts of a request, tokenised.

    Raises:
        ApiError: 400, the model takes no such instruction.
    """
    texts = _texts(encoder, inputs)
    try:
        return encoder.prepare(texts, role, instruction, **options)
    except ValueError as error:  # only the client's instruction can be wrong
        raise ApiError(400, str(error), code="invalid_value", param="instruction") from error


def _texts(encoder: Encoder, inputs: Inputs) -> list[str]:
    """The texts of a request, those of token arrays decoded."""
    arrays = [one for one in inputs if isinstance(one, list)]
    if arrays:
        return texts_of_arrays(encoder.tokenizer, arrays)
    return [one for one in inputs if isinstance(one, str)]


def _check_prompt(encoder: Encoder, prompt_name: str) -> None:
    """The name of a prompt, which the model has."""
    try:
        encoder.recipe.template(prompt_name)
    except ValueError as error:
        raise ApiError(400, str(error), code="invalid_value", param="prompt_name") from error


def _check_dimensions(encoder: Encoder, dimensions: int | None) -> None:
    if dimensions is not None and dimensions > encoder.dimension:
        raise ApiError(
            400,
            f"dimensions is {dimensions} and the model has {encoder.dimension}",
            code="invalid_value",
            param="dimensions",
        )
