"""DOCX, PPTX, ODT, ODP and EPUB -> sections: zip files of XML, read with the standard library."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote
from xml.etree import ElementTree

from ..decoding import LOCKED, Unreadable, check_office, in_words
from ..html import read_html
from ..outline import FileContent, Outline, notes, some

Element = ElementTree.Element
_MOST_BYTES = 200_000_000  # of a part when unpacked: small files can claim to be huge
_HEADING_STYLE = re.compile(r"(?:heading|berschrift|titre)\s*(\d)|(title)", re.I)


def read_docx(data: bytes) -> FileContent:
    """Word: paragraphs under headings, rows of tables, footnotes; numbers are of paragraphs."""
    outline = Outline()
    with _opened(data) as parts:
        styles = _styles(_xml(parts, "word/styles.xml", optional=True))
        body = _xml(parts, "word/document.xml")
        number = 0
        for number, block in enumerate(_blocks(body), 1):
            style = block.find("./{*}pPr/{*}pStyle")
            name = "" if style is None else style.get(_of(style, "val"), "")
            found = _HEADING_STYLE.search(styles.get(name, name))
            text = _row(block) if _tag(block) == "tr" else _text(block)
            if found and text.strip():
                outline.heading(int(found[1] or 0), " ".join(text.split()), number)
            else:
                outline.line(number, text)
        for part in ("word/footnotes.xml", "word/endnotes.xml"):
            for note in _blocks(_xml(parts, part, optional=True)):
                outline.line(number, _text(note))
    return FileContent(outline.sections)


def read_pptx(data: bytes) -> FileContent:
    """PowerPoint: a section per slide, its title above, speaker's notes below."""
    outline = Outline()
    with _opened(data) as parts:
        slides = sorted(_numbered(parts, r"ppt/slides/slide(\d+)\.xml"))
        for number, name in slides:
            paragraphs = _paragraphs(_xml(parts, name))
            notes_of = _xml(parts, _notes_of(parts, name), optional=True)
            paragraphs += _paragraphs(notes_of)
            texts = [text for text in paragraphs if text.strip()]
            if texts:
                outline.heading(1, " ".join(texts[0].split())[:200], number)
            for text in texts[1:]:
                outline.line(number, text)
    return FileContent(outline.sections)


def read_odf(data: bytes) -> FileContent:
    """OpenDocument text and slides: paragraphs under headings, rows of tables."""
    outline = Outline()
    with _opened(data) as parts:
        manifest = _xml(parts, "META-INF/manifest.xml", optional=True)
        if manifest.find(".//{*}encryption-data") is not None:
            raise Unreadable(LOCKED)
        number = 0
        for block in _odf_blocks(_xml(parts, "content.xml")):
            if _tag(block) == "page":
                outline.heading(1, block.get(_of(block, "name"), ""), number + 1)
                continue
            number += 1
            if _tag(block) == "h":
                level = block.get(_of(block, "outline-level"), "1")
                outline.heading(int(level) if level.isdigit() else 1, _flat(block), number)
            elif _tag(block) == "table-row":
                cells = [_flat(cell) for cell in block if _flat(cell).strip()]
                outline.line(number, " | ".join(cells))
            else:
                outline.line(number, _flat(block))
    return FileContent(outline.sections)


def read_epub(data: bytes) -> FileContent:
    """E-books: the chapters in reading order, under their headings; numbers are of chapters."""
    outline = Outline()
    missing, locked = [], []
    with _opened(data) as parts:
        rights = _xml(parts, "META-INF/encryption.xml", optional=True)
        sealed = {unquote(part.get("URI", "")) for part in rights.iterfind(".//{*}CipherReference")}
        root = _xml(parts, "META-INF/container.xml").find(".//{*}rootfile")
        package = "" if root is None else root.get("full-path", "")
        book = _xml(parts, package)
        files = {item.get("id"): item.get("href", "") for item in book.iterfind(".//{*}item")}
        chapters = [files.get(ref.get("idref"), "") for ref in book.iterfind(".//{*}itemref")]
        for number, chapter in enumerate(chapters, 1):
            name = posixpath.join(posixpath.dirname(package), unquote(chapter))
            if name not in parts.namelist():
                missing.append(number)
                continue
            if name in sealed:
                locked.append(number)
                continue
            for section in read_html(_bytes(parts, name).decode("utf-8", "replace")):
                outline.heading(1, section.heading, number)
                for line in section.lines:
                    outline.line(number, line.text)
    if locked and not outline.sections:
        raise Unreadable("encrypted against copying: there is no text in it")
    gone, without = f"chapters not in the file: {some(missing)}", f"encrypted: {some(locked)}"
    return FileContent(outline.sections, notes(gone if missing else "", without if locked else ""))


