"""Documents in the order in which a generative model finds that they answer a query."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from ..inputs import names_checked
from .decoding import batch_of
from .kv import check_room

if TYPE_CHECKING:
    from .generator import Generator

Method = Literal["yes-no", "permutation"]

# Prompts in our own words.
YES_NO = (
    "Query: {query}\n\nDocument: {document}\n\nDoes the document answer the query? Reply Yes or No."
)
PERMUTATION = (
    "Query: {query}\n\n{document}\n\nOrder these documents by how well they answer the query, the "
    "best first. Reply with all their numbers and nothing else, in this form: [2] > [1]"
)
_WORDS = ("Yes", "No")
_TOKENS_PER_NUMBER = 8
_PLACES = re.compile(r"\{(query|document)\}")


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document in its new place.

    Attributes:
        index: Its place in what was given.
        score: How much likelier "Yes" is than "No", as a difference of log-probabilities; above 0
            it answers the query. None where the model said an order and no scores.
    """

    index: int
    score: float | None


@dataclass(frozen=True, slots=True)
class Question:
    """What the model is asked of one document.

    Attributes:
        ids: Token ids up to where the two answers part.
        yes: The token with which "Yes" goes on.
        no: The token with which "No" goes on.
    """

    ids: list[int]
    yes: int
    no: int


class Reranker:
    """Orders documents by what a generative model says of them and a query.

    Two ways: "yes-no" asks of each document by itself whether it answers the query, and compares
    the probabilities of both words as the answer; a batch is one pass. "permutation" shows the
    documents together and has the model write their order (RankGPT, arXiv 2304.09542, with which
    GritLM's authors rerank what it has found), for lists over `window` from the end upwards.

    Attributes:
        generator: Whose model is asked, in its own chat format.
        method: Which way.
        prompt: What the user's turn says, with places for `{query}` and `{document}`; for
            "permutation" the latter is all documents, numbered.
        window: How many documents an order is asked of at once; it then goes on half as many up.
        batch_tokens: Most tokens of a pass of "yes-no", padding included.
    """

    @names_checked
    def __init__(
        self,
        generator: Generator,
        *,
        method: Method = "yes-no",
        prompt: str | None = None,
        window: int = 10,
        batch_tokens: int = 16_384,
    ) -> None:
        """Keep the settings; the attributes say what they mean.

        Raises:
            ValueError: an unknown method, a prompt without its places, or a number out of range.
        """
        if method not in get_args(Method):
            raise ValueError(f"method={method!r} is not one of {get_args(Method)}")
        if prompt is None:
            prompt = YES_NO if method == "yes-no" else PERMUTATION
        if {"query", "document"} - set(_PLACES.findall(prompt)):
            raise ValueError(f"prompt={prompt!r:.80} must have places for {{query}}, {{document}}")
        if window < 2 or batch_tokens < 1:
            raise ValueError(f"window={window} must be 2 or more, batch_tokens={batch_tokens} 1")
        self.generator, self.method, self.prompt = generator, method, prompt
        self.window, self.batch_tokens = window, batch_tokens

    def rerank(self, query: str, documents: Sequence[str]) -> list[Ranked]:
        """All documents, the best first; equally good ones stay in their order.

        Raises:
            ValueError: a prompt takes more tokens than the model has positions.

        Warns:
            UserWarning: a reply names no document; the order of these is left as it is.
        """
        if isinstance(documents, str):
            raise TypeError(f"documents is the string {documents!r:.80}, not a list of strings")
        if self.method == "permutation":
            return [Ranked(index, None) for index in self._ordered(query, documents)]
        scores = self.scores(query, documents)
        order = sorted(range(len(documents)), key=lambda index: -scores[index])
        return [Ranked(index, scores[index]) for index in order]

    def scores(self, query: str, documents: Sequence[str]) -> list[float]:
        """Log-probability of "Yes" less that of "No" for each document, asked by itself.

        Where the tokenizer splits the words, these are the first tokens that tell them apart.

        Raises:
            ValueError: as in `rerank`.
        """
        questions = self.questions(query, documents)
        found = [0.0] * len(questions)
        for batch in self.batches(questions):
            scores = self.scores_of([questions[index] for index in batch])
            for index, score in zip(batch, scores, strict=True):
                found[index] = score
        return found

    def questions(self, query: str, documents: Sequence[str]) -> list[Question]:
        """What the model is asked of each document by "yes-no".

        Raises:
            ValueError: as in `rerank`.
        """
        found = [self._asked(self._filled(query, document)) for document in documents]
        for question in found:
            check_room(len(question.ids), 1, self.generator.max_length)
        return found

    def batches(self, questions: Sequence[Question]) -> Iterator[list[int]]:
        """The places of all questions in batches of up to `batch_tokens`, long ones first."""
        waiting = sorted(range(len(questions)), key=lambda index: -len(questions[index].ids))
        while waiting:
            count = max(1, self.batch_tokens // len(questions[waiting[0]].ids))
            batch, waiting = waiting[:count], waiting[count:]
            yield batch

    def scores_of(self, questions: Sequence[Question]) -> list[float]:
        """The scores of questions, in one pass."""
        logits = self._last_logits([question.ids for question in questions])
        pairs = zip(logits, questions, strict=True)
        return [float(row[one.yes] - row[one.no]) for row, one in pairs]

    def _filled(self, query: str, document: str) -> str:
        """The prompt with both texts in their places, whatever stands in them."""
        texts = {"query": query, "document": document}
        return _PLACES.sub(lambda place: texts[place[1]], self.prompt)

    def _asked(self, prompt: str) -> Question:
        yes, no = (self.generator.prompt_ids(prompt, answer_start=word) for word in _WORDS)
        pairs = enumerate(zip(yes, no, strict=False))
        place = next(place for place, (one, other) in pairs if one != other)
        return Question(yes[:place], yes[place], no[place])

    def _last_logits(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits `[rows, vocabulary]`, float32, of what follows each row."""
        model: Any = self.generator.model
        inputs = batch_of(self.generator.model, rows, None)
        positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        with torch.inference_mode():
            found = model(**inputs, position_ids=positions, use_cache=False, logits_to_keep=1)
        return found.logits[:, -1].float()  # type: ignore[no-any-return]

    def _ordered(self, query: str, documents: Sequence[str]) -> list[int]:
        """The order that the model writes, window by window from the last documents to the first.

        The better half of a window is compared again with those above it.
        """
        order = list(range(len(documents)))
        start = max(len(order) - self.window, 0)
        while len(order) > 1:
            shown = order[start : start + self.window]
            order[start : start + self.window] = self._window(query, shown, documents)
            if not start:
                break
            start = max(start - self.window // 2, 0)
        return order

    def _window(self, query: str, shown: list[int], documents: Sequence[str]) -> list[int]:
        """Documents by their indices, in the order of the model's reply."""
        listed = "\n\n".join(f"[{n}] {documents[index]}" for n, index in enumerate(shown, 1))
        reply = self.generator.generate(
            self._filled(query, listed), max_new_tokens=_TOKENS_PER_NUMBER * len(shown)
        )
        named = [int(number) for number in re.findall(r"\d+", reply.text)]
        places = [number - 1 for number in dict.fromkeys(named) if 1 <= number <= len(shown)]
        if not places:
            warnings.warn(
                f"the reply {reply.text!r:.80} names none of {len(shown)} documents: their order "
                "is left as it is. Use method='yes-no' with a model that does not write orders",
                stacklevel=4,
            )
        rest = [place for place in range(len(shown)) if place not in places]
        return [shown[place] for place in (*places, *rest)]
