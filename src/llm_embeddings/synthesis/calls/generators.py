"""Language models that answer prompts: their interface, and any chat model of LangChain.

Errors of all providers become one of three: `Unavailable` (it may work if asked again), `Rejected`
(it will not work for this prompt) and `ValueError` (it will never work).
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
# Parts of the class names of connection and time-out errors in SDKs and httpx that are no OSError.
_BROKEN = ("Timeout", "Connection", "ConnectError", "ReadError", "RemoteProtocolError")


class Unavailable(Exception):
    """The endpoint did not answer; it may, if asked again.

    Attributes:
        limited: Whether it was because of a rate limit.
        after: Seconds to wait, as the endpoint says; None = it does not say.
    """

    def __init__(self, reason: str, *, limited: bool = False, after: float | None = None) -> None:
        super().__init__(reason)
        self.limited, self.after = limited, after


class Rejected(Exception):
    """The endpoint will not answer this prompt; it may answer others."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked.

    Attributes:
        text: The whole prompt.
        schema: JSON schema of the reply; None = any reply.
        seed: Seed for models that sample reproducibly.
    """

    text: str
    schema: Mapping[str, object] | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered.

    Attributes:
        text: The whole reply.
        tokens_in: Tokens of the prompt, as the endpoint counts; None = it does not say.
        tokens_out: Tokens of the reply, likewise.
        truncated: Whether the reply was cut off at its longest.
    """

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    truncated: bool = False


class TextGenerator(Protocol):
    """A language model that answers prompts.

    Attributes:
        name: The name of the model, as every row records it.
    """

    name: str

    async def __call__(self, prompt: Prompt) -> Reply:
        """Answer a prompt.

        Raises:
            Unavailable: there is no answer now.
            Rejected: there will be no answer to this prompt.
            ValueError: there will be no answer to any prompt: a wrong key or model.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a model is asked.

    Attributes:
        base_url: Address of an OpenAI-compatible endpoint, for the provider "openai".
        temperature: Sampling temperature, 1 in the paper; None = not sent, for models that refuse
            it.
        top_p: Nucleus sampling, 1 in the paper; None = not sent.
        max_reply_tokens: Most tokens of a reply.
        structured: Whether the endpoint is to enforce the JSON schema: "always", "never", or where
            LangChain knows that the model can ("auto").
    """

    base_url: str | None = None
    temperature: float | None = 1.0
    top_p: float | None = 1.0
    max_reply_tokens: int = 4096
    structured: Structured = "auto"


class ChatGenerator:
    """A chat model of LangChain as a `TextGenerator`."""

    def __init__(self, chat: BaseChatModel, *, name: str, structured: Structured = "auto") -> None:
        """Hold a chat model.

        Args:
            chat: The model, with its temperature, keys and limits set.
            name: The name of the model, as rows record it.
            structured: See `ModelOptions`.
        """
        self.name = name
        self._chat = chat
        profile = getattr(chat, "profile", None) or {}
        able = bool(profile.get("structured_output"))
        self._structured = structured == "always" or (structured == "auto" and able)

    async def __call__(self, prompt: Prompt) -> Reply:
        """See `TextGenerator`."""
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
    """A message of LangChain as a `Reply`; `said` is its text if the message has none."""
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
    """A provider's error as one of those that a `TextGenerator` raises.

    Told by the HTTP status, else by the kind of the error, the name of its class, or the mark by
    which LangChain's own errors say that they may be retried.
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
    """Seconds that the endpoint's "retry-after" header asks to wait; None = it has none."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):  # there is none, or it is a date
        return None
