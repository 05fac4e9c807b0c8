"""PDF -> sections, one a page."""

from __future__ import annotations

import io
from typing import Any

from ..decoding import LOCKED, Unreadable, in_words, reader
from ..outline import FileContent, Line, Section, notes, some, split_lines


def read_pdf(data: bytes) -> FileContent:
    """The text of every page, and what was filled into a form.

    Raises:
        Unreadable: it is locked or broken, or pypdf is not installed.
    """
    pypdf = reader("pypdf", "needs pypdf")
    try:
        return _read(pypdf, data)
    except pypdf.errors.DependencyError as error:
        reason = "encrypted by AES, needs cryptography: pip install 'llm-embeddings[search]'"
        raise Unreadable(reason, passing=True) from error


def _read(pypdf: Any, data: bytes) -> FileContent:
    # A damaged file makes pypdf raise nearly anything, RecursionError and KeyError included.
    try:
        file = pypdf.PdfReader(io.BytesIO(data))
        locked = file.is_encrypted and not file.decrypt("")
        count = 0 if locked else len(file.pages)
    except pypdf.errors.DependencyError:
        raise
    except Exception as error:
        raise Unreadable(f"broken or locked PDF ({in_words(error)})") from error
    if locked:
        raise Unreadable(LOCKED)
    sections: list[Section] = []
    empty: list[int] = []
    failed: dict[int, str] = {}
    for number in range(1, count + 1):
        try:
            text = file.pages[number - 1].extract_text()
        except pypdf.errors.DependencyError:
            raise
        except Exception as error:
            failed[number] = in_words(error)
            continue
        if not text.strip():
            empty.append(number)
        lines = [Line(number, line) for line in split_lines(text)]
        sections.append(Section("", number, lines))
    first = next(iter(failed.values()), "")
    if failed and len(failed) == count:
        raise Unreadable(f"broken PDF ({first})")
    form, unread = _form(file)
    broken = f"pages that cannot be read: {some([*failed])} ({first})"
    blank = f"pages without text: {some(empty)} (scanned?)"
    told = notes(broken if failed else "", blank if empty else "", unread)
    return FileContent(sections + form, told)


def _form(file: Any) -> tuple[list[Section], str]:
    """The fields of a form that are filled in, as a section of the first page; a note if it fails.

    The pages are read all the same.
    """
    try:
        fields = file.get_form_text_fields() or {}
    except Exception as error:
        return [], f"form that cannot be read ({in_words(error)})"
    lines = [Line(1, f"{name}: {value}") for name, value in fields.items() if value]
    return ([Section("Form", 1, lines)] if lines else []), ""
