"""Replies of a language model -> texts. Strict: what does not parse is refused, and nothing is run.

A reply may stand in a Markdown fence or have words around it; inside, only JSON counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

# Why a reply is refused; the report counts by these.
EMPTY, REFUSAL, TRUNCATED = "empty", "refusal", "truncated"
NOT_JSON, WRONG_KEYS, WRONG_VALUES = "not JSON", "wrong keys", "wrong values"
# U+2019 is the apostrophe that chat models write.
_REFUSING = re.compile(
    "(i['\u2019]m sorry|i am sorry|sorry,|i can['\u2019]?t|i cannot|i can not|i['\u2019]m unable|"
    "i am unable|i won['\u2019]t|as an ai\\b|i must decline|unfortunately, i)",
    re.I,
)
_DECODER = json.JSONDecoder()
_SHORTEST_TASK, _LONGEST_TASK = 10, 500  # characters


class ReplyError(ValueError):
    """A reply that is no example.

    Attributes:
        reason: One of the constants above.
    """

    def __init__(self, reason: str, reply: str) -> None:
        super().__init__(f"{reason}: {reply!r:.120}")
        self.reason = reason


def parse_example(reply: str, keys: Sequence[str], *, truncated: bool = False) -> tuple[str, ...]:
    """The texts of an example, in the order of its keys.

    Args:
        reply: What the model said.
        keys: Exactly those the object must have.
        truncated: Whether the model says that it had to stop.

    Raises:
        ReplyError: no such object.
    """
    value = _json(reply, "{", truncated)
    if set(value) != set(keys):
        raise ReplyError(WRONG_KEYS, reply)
    texts = tuple(value[key] for key in keys)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ReplyError(WRONG_VALUES, reply)
    return tuple(_clean(text) for text in texts)


def parse_tasks(reply: str, *, truncated: bool = False) -> list[str]:
    """The tasks of a brainstorming, each once.

    Raises:
        ReplyError: no list of strings, or none of a task's length.
    """
    value = _json(reply, "[", truncated)
    if not all(isinstance(task, str) for task in value):
        raise ReplyError(WRONG_VALUES, reply)
    tasks = [" ".join(_clean(task).split()) for task in value]
    fitting = [task for task in tasks if _SHORTEST_TASK <= len(task) <= _LONGEST_TASK]
    if not fitting:
        raise ReplyError(WRONG_VALUES, reply)
    return list(dict.fromkeys(fitting))


def _json(reply: str, opening: str, truncated: bool) -> Any:
    """The one JSON value of a reply that begins with a bracket."""
    start = reply.find(opening)
    if not reply.strip():
        raise ReplyError(TRUNCATED if truncated else EMPTY, reply)
    if start < 0:
        refusing = _REFUSING.match(reply.lstrip())
        raise ReplyError(TRUNCATED if truncated else REFUSAL if refusing else NOT_JSON, reply)
    try:
        value, end = _DECODER.raw_decode(reply, start)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ReplyError(TRUNCATED if truncated or _cut_off(error) else NOT_JSON, reply) from error
    if opening in reply[end:]:  # which of two was meant?
        raise ReplyError(NOT_JSON, reply)
    return value


def _cut_off(error: Exception) -> bool:
    """Whether JSON broke off only because the reply ended."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    unterminated = error.msg.startswith("Unterminated string")
    return unterminated or error.pos >= len(error.doc.rstrip())


def _clean(text: str) -> str:
    """Without halves of surrogate pairs, which JSON may spell and UTF-8 cannot."""
    return text.strip().encode("utf-8", "replace").decode("utf-8")
