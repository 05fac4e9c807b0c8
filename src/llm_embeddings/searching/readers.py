"""Readers, one for each format of file: bytes -> sections of text, or the reason why not."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath

from .decoding import Unreadable, decode
from .formats.mail import read_mail, read_notebook, read_rtf
from .formats.office import read_docx, read_epub, read_odf, read_pptx
from .formats.pdf import read_pdf
from .formats.tables import read_csv, read_jsonl, read_xlsx
from .formats.text import read_code, read_latex, read_markdown, read_text
from .html import declared_encoding, read_html
from .outline import FileContent

# Format of the files that are read when a directory is searched, by suffix; "" = no suffix.
FORMATS = {
    **dict.fromkeys(("", ".txt", ".text", ".rst", ".adoc", ".org"), "text"),
    **dict.fromkeys((".md", ".markdown", ".mdx"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".xlsx", ".xlsm"), "xlsx"),
    **dict.fromkeys((".odt", ".odp"), "odf"),
    ".tex": "latex",
    ".pdf": "pdf",
    ".docx": "docx",
    ".pptx": "pptx",
    ".epub": "epub",
    ".eml": "mail",
    ".ipynb": "notebook",
    ".rtf": "rtf",
}
# Formats of files that are read when they are asked for, by suffix; others are plain text.
_ASKED = dict.fromkeys(
    (
        ".c .cc .cjs .cpp .cs .cxx .dart .ex .exs .go .h .hpp .hs .java .jl .js .jsx .kt .kts .lua "
        ".m .mjs .ml .mm .php .pl .pm .py .pyi .r .rb .rs .scala .sh .swift .ts .tsx .vb .zig"
    ).split(),
    "code",
)
# What the number of a place counts, where it is not lines.
UNITS = {
    "pdf": "page",
    "pptx": "slide",
    "docx": "paragraph",
    "odf": "paragraph",
    "rtf": "paragraph",
    "mail": "paragraph",
    "xlsx": "row",
    "epub": "chapter",
    "notebook": "cell",
}
# Raise a number when a reader reads otherwise than before: its files are then read again.
_VERSIONS = {"html": 2, "jsonl": 2, "pdf": 2}
_LIBRARIES = {"pdf": "pypdf", "xlsx": "openpyxl"}
_BY_COLUMN = ("jsonl", "csv")


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read.

    Attributes:
        columns: Fields of JSONL and CSV to read; () = all that hold text.
    """

    columns: tuple[str, ...] = ()

    def key(self, kind: str) -> str:
        """All that decides what a file of a format is read as, besides its bytes."""
        parts = [kind]
        if kind in _VERSIONS:
            parts.append(str(_VERSIONS[kind]))
        if kind in _LIBRARIES:
            parts.append(_version(_LIBRARIES[kind]))
        if kind in _BY_COLUMN and self.columns:
            parts.append(",".join(self.columns))
        return ":".join(parts)


ALL = Reading()


def content_format(path: str) -> str:
    """The format of a file by its name, a key of `READERS`; plain text if it is not known."""
    suffix = PurePath(path).suffix.lower()
    return FORMATS.get(suffix) or _ASKED.get(suffix, "text")


def read_content(data: bytes, kind: str, reading: Reading = ALL) -> FileContent:
    """Read the text of a file.

    Args:
        data: The whole file.
        kind: Its format, as `content_format` gives it.
        reading: How it is read.

    Raises:
        Unreadable: it is empty, binary or broken, or a library to read it is not installed.
    """
    if not data:
        raise Unreadable("empty")
    if kind in _BY_COLUMN:
        content = (read_jsonl if kind == "jsonl" else read_csv)(data, reading.columns)
    else:
        content = READERS[kind](data)
    if not any(line.text.strip() for part in content.sections for line in part.lines) and not any(
        part.heading for part in content.sections
    ):
        raise Unreadable("no text" + (" (scanned pages?)" if kind == "pdf" else ""))
    return content


def _html(data: bytes) -> FileContent:
    text, note = decode(data, declared_encoding(data))
    return FileContent(read_html(text), note)


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "none"


READERS: dict[str, Callable[[bytes], FileContent]] = {
    "text": read_text,
    "markdown": read_markdown,
    "latex": read_latex,
    "code": read_code,
    "html": _html,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "xlsx": read_xlsx,
    "pdf": read_pdf,
    "docx": read_docx,
    "pptx": read_pptx,
    "odf": read_odf,
    "epub": read_epub,
    "mail": read_mail,
    "notebook": read_notebook,
    "rtf": read_rtf,
}
