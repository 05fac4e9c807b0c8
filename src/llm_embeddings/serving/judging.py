"""Ranking by what the served model says of a query and each document."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from ..encoder import Encoder
from ..generation import Generator, Reranker
from ..generation.reranking import Question
from .errors import ApiError

RankBy = Literal["vectors", "generation"]


class Judge:
    """A generative reranker behind an event loop; its passes run one at a time.

    Between two of them a request that nobody waits for ends, and others have their turn.
    """

    def __init__(self, encoder: Encoder, batch_tokens: int | None) -> None:
        """Put the language-model head on the encoder's backbone.

        Raises:
            ValueError: the model has no head, or none of its files says how prompts look.
        """
        options: Any = {} if batch_tokens is None else {"batch_tokens": batch_tokens}
        self._reranker = Reranker(Generator(encoder), **options)
        self._thread = ThreadPoolExecutor(1, "rerank")

    async def questions(self, query: str, documents: Sequence[str]) -> list[Question]:
        """What the model is asked of each document.

        Raises:
            ApiError: 400, query and document are longer than the model's context.
        """
        try:
            return await asyncio.to_thread(self._reranker.questions, query, documents)
        except ValueError as error:
            raise ApiError(400, str(error), code="too_many_tokens") from error

    async def scores(self, questions: Sequence[Question]) -> list[float]:
        """How much likelier "Yes" is than "No", as differences of log-probabilities."""
        loop, found = asyncio.get_running_loop(), [0.0] * len(questions)
        for batch in self._reranker.batches(questions):
            asked = [questions[index] for index in batch]
            scores = await loop.run_in_executor(self._thread, self._reranker.scores_of, asked)
            for index, score in zip(batch, scores, strict=True):
                found[index] = score
        return found
