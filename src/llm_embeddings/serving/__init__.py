"""An OpenAI-compatible server of embeddings, on FastAPI and uvicorn.

`create_app` makes an ASGI application around an encoder, `serve` runs one until it is told to end.
All requests share the passes of the encoder's scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..faces import lazy

if TYPE_CHECKING:
    from .app import create_app
    from .options import Limits
    from .server import serve

__all__ = ["Limits", "create_app", "serve"]

_HOMES = {
    "Limits": "options",
    "create_app": "app",
    "serve": "server",
}
__getattr__ = lazy(__name__, _HOMES, extra="serve")
