"""The name of a model, with its provider -> what answers prompts."""

from __future__ import annotations

from typing import Any

from ...faces import require
from .generators import ChatGenerator, ModelOptions, TextGenerator
from .local import LocalGenerator

LOCAL = "local"  # the provider of models that transformers runs on this machine


def open_generator(model: str, options: ModelOptions | None = None) -> TextGenerator:
    """Open a language model.

    Args:
        model: "PROVIDER:MODEL", as LangChain names them, or "local:DIRECTORY" for a model that
            transformers runs on this machine.
        options: How the model is asked; None = by default.

    Raises:
        ImportError: the provider's package is missing; the message names it.
        ValueError: no such provider, or no key.
    """
    options = options or ModelOptions()
    provider, colon, name = model.partition(":")
    if not (colon and provider and name):
        raise ValueError(
            f"model {model!r} names no provider: write openai:{model or 'NAME'}, "
            f"ollama:NAME or {LOCAL}:DIRECTORY"
        )
    if provider == LOCAL:
        return LocalGenerator(name, options)
    models = require("langchain.chat_models", "chat models need LangChain", extra="synth")
    given: dict[str, Any] = {"temperature": options.temperature, "top_p": options.top_p}
    given |= {"max_tokens": options.max_reply_tokens, "base_url": options.base_url}
    settings = {key: value for key, value in given.items() if value is not None}
    try:
        # `Asker` retries, not LangChain: it counts retries, and lets all calls wait together.
        chat: Any = models.init_chat_model(name, model_provider=provider, max_retries=0, **settings)
    except ImportError:
        raise
    except Exception as error:  # each provider has a class of its own for a missing key
        raise ValueError(f"model {model!r} cannot be used: {error}") from error
    return ChatGenerator(chat, name=model, structured=options.structured)
