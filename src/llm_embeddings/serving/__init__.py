"""An OpenAI-compatible server of embeddings, on FastAPI and uvicorn.

`create_app` makes an ASGI application around an encoder, `serve` runs one until a signal ends it.
The texts of all requests are batched together by the encoder's scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..faces import lazy

if TYPE_CHECKING:
    from .app import create_app
    from .limits import Limits
    from .server import serve

__all__ = ["Limits", "create_app", "serve"]

_HOMES = {
    "Limits": "limits",
    "create_app": "app",
    "serve": "server",
}
__getattr__ = lazy(__name__, _HOMES, extra="serve")
