"""`llm-embeddings search FOLDER --serve`: a page in the browser instead of a query."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..faces import require
from .console import remarks

if TYPE_CHECKING:
    from ..encoder import Encoder
    from ..ranking.fusion import SearchMode
    from ..searching.index import Index

_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Served:
    """What a page shows, and where.

    Attributes:
        paths: What is searched.
        names: Files as they are shown, by path.
        encoder: Embeds queries.
        instruction: Goes before queries.
        mode: What ranks unless the page says otherwise.
        port: Where to listen; 0 = any that is free.
    """

    paths: list[Path]
    names: Mapping[str, str]
    encoder: Encoder
    instruction: str | None
    mode: SearchMode
    port: int


def serve_page(index: Index, files: Mapping[str, int], served: Served) -> None:
    """Serve the page on this machine until it is interrupted.

    Args:
        index: The index, up to date.
        files: Paths and the ids of their contents.
        served: What else it takes.

    Raises:
        ImportError: Starlette or uvicorn is not installed.
        ValueError: the port is taken.
    """
    uvicorn = require("uvicorn", "the page needs uvicorn", extra="serve")
    from ..searching.page.app import Searched, create_page

    def encode(query: str) -> Any:
        return served.encoder.encode_query(query, served.instruction, normalize=True)

    named = (str(path) if path.name else path.resolve().name for path in served.paths)
    searched = Searched(index, files, served.names, encode, ", ".join(named), served.mode)
    app = create_page(searched)
    try:
        listening = socket.create_server((_HOST, served.port))
    except OSError as error:
        raise ValueError(
            f"port {served.port} cannot be had ({error.strerror}): --port names another"
        ) from error
    with listening:
        place = listening.getsockname()[1]
        remarks().print(f"http://{_HOST}:{place}/ shows the page; Ctrl-C ends it", markup=False)
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listening])
