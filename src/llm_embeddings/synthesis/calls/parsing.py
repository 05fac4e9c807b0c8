"""Replies of a language model -> texts; a reply that is not exactly what was asked for is refused.

The JSON may stand in a Markdown fence or have words around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

# Reasons for which a reply is refused; the report counts them.
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
    """A reply that cannot be used.

    Attributes:
        reason: Why: one of this module's constants, such as `NOT_JSON`.
    """

    def __init__(self, reason: str, reply: str) -> None:
        super().__init__(f"{reason}: {reply!r:.120}")
        self.reason = reason


def parse_example(reply: str, keys: Sequence[str], *, truncated: bool = False) -> tuple[str, ...]:
    """The texts of an example, in the order of its keys.

    Args:
        reply: The text of the reply.
        keys: The keys that the JSON object must have, and no others.
        truncated: Whether the reply was cut off at its longest.

    Raises:
        ReplyError: the reply has no such object, or a text in it is empty.
    """
    value = _json(reply, "{", truncated)
    if set(value) != set(keys):
        raise ReplyError(WRONG_KEYS, reply)
    texts = tuple(value[key] for key in keys)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ReplyError(WRONG_VALUES, reply)
    return tuple(_clean(text) for text in texts)


def parse_tasks(reply: str, *, truncated: bool = False) -> list[str]:
    """The tasks in a reply, without repetitions.

    Raises:
        ReplyError: the reply has no list of strings, or none of them has the length of a task.
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
    """The only JSON value in a reply that begins with the bracket `opening`.

    Raises:
        ReplyError: there is none, or more than one.
    """
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
    if opening in reply[end:]:  # two values: it is not clear which is meant
        raise ReplyError(NOT_JSON, reply)
    return value


def _cut_off(error: Exception) -> bool:
    """Whether JSON could not be read only because the reply ends too early."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    unterminated = error.msg.startswith("Unterminated string")
    return unterminated or error.pos >= len(error.doc.rstrip())


def _clean(text: str) -> str:
    """A text without spaces around it, and without lone surrogates, which UTF-8 cannot encode."""
    return text.strip().encode("utf-8", "replace").decode("utf-8")