@contextmanager
def _opened(data: bytes) -> Iterator[zipfile.ZipFile]:
    """The parts of a document; what is wrong with them is why it is unreadable."""
    check_office(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            yield parts
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, EOFError, ValueError) as error:
        raise Unreadable(f"broken document ({in_words(error)})") from error
    except (RuntimeError, NotImplementedError) as error:
        raise Unreadable(LOCKED) from error


def _bytes(parts: zipfile.ZipFile, name: str) -> bytes:
    if parts.getinfo(name).file_size > _MOST_BYTES:
        raise Unreadable(f"{name} in it is larger than {_MOST_BYTES // 10**6} MB")
    return parts.read(name)


def _xml(parts: zipfile.ZipFile, name: str, *, optional: bool = False) -> Element:
    """The root of a part; expat itself refuses entities that grow beyond measure."""
    if optional and name not in parts.namelist():
        return Element("none")
    return ElementTree.fromstring(_bytes(parts, name))


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _of(element: Element, name: str) -> str:
    """An attribute's name in the namespace in which the element has it."""
    return next((key for key in element.attrib if key.rpartition("}")[2] == name), name)


def _numbered(parts: zipfile.ZipFile, pattern: str) -> list[tuple[int, str]]:
    found = ((re.fullmatch(pattern, name), name) for name in parts.namelist())
    return [(int(match[1]), name) for match, name in found if match]


def _styles(root: Element) -> dict[str, str]:
    """Names of styles by id: ids are in the language of the program."""
    found = {}
    for style in root.iterfind("./{*}style"):
        name = style.find("./{*}name")
        if name is not None:
            found[style.get(_of(style, "styleId"), "")] = name.get(_of(name, "val"), "")
    return found


def _blocks(root: Element) -> Iterator[Element]:
    """Paragraphs, and rows of tables as a whole."""
    waiting = [root]
    while waiting:
        element = waiting.pop()
        if _tag(element) in ("p", "tr"):
            yield element
        else:
            waiting.extend(reversed(element))


def _text(element: Element) -> str:
    """The text of a paragraph of Office; what was deleted in tracked changes is not in it."""
    parts = []
    for inner in element.iter():
        name = _tag(inner)
        if name == "t":
            parts.append(inner.text or "")
        elif name in ("tab", "br", "cr"):
            parts.append(" ")
    return "".join(parts)


def _row(row: Element) -> str:
    cells = (_text(cell).strip() for cell in row.iterfind("./{*}tc"))
    return " | ".join(filter(None, cells))


def _paragraphs(root: Element) -> list[str]:
    return [_text(paragraph) for paragraph in root.iterfind(".//{*}p")]


def _notes_of(parts: zipfile.ZipFile, slide: str) -> str:
    """The part with a slide's notes; "" if it has none."""
    folder, name = posixpath.split(slide)
    for relation in _xml(parts, f"{folder}/_rels/{name}.rels", optional=True):
        if relation.get("Type", "").endswith("/notesSlide"):
            return posixpath.normpath(posixpath.join(folder, relation.get("Target", "")))
    return ""


def _odf_blocks(root: Element) -> Iterator[Element]:
    """Slides, headings, paragraphs and rows of tables, in order."""
    waiting = [root]
    while waiting:
        element = waiting.pop()
        name = _tag(element)
        if name in ("p", "h", "table-row"):
            yield element
        elif name != "tracked-changes":
            if name == "page":
                yield element
            waiting.extend(reversed(element))


def _flat(element: Element) -> str:
    """All text within an element of OpenDocument, its spaces and tabs as they show."""
    parts = [element.text or ""]
    for inner in element:
        name = _tag(inner)
        if name in ("s", "tab", "line-break"):
            parts.append(" ")
        elif name not in ("annotation", "note-citation"):
            parts.append(_flat(inner))
        parts.append(inner.tail or "")
    return "".join(parts)
