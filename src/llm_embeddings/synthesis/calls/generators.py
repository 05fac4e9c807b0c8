"""Language models that answer prompts: any LangChain chat model, or a local one.

What can go wrong is sorted here, once for all providers: what may work if asked again
(`Unavailable`), what concerns one prompt (`Rejected`), and what will never work (`ValueError`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

Structured = Literal["auto", "always", "never"]
_TRANSIENT = (408, 409, 425, 429)
_HOPELESS = (401, 402, 403, 404)
# Class names of connection and time-out errors in the SDKs and httpx, where they are no OSError.
_BROKEN = ("Timeout", "Connection", "ConnectError", "ReadError", "RemoteProtocolError")


class Unavailable(Exception):
    """The endpoint did not answer; it may, if asked again.

    Attributes:
        limited: Because too much was asked at once.
        after: Seconds that it wants to be left alone; None = it does not say.
    """

    def __init__(self, reason: str, *, limited: bool = False, after: float | None = None) -> None:
        super().__init__(reason)
        self.limited, self.after = limited, after


class Rejected(Exception):
    """The endpoint will not answer this prompt; others it may."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked.

    Attributes:
        text: All of it.
        schema: JSON schema of the reply; None = any.
        seed: For models that draw reproducibly.
    """

    text: str
    schema: Mapping[str, object] | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said.

    Attributes:
        text: All of it.
        tokens_in: Of the prompt, as the endpoint counts; None = it does not say.
        tokens_out: Of the reply.
        truncated: It had to stop before its end.
    """

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    truncated: bool = False


class Generator(Protocol):
    """Answers prompts.

    Attributes:
        name: What stands in every row as its model.
    """

    name: str

    async def __call__(self, prompt: Prompt) -> Reply:
        """Answer.

        Raises:
            Unavailable: no answer now.
            Rejected: no answer to this prompt.
            ValueError: no answer to any: a wrong key or model.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a model is asked.

    Attributes:
        base_url: Of an OpenAI-compatible endpoint; the provider is "openai" then.
        temperature: The paper's is 1; None = not sent, for models that refuse it.
        top_p: Likewise.
        max_reply_tokens: Longest reply.
        structured: Whether the endpoint is made to keep to a JSON schema: "auto" where LangChain
            knows that the model can.
    """

    base_url: str | None = None
    temperature: float | None = 1.0
    top_p: float | None = 1.0
    max_reply_tokens: int = 4096
    structured: Structured = "auto"


class ChatGenerator:
    """A LangChain chat model."""

    def __init__(self, chat: BaseChatModel, *, name: str, structured: Structured = "auto") -> None:
        """Hold a chat model.

        Args:
            chat: The model, with its temperature, keys and limits set.
            name: What to call it in the rows.
            structured: See `ModelOptions`.
        """
        self.name = name
        self._chat = chat
        profile = getattr(chat, "profile", None) or {}
        able = bool(profile.get("structured_output"))
        self._structured = structured == "always" or (structured == "auto" and able)

    async def __call__(self, prompt: Prompt) -> Reply:
        """See `Generator`."""
        try:
            if self._structured and prompt.schema is not None:
                asked = self._chat.with_structured_output(dict(prompt.schema), include_raw=True)
                answer: Any = await asked.ainvoke(prompt.text)
                said = json.dumps(answer["parsed"], ensure_ascii=False) if answer["parsed"] else ""
                return _reply(answer["raw"], said)
            return _reply(await self._chat.ainvoke(prompt.text), "")
        except Exception as error:
            raise sorted_error(error, self.name) from error


def _reply(message: Any, said: str) -> Reply:
    usage = message.usage_metadata or {}
    about = message.response_metadata or {}
    stopped = str(about.get("finish_reason") or about.get("stop_reason") or "").lower()
    return Reply(
        said or str(message.text),
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        stopped in ("length", "max_tokens", "max_output_tokens"),
    )


def sorted_error(error: Exception, name: str) -> Exception:
    """A provider's error as one of those that a `Generator` raises.

    LangChain's own classes say what may be retried; providers that do not have them yet are known
    by their status code, or by the names of their classes.
    """
    status = _status(error)
    words = str(error).strip() or type(error).__name__
    code = str(getattr(error, "code", "") or "")
    if status in _HOPELESS or code == "insufficient_quota":
        return ValueError(f"{name} refuses ({status}): {words}")
    if status in _TRANSIENT or (status or 0) >= 500:
        return Unavailable(words, limited=status == 429, after=_retry_after(error))
    if status is not None:
        return Rejected(words)
    names = [kind.__name__ for kind in type(error).__mro__]
    broken = any(part in kind for kind in names for part in _BROKEN)
    if isinstance(error, OSError) or broken or getattr(error, "is_retryable", False):
        return Unavailable(words)
    return Rejected(f"{type(error).__name__}: {words}")


def _status(error: Exception) -> int | None:
    """The HTTP status of an error, wherever its SDK keeps it."""
    response = getattr(error, "response", None)
    for value in (
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        getattr(error, "code", None),
    ):
        if isinstance(value, int):
            return value
    return None


def _retry_after(error: Exception) -> float | None:
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):  # none, or a date, which the backoff replaces
        return None
