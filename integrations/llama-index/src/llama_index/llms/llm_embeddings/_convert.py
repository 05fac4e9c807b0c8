"""LlamaIndex's messages and streams, from and to the core's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import TypeVar

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock

_Item = TypeVar("_Item")

_ROLES = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
}


def conversation(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """Messages with the roles "system", "user" and "assistant", as the core's generator takes them.

    Raises:
        ValueError: a message holds more than text, or has a role these models do not know.
    """
    for message in messages:
        if message.role not in _ROLES:
            raise ValueError(
                f"a message of the role {message.role.value!r} has no place in this model's "
                "prompts: give system, user and assistant"
            )
        for block in message.blocks:
            if not isinstance(block, TextBlock):
                raise ValueError(
                    f"a message holds a {type(block).__name__}, and this model reads text alone"
                )
    return [{"role": _ROLES[one.role], "content": one.content or ""} for one in messages]


async def in_threads(items: Generator[_Item, None, None]) -> AsyncGenerator[_Item, None]:
    """A generator's items, each made in a thread while the event loop goes on.

    It is not closed here: where a task is cancelled, a thread may be in it. It closes when nobody
    holds it any more.
    """
    done = object()
    while (item := await asyncio.to_thread(next, items, done)) is not done:
        yield item  # type: ignore[misc]
