"""Late chunking (arXiv 2409.04701): a text is encoded as a whole and then cut into chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..tokens import tokenize
from ..vectors import finish

if TYPE_CHECKING:
    from ..encoder import Encoder
    from ..recipe import Recipe
    from ..tokens import Tokens
    from ..vectors import Vectors

_NO_LIMIT = 2**31

Span = tuple[int, int]
Split = Callable[[str], Sequence[str]]


def check_late(recipe: Recipe) -> None:
    """Check that a recipe fits late chunking: bidirectional, with mean pooling.

    Raises:
        ValueError: it does not.
    """
    if recipe.causal or recipe.pooling != "mean":
        raise ValueError(
            f"late chunking needs bidirectional attention and mean pooling; {recipe.name!r} is "
            f"{'causal' if recipe.causal else 'bidirectional'} with {recipe.pooling}: encode its "
            "chunks one by one (late=False)"
        )


def spans_of(text: str, split: int | Split) -> list[Span]:
    """Begin and end of the chunks of a text, in characters.

    Args:
        text: The text.
        split: Most characters of a chunk, which ends between words if it can; or a function that
            returns the chunks, parts of the text in its order, which may overlap.

    Raises:
        ValueError: a size that is not positive, or a chunk that is not in the text.
    """
    if isinstance(split, int):
        if split < 1:
            raise ValueError(f"split={split} must be 1 character or more")
        return list(_even(text, split))
    spans, at = [], 0
    for number, chunk in enumerate(split(text)):
        begin = text.find(chunk, at)
        if begin < 0:
            raise ValueError(
                f"chunk {number} ({chunk!r:.60}) is not a part of the text behind those before it: "
                "late chunking needs a splitter that only cuts"
            )
        spans.append((begin, begin + len(chunk)))
        at = begin + 1
    return spans


def late_vectors(
    encoder: Encoder, text: str, spans: Sequence[Span], *, instruction: str | None = None
) -> Vectors:
    """Vectors of the chunks of a text, each the mean of its tokens, which see the whole text.

    A text with more tokens than the model has positions is encoded in as few pieces as possible,
    cut where a chunk begins.

    Args:
        encoder: An encoder whose recipe is bidirectional with mean pooling.
        text: The whole text.
        spans: Begin and end of each chunk in characters, in order.
        instruction: Instruction for documents; None = none.

    Returns:
        `[chunks, dim]`, float32, of unit length.

    Raises:
        ValueError: another kind of recipe, a span without a token, or one that has more tokens
            than the model has positions.
    """
    check_late(encoder.recipe)
    room = encoder.model.positions
    pooled = []
    for begin, end, inside in _pieces(encoder, text, spans, room, instruction):
        states = encoder.encode_tokens(text[begin:end], "document", instruction, max_length=room)
        for first, last in inside:
            tokens = (states.offsets[:, 0] < last - begin) & (states.offsets[:, 1] > first - begin)
            if not tokens.any():
                raise ValueError(f"chunk {text[first:last]!r:.60} at {first} has no token")
            pooled.append(states.vectors[tokens].mean(0))
    found = np.array(pooled, np.float32).reshape(-1, encoder.dimension)
    return finish(found, normalize=True, truncate_dim=None)


def _even(text: str, size: int) -> Iterator[Span]:
    """Spans of at most `size` characters that end between words if they can."""
    begin = 0
    while begin < len(text):
        end = min(begin + size, len(text))
        if end < len(text):
            space = max(text.rfind(" ", begin + 1, end + 1), text.rfind("\n", begin + 1, end + 1))
            end = space if space > begin else end
        if text[begin:end].strip():
            yield begin, end
        begin = end


def _pieces(
    encoder: Encoder, text: str, spans: Sequence[Span], room: int, instruction: str | None
) -> Iterator[tuple[int, int, list[Span]]]:
    """Pieces of a text that fit the model: begin, end, and the chunks in each."""

    def tokens_of(begin: int, end: int) -> Tokens:
        texts = [text[begin:end]]
        parts = encoder.tokenizer, encoder.recipe, texts, "document", instruction
        return tokenize(*parts, max_length=_NO_LIMIT, with_offsets=True)[0]

    first = 0
    while first < len(spans):
        begin, end, last = spans[first][0] if first else 0, len(text), len(spans)
        tokens = tokens_of(begin, end)
        while len(tokens.ids) > room:
            kept = tokens.offsets[: room - (len(tokens.ids) - len(tokens.offsets))]
            end = begin + kept[-1][1]
            last = sum(stop <= end for _, stop in spans)
            if last <= first:
                start, stop = spans[first]
                raise ValueError(
                    f"the chunk of {stop - start} characters at {start} does not fit the {room} "
                    "positions of this model: split into smaller chunks"
                )
            end = spans[last - 1][1]
            tokens = tokens_of(begin, end)
        yield begin, end, list(spans[first:last])
        first = last
