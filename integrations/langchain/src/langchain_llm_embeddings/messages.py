"""LangChain's messages as the core takes them: a conversation, or a question with documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
)

_ROLES: dict[type[BaseMessage], str] = {
    HumanMessage: "user",
    AIMessage: "assistant",
    SystemMessage: "system",
}
_TEXT, _DOCUMENT = "text", "text-plain"


@dataclass(frozen=True, slots=True)
class Question:
    """What a user asks of some documents.

    Attributes:
        text: The question.
        documents: Texts to answer from, in their order.
    """

    text: str
    documents: list[str]


def conversation(messages: Sequence[BaseMessage]) -> list[dict[str, str]] | Question:
    """Messages with the roles "system", "user" and "assistant", or one question with documents.

    A document is a block of the type "text-plain", which `DocumentPrompt` writes.

    Raises:
        ValueError: a message holds more than text, has a role these models do not know, or stands
            beside one that holds documents.
    """
    blocks = [_blocks(message) for message in messages]
    if any(block["type"] == _DOCUMENT for each in blocks for block in each):
        return _question(messages, blocks)
    return [
        {"role": _role(message), "content": _joined(each, _TEXT)}
        for message, each in zip(messages, blocks, strict=True)
    ]


def _question(messages: Sequence[BaseMessage], blocks: list[list[dict[str, Any]]]) -> Question:
    if len(messages) > 1 or _role(messages[0]) != "user":
        raise ValueError(
            f"documents go with one HumanMessage that asks about them, and there are "
            f"{len(messages)} messages: leave the others out, or write the documents as text"
        )
    text = _joined(blocks[0], _TEXT)
    if not text:
        raise ValueError("a message of documents alone asks nothing: add the question as text")
    return Question(text, [block["text"] for block in blocks[0] if block["type"] == _DOCUMENT])


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return message.role
    for kind, role in _ROLES.items():
        if isinstance(message, kind):
            return role
    raise ValueError(
        f"{type(message).__name__} has no place in this model's prompts: give HumanMessage, "
        "AIMessage and SystemMessage"
    )


def _blocks(message: BaseMessage) -> list[dict[str, Any]]:
    content = [message.content] if isinstance(message.content, str) else message.content
    blocks: list[dict[str, Any]] = [
        {"type": _TEXT, "text": block} if isinstance(block, str) else block for block in content
    ]
    if isinstance(message, AIMessage) and message.tool_calls:
        blocks.append({"type": "tool_call"})
    for block in blocks:
        if block.get("type") not in (_TEXT, _DOCUMENT) or not isinstance(block.get("text"), str):
            raise ValueError(
                f"a message holds a block of the type {block.get('type')!r}, and this model reads "
                "text alone"
            )
    return blocks


def _joined(blocks: list[dict[str, Any]], kind: str) -> str:
    return "\n".join(block["text"] for block in blocks if block["type"] == kind)
