"""MkDocs hooks: files of the repository as pages of the site, and links that work in both.

The Markdown in docs/ is written to be read in the repository, so its links are paths there. The
site has no repository behind it: links to files that are pages are turned into links to those
pages, links to other files that exist become plain text, and all else is left for MkDocs to warn
about.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# File of the repository -> page of the site, beside what lies in docs/.
PAGES = {
    "integrations/langchain/README.md": "integrations/langchain.md",
    "integrations/llama-index/README.md": "integrations/llama-index.md",
    "integrations/sentence-transformers/README.md": "integrations/sentence-transformers.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/README.md": "examples.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",  # the site has a front page of its own; links still lead somewhere
}
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_FENCED = re.compile(r"(^ *```.*?^ *```$)", re.M | re.S)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring in the pages that lie outside docs/."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        if files.get_file_from_path(page) is None:
            text = (ROOT / path).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    here = page.file.src_uri
    origins = {site: path for path, site in PAGES.items() if site != "index.md"}
    source = origins.get(here, f"docs/{here}")
    pieces = _FENCED.split(markdown)  # text, code, text, ...
    pieces[::2] = [_LINK.sub(lambda m: _link(m, source, here), text) for text in pieces[::2]]
    return "".join(pieces)


def _link(match: re.Match[str], source: str, here: str) -> str:
    """One link, as the site needs it."""
    path = match["path"]
    if re.match(r"\w+:", path):
        return match[0]
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    page = PAGES.get(target) or target.removeprefix("docs/")
    if target in PAGES or target.startswith("docs/"):
        relative = posixpath.relpath(page, posixpath.dirname(here) or ".")
        return f"{match['image']}[{match['text']}]({relative}{match['anchor'] or ''})"
    return match["text"] if (ROOT / target).exists() else match[0]
