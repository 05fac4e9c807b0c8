"""The texts inside what the readers give, and a limit on their length."""

from __future__ import annotations

from collections.abc import Callable

from ...records.examples import Conversation, Example
from .passages import Passage

Item = str | Example | Conversation | Passage


def texts_of(item: Item) -> tuple[str, ...]:
    """Every text that a model would read."""
    if isinstance(item, Example):
        return item.query, *item.positives, *item.negatives
    if isinstance(item, Conversation):
        return tuple(message.text for message in item.messages)
    return (item,) if isinstance(item, str) else (item.text,)


def within(
    longest: int, *, shortest: int = 1, measure: Callable[[str], int] = len
) -> Callable[[Item], bool]:
    """A filter for `Mixture(keep=...)`: whether every text of an item has a length within limits.

    Args:
        longest: Most that is kept.
        shortest: Least that is kept.
        measure: The length of a text: characters, or `lambda text: len(tokenizer(text).input_ids)`.

    Raises:
        ValueError: limits that keep nothing.
    """
    if not 0 <= shortest <= longest:
        raise ValueError(f"shortest={shortest}, longest={longest}: these limits keep no text")

    def keep(item: Item) -> bool:
        return all(shortest <= measure(text) <= longest for text in texts_of(item))

    return keep
