"""The prompt between a retriever and a model that remembers documents."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.prompts.chat import BaseChatPromptTemplate
from pydantic import Field


class DocumentPrompt(BaseChatPromptTemplate):
    """A question with the documents that may answer it, each in a block of its own.

    `GritLMChat` knows a document in a block again, and takes what it has read of it from its cache.
    For other models the blocks are LangChain's standard ones for plain text.

    Example:
        >>> inputs = {"documents": retriever, "question": RunnablePassthrough()}  # doctest: +SKIP
        >>> chain = inputs | DocumentPrompt() | chat  # doctest: +SKIP
    """

    input_variables: list[str] = Field(default=["documents", "question"])

    def format_messages(self, **kwargs: Any) -> list[BaseMessage]:
        """One message of the user: documents, then the question.

        Args:
            **kwargs: `documents`, a list of LangChain documents, and `question`, a string.
        """
        documents: list[Document] = kwargs["documents"]
        return [
            HumanMessage([*map(_block, documents), {"type": "text", "text": kwargs["question"]}])
        ]

    def pretty_repr(self, html: bool = False) -> str:
        """What stands where."""
        return "{documents}\n\n{question}"


def _block(document: Document) -> str | dict[str, Any]:
    block = {"type": "text-plain", "mime_type": "text/plain", "text": document.page_content}
    return block if document.id is None else {**block, "id": document.id}
