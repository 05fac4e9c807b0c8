"""A filter for training data: whether all texts of an item have a length within limits."""

from __future__ import annotations

from collections.abc import Callable

from ...records.examples import Conversation, Example
from .passages import Passage

AnyItem = str | Example | Conversation | Passage


def texts_in(item: AnyItem) -> tuple[str, ...]:
    """The texts of an item that a model would read."""
    if isinstance(item, Example):
        return item.query, *item.positives, *item.negatives
    if isinstance(item, Conversation):
        return tuple(message.text for message in item.messages)
    return (item,) if isinstance(item, str) else (item.text,)


def within(
    longest: int, *, shortest: int = 1, measure: Callable[[str], int] = len
) -> Callable[[AnyItem], bool]:
    """A filter for `Mixture(keep=...)` that keeps items whose every text fits the limits.

    Args:
        longest: Length of the longest text that is kept.
        shortest: Length of the shortest text that is kept.
        measure: Length of a text; without, its characters. For tokens pass
            `lambda text: len(tokenizer(text).input_ids)`.

    Raises:
        ValueError: limits that keep nothing.
    """
    if not 0 <= shortest <= longest:
        raise ValueError(f"shortest={shortest}, longest={longest}: these limits keep no text")

    def keep(item: AnyItem) -> bool:
        return all(shortest <= measure(text) <= longest for text in texts_in(item))

    return keep
