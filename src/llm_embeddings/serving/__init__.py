"""An OpenAI-compatible server of embeddings, on FastAPI and uvicorn.

`create_app` makes an ASGI application around an encoder, `serve` runs one until it is told to end.
All requests share the passes of the encoder's scheduler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .options import Limits

if TYPE_CHECKING:
    from .app import create_app
    from .server import serve

__all__ = ["Limits", "create_app", "serve"]

_HOMES = {"create_app": ".app", "serve": ".server"}


def __getattr__(name: str) -> Any:
    """Import what needs the extra only when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name], __name__), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"serving needs {error.name}: pip install 'llm-embeddings[serve]'"
        ) from error
