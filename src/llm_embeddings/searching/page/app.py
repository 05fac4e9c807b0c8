"""The page as an ASGI application: HTML made here, a style sheet and a few lines of script.

It asks nothing of other machines, and answers only requests to this one by its own name, so that
no other web page can read files through a browser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ...faces import require
from ...ranking.fusion import SearchMode
from ..excerpts import excerpt, pattern, printable
from ..hits import Found, Query
from ..lines import place_of
from ..readers import content_format
from .marking import marked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from ..index import Index

_HERE = Path(__file__).parent
_ASSETS = {"style.css": "text/css", "page.js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_TOP = 10
_EXCERPT = 320  # characters
_LONGEST_QUERY = 1000


@dataclass(frozen=True, slots=True)
class Searched:
    """What the page searches.

    Attributes:
        index: The index, up to date.
        files: Paths and the ids of their contents.
        names: Paths as they are shown.
        encode: A query -> its unit vector, `[dim]`.
        title: What is searched, for people.
        mode: What ranks unless the page says otherwise.
    """

    index: Index
    files: Mapping[str, int]
    names: Mapping[str, str]
    encode: Callable[[str], NDArray[np.float32]]
    title: str
    mode: SearchMode = "hybrid"

    @property
    def kinds(self) -> dict[str, int]:
        """Formats and how many files have each, the commonest first."""
        counts: dict[str, int] = {}
        for path in self.files:
            kind = content_format(path)
            counts[kind] = counts.get(kind, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def create_page(searched: Searched) -> Starlette:
    """The application.

    Raises:
        ImportError: Starlette or Jinja is not installed.
    """
    require("starlette", "the page needs Starlette", extra="serve")
    jinja2 = require("jinja2", "the page needs Jinja", extra="serve")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Route

    loader = jinja2.FileSystemLoader(_HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    kinds = searched.kinds

    def page(request: Request) -> Response:
        """The whole page, or with `part` the hits alone, for its script."""
        asked = request.query_params
        query = asked.get("q", "")[:_LONGEST_QUERY]
        mode = _mode(asked.get("mode", ""), searched.mode)
        chosen = [kind for kind in asked.getlist("kind") if kind in kinds]
        facts = {
            "title": searched.title,
            "query": query,
            "mode": mode,
            "modes": {"hybrid": "Both", "vector": "Meaning", "words": "Words"},
            "kinds": kinds,
            "chosen": chosen,
            "files": len(searched.files),
        }
        facts |= _found(searched, query, mode, chosen)
        template = "hits.html" if "part" in asked else "page.html"
        return HTMLResponse(environment.get_template(template).render(facts), headers=_HEADERS)

    def asset(request: Request) -> Response:
        name = request.url.path.lstrip("/")
        content = (_HERE / name).read_bytes()
        return Response(content, media_type=_ASSETS[name], headers=_HEADERS)

    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    assets = [Route(f"/{name}", asset) for name in _ASSETS]
    return Starlette(routes=[Route("/", page), *assets], middleware=[hosts])


def _mode(asked: str, default: SearchMode) -> SearchMode:
    return next((mode for mode in get_args(SearchMode) if mode == asked), default)


def _found(searched: Searched, query: str, mode: SearchMode, kinds: list[str]) -> dict[str, object]:
    """Hits for a query, as the templates take them."""
    if not query.strip():
        return {"hits": [], "compared": 0}
    files = {
        path: content
        for path, content in searched.files.items()
        if not kinds or content_format(path) in kinds
    }
    vector = searched.encode(query)
    asked = Query(query, vector, mode, unfinished=True)
    hits, compared = searched.index.best(asked, _TOP, files)
    return {"hits": [_shown(searched, hit, query) for hit in hits], "compared": compared}


def _shown(searched: Searched, hit: Found, query: str) -> dict[str, object]:
    words = pattern(query)
    first, *others = (printable(searched.names[path]) for path in hit.paths)
    place = place_of(hit, words)
    return {
        "place": place.after(first),
        "others": others,
        "kind": hit.kind,
        "heading": printable(hit.chunk.heading),
        "excerpt": marked(excerpt(hit.chunk.text, words, _EXCERPT), words),
        "passage": hit.chunk.text,
        "score": hit.score,
        "cosine": hit.cosine,
        "words": hit.words,
    }
