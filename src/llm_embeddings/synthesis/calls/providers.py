"""The name of a model -> who answers."""

from __future__ import annotations

from typing import Any

from .generators import ChatGenerator, Generator, ModelOptions
from .local import LocalGenerator

LOCAL = "local"  # the provider of models that transformers runs here


def open_generator(model: str, options: ModelOptions | None = None) -> Generator:
    """The generator "provider:model"; "local:DIRECTORY" is run by transformers.

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
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise ImportError(
            "chat models need LangChain: pip install 'llm-embeddings[synth]'"
        ) from error
    given: dict[str, Any] = {"temperature": options.temperature, "top_p": options.top_p}
    given |= {"max_tokens": options.max_reply_tokens, "base_url": options.base_url}
    settings = {key: value for key, value in given.items() if value is not None}
    try:
        # Retries are ours: they are counted, and wait for all calls together.
        chat: Any = init_chat_model(name, model_provider=provider, max_retries=0, **settings)
    except ImportError:
        raise
    except Exception as error:  # each provider has a class of its own for a missing key
        raise ValueError(f"model {model!r} cannot be used: {error}") from error
    return ChatGenerator(chat, name=model, structured=options.structured)
