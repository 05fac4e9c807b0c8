"""Token ids of prompts -> answers, by transformers' own `generate`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from ..inputs import names_checked
from .kv import as_argument
from .sampling import Sampling

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

TextOf = Callable[[Sequence[int]], str]

_UNFINISHED = "\ufffd"  # what the first bytes of a character decode to
_LIKELIEST = Sampling()
_BYTES_PER_CHARACTER, _MARGIN = 4, 8  # tokens in which a stop string is looked for


class DecodingOptions(TypedDict, total=False):
    """The keyword options of `Generator.generate` but for `answer_start`."""

    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int | None
    stop: str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an answer is written; fields as in `Generator.generate`."""

    max_new_tokens: int = 256
    min_new_tokens: int = 0
    sampling: Sampling = _LIKELIEST
    stop: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens} must be 1 or more")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens={self.min_new_tokens} is not between 0 and "
                f"max_new_tokens={self.max_new_tokens}"
            )
        if not all(isinstance(stop, str) and stop for stop in self.stops):
            raise ValueError(f"stop={self.stop!r}: stop strings are strings, and not empty")

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one prompt; fields as in `Generation`."""

    text: str
    ids: tuple[int, ...]
    finish: Literal["stop", "length"]


@names_checked
def decoding_of(
    *,
    max_new_tokens: int = 256,
    min_new_tokens: int = 0,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
) -> Decoding:
    """A `Decoding` from `DecodingOptions`.

    Raises:
        ValueError: an option is out of range.
    """
    sampling = Sampling(temperature, top_k, top_p, seed)
    return Decoding(max_new_tokens, min_new_tokens, sampling, stop)


def batch_of(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], cache: DynamicCache | None
) -> dict[str, Any]:
    """Inputs for `generate`: rows padded on the left, so that all end at the last position.

    Args:
        model: What will generate.
        rows: Token ids of each prompt.
        cache: Keys and values of the first tokens of the rows; None = nothing is computed yet.
    """
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, longest - len(row) :] = torch.tensor(row)
        mask[index, longest - len(row) :] = 1
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    return inputs if cache is None else {**inputs, **as_argument(model, cache)}


def generate_batch(
    model: PreTrainedModel,
    inputs: dict[str, Any],
    decoding: Decoding,
    ends: Sequence[int],
    text_of: TextOf,
    on_ids: Callable[[list[int]], bool] | None = None,
) -> list[Answer]:
    """Generate answers to a batch of prompts.

    Args:
        model: A causal language model.
        inputs: From `batch_of`.
        decoding: How tokens are chosen, and when an answer ends.
        ends: Token ids that end an answer.
        text_of: Token ids -> text.
        on_ids: Called after each token with the new ids of the first row; if it returns True, the
            generation ends.

    Returns:
        An answer for each row.
    """
    ids = inputs["input_ids"]
    watch = _Watch(ids.shape[1], len(ids), decoding.stops, text_of, on_ids)
    generator: Any = model
    with torch.inference_mode():
        rows = generator.generate(
            **inputs,
            generation_config=GenerationConfig(
                max_new_tokens=decoding.max_new_tokens,
                min_new_tokens=decoding.min_new_tokens or None,
                do_sample=False,
                eos_token_id=list(ends) or None,
                pad_token_id=ends[0] if ends else 0,
            ),
            logits_processor=decoding.sampling.processors(len(ids)),
            stopping_criteria=StoppingCriteriaList([watch]),
        )
    return [
        _answer(row, stopped, decoding.stops, ends, text_of)
        for row, stopped in zip(rows[:, ids.shape[1] :].tolist(), watch.stopped, strict=True)
    ]


def generate_pieces(
    model: PreTrainedModel,
    inputs: dict[str, Any],
    decoding: Decoding,
    ends: Sequence[int],
    text_of: TextOf,
) -> Generator[str, None, Answer]:
    """The answer of `generate_batch` to one prompt, in pieces, while a thread generates.

    Text is held back while it may still change: unfinished characters, the beginning of a stop
    string. Closing the iterator stops the thread.

    Yields:
        Pieces of the text.

    Returns:
        The whole answer.
    """
    news: queue.SimpleQueue[list[int] | list[Answer] | BaseException] = queue.SimpleQueue()
    closed = threading.Event()

    def on_ids(ids: list[int]) -> bool:
        news.put(ids)
        return closed.is_set()

    def work() -> None:
        try:
            news.put(generate_batch(model, inputs, decoding, ends, text_of, on_ids))
        except BaseException as error:  # raised again in the thread that reads
            news.put(error)

    thread = threading.Thread(target=work, name="llm-embeddings-generate")
    thread.start()
    try:
        shown = 0
        while True:
            new = news.get()
            if isinstance(new, BaseException):
                raise new
            last = new[0] if isinstance(new[0], Answer) else None
            text = last.text if last else _settled(text_of(new), decoding.stops)  # type: ignore[arg-type]
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if last:
                return last
    finally:
        closed.set()
        thread.join()


def _answer(
    ids: list[int], stopped: int | None, stops: Sequence[str], ends: Sequence[int], text_of: TextOf
) -> Answer:
    """The answer in a row's new ids, which `generate` pads after its end."""
    if stopped is not None:
        ids = ids[:stopped]
    end = next((place for place, token in enumerate(ids, 1) if token in ends), None)
    ids = ids[:end]
    text = text_of(ids)
    finish: Literal["stop", "length"] = "length" if stopped is None and end is None else "stop"
    return Answer(_cut(text, stops), tuple(ids), finish)


def _cut(text: str, stops: Sequence[str]) -> str:
    """A text up to the first stop string in it."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=None)]


def _settled(text: str, stops: Sequence[str]) -> str:
    """The beginning of an unfinished text that will not change any more."""
    text = _cut(text, stops).rstrip(_UNFINISHED)
    held = max(
        (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0
    )
    return text[: len(text) - held]


class _Watch(StoppingCriteria):
    """Ends rows at a stop string, and all rows when `on_ids` says so.

    Attributes:
        stopped: For each row, how many new tokens it had when a stop string was complete; None =
            no stop string yet.
    """

    def __init__(
        self,
        start: int,
        rows: int,
        stops: Sequence[str],
        text_of: TextOf,
        on_ids: Callable[[list[int]], bool] | None,
    ) -> None:
        self._start, self._stops, self._text_of, self._on_ids = start, stops, text_of, on_ids
        longest = max(map(len, stops), default=0)
        self._tail = _BYTES_PER_CHARACTER * longest + _MARGIN
        self.stopped: list[int | None] = [None] * rows

    def __call__(
        self, input_ids: torch.Tensor, scores: Any, **options: Any
    ) -> torch.Tensor:  # the signature is transformers'
        new = input_ids[:, self._start :]
        if self._stops:
            for row, ids in enumerate(new[:, -self._tail :].tolist()):
                text = self._text_of(ids)
                if self.stopped[row] is None and any(stop in text for stop in self._stops):
                    self.stopped[row] = new.shape[1]
        closed = self._on_ids is not None and self._on_ids(new[0].tolist())
        done = [closed or length is not None for length in self.stopped]
        return torch.tensor(done, device=input_ids.device)
