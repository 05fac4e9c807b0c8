"""What the server does: a request -> vectors, with names, roles, limits and one encoder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

from ..encoder import Encoder
from ..inputs import EncodeKeywords
from ..recipe import Role
from ..streams import Prepared
from ..vectors import TokenVectors, Vectors
from .errors import ApiError, shown
from .judging import Judge, RankBy
from .limits import Limits
from .metrics import Metrics
from .preparing import meaning, prepare
from .queue import Queue
from .request import Asked

_MOST_NUMBERS = 2**24  # in an answer with vectors of tokens: some 200 MB of JSON

Found = TypeVar("Found")


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
        rank_by: What ranks documents: the cosine of "vectors", or by "generation" how likely the
            model finds it that they answer the query.
    """

    name: str | None = None
    instruction: str | None = None
    normalize: bool | None = None
    token_arrays: bool = False
    max_length: int | None = None
    max_batch_tokens: int | None = None
    rank_by: RankBy = "vectors"

    def __post_init__(self) -> None:
        if self.rank_by not in get_args(RankBy):
            raise ValueError(f"rank_by={self.rank_by!r} is not one of {get_args(RankBy)}")

    def options(self) -> EncodeKeywords:
        """What a call of the encoder is given."""
        return {
            "normalize": self.normalize,
            "max_length": self.max_length,
            "max_batch_tokens": self.max_batch_tokens,
        }


class Service:
    """One encoder behind a bounded queue.

    Attributes:
        limits: Bounds on requests.
        queue: The requests in hand.
        metrics: Counts of what was served.
        state: Whether requests are taken ("ready"), and if not, why.
        name: Name of the model; "" before it is loaded, unless it was given.
        normalize: Whether vectors get unit L2 length; None = as the recipe says.
        judge: What ranks documents; None = the cosine of vectors.
    """

    def __init__(self, served: Served, limits: Limits) -> None:
        """Start without an encoder; `open` gives it one."""
        self.limits, self.queue = limits, Queue(limits)
        self.metrics = Metrics(self.queue)
        self.state: Literal["loading", "ready", "draining"] = "loading"
        self.name, self.normalize = served.name or "", served.normalize
        self._loaded_at = 0
        self._served = served
        self.judge: Judge | None = None
        self._encoder: Encoder | None = None
        self._roles: dict[str, Role | None] = {}

    def open(self, encoder: Encoder) -> None:
        """Take requests from now on, after a first pass, which is slower than later ones.

        Raises:
            ValueError: the model has no place for the instruction of queries, cannot take a limit,
                or shall rank by generation and cannot generate.
        """
        if self._served.rank_by == "generation":
            self.judge = Judge(encoder, self._served.max_batch_tokens)
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
            "max_length": self.max_length(encoder),
        }
        return [{"id": name, **facts} for name in self._roles]

    def max_length(self, encoder: Encoder) -> int:
        """Limit of a text in tokens."""
        return self._served.max_length or encoder.max_length

    def normalizes(self, encoder: Encoder, asked: Asked) -> bool:
        """Whether the vectors of a request get unit L2 length."""
        wanted = self.normalize if asked.normalize is None else asked.normalize
        return encoder.recipe.normalize if wanted is None else wanted

    async def embed(self, encoder: Encoder, asked: Asked) -> tuple[Vectors, int]:
        """Compute the vectors of a request.

        Args:
            encoder: The encoder, from `check_ready` when the request came.
            asked: The request.

        Returns:
            Vectors `[n, dim]`, float32, and how many tokens the model was fed.

        Raises:
            ApiError: the request is wrong, too much for now, or took too long.
        """
        return await self._computed(encoder, asked, Prepared.arun)

    async def embed_tokens(self, encoder: Encoder, asked: Asked) -> list[TokenVectors]:
        """Compute one vector for each token of each text of a request.

        Raises:
            ApiError: as in `embed`, or there would be too many numbers for an answer.
        """

        async def run(prepared: Prepared) -> list[TokenVectors]:
            numbers = sum(prepared.tokens) * encoder.dimension
            if numbers > _MOST_NUMBERS:
                raise ApiError(
                    400,
                    f"the vectors of all tokens have {numbers} numbers and an answer takes "
                    f"{_MOST_NUMBERS}: send fewer texts at a time",
                    code="too_many_tokens",
                    param=asked.field,
                )
            return await prepared.atokens()

        return (await self._computed(encoder, asked, run))[0]

    async def judged(self, judge: Judge, query: str, texts: list[str]) -> tuple[list[float], int]:
        """Log-odds that each text answers a query, and how many tokens the model was fed.

        Raises:
            ApiError: as in `embed`, or query and text are longer than the model's context.
        """
        try:
            async with asyncio.timeout(self.limits.timeout):
                questions = await judge.questions(query, texts)
                tokens = sum(len(question.ids) for question in questions)
                with self.queue.place(tokens):
                    scores = await judge.scores(questions)
        except TimeoutError as error:
            raise self._late() from error
        self.metrics.embedded("document", len(texts), tokens, 0)
        return scores, tokens

    async def _computed(
        self, encoder: Encoder, asked: Asked, run: Callable[[Prepared], Awaitable[Found]]
    ) -> tuple[Found, int]:
        """What comes of the texts of a request within the limits, and their tokens."""
        named = None if asked.model is None else self.role_of(asked.model)
        role, prompt_name = meaning(asked, named, dict(encoder.recipe.prompts))
        if asked.instruction is None and role == "query" and prompt_name is None:
            asked = replace(asked, instruction=self._served.instruction)
        options = self._options(encoder, asked, prompt_name)
        try:
            async with asyncio.timeout(self.limits.timeout):
                arrays = self._served.token_arrays
                prepared = await prepare(encoder, asked, role, options, arrays=arrays)
                tokens = sum(prepared.tokens)
                with self.queue.place(tokens):
                    found = await run(prepared)
        except TimeoutError as error:
            raise self._late() from error
        self.metrics.embedded(role, len(prepared.tokens), tokens, prepared.cut)
        return found, tokens

    def _options(self, encoder: Encoder, asked: Asked, prompt_name: str | None) -> EncodeKeywords:
        """What a call of the encoder is given."""
        options = self._served.options()
        options |= {"truncate_dim": asked.dimensions, "prompt_name": prompt_name}
        if asked.normalize is not None:
            options["normalize"] = asked.normalize
        if asked.max_length is not None:
            options["max_length"] = min(asked.max_length, self.max_length(encoder))
        return options

    def _late(self) -> ApiError:
        """The error for a request that takes longer than the timeout."""
        return ApiError(
            503,
            f"not done within {self.limits.timeout:g} s: send fewer texts at a time, or try again "
            "when the server is less busy",
            code="timeout",
            headers={"Retry-After": str(self.queue.seconds(self.queue.tokens))},
        )
