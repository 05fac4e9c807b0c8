"""A folder with one file of each format and fault: what is read of it, and what is named."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pypdf
import pytest
from helpers.formats import write_formats
from helpers.searching import refresh

from llm_embeddings.searching.decoding import Unreadable, decode
from llm_embeddings.searching.index import Index
from llm_embeddings.searching.outline import Line
from llm_embeddings.searching.readers import Reading, content_format, read_content
from llm_embeddings.searching.sources import scan
from llm_embeddings.searching.updating import changed

READ = {
    "book.epub": [("Chapter", 1, "It was night.")],
    "cells.ipynb": [("Analysis", 1, "We look at cats."), ("Analysis", 2, "print(42) 42 <Figure>")],
    "code.py": [
        ("", 1, "import os"),
        ("def main(x)", 3, "def main(x):"),
        ("def main(x)", 4, "return x"),
        ("class A", 7, "class A:"),
        ("class A", 8, "pass"),
    ],
    "colours.txt": [("", 1, "red alert done")],
    "latin.txt": [("", 1, "Ein Märchen über Bäume")],
    "letter.docx": [
        ("Backups", 2, "Restore from tape."),
        ("Backups", 3, "Part | QX-7741 See below."),
    ],
    "mail.eml": [("Grüße", 1, "From: a@b.c To: d@e.f Hello"), ("Grüße", 2, "World")],
    "mail.jp.txt": [("", 1, "日本語のテキスト")],
    "note.odt": [("Garden", 2, "Water the roses."), ("Garden", 3, "a | b")],
    "only.html": [("", 1, "Nothing else")],
    "page.html": [("Topic", 1, "Body. by me")],
    "pages.pdf": [("", 1, "on bread"), ("Form", 1, "name: Ada")],
    "paper.tex": [("Intro", 2, "Hello $x$."), ("Intro > More", 4, "text")],
    "prices.xlsx": [("Bread > kind | price", 2, "rye | 3.5"), ("Bread > kind | price", 4, "x")],
    "rich.rtf": [("", 1, "A café for € 5"), ("", 2, "Second line")],
    "rights.epub": [("", 2, "An open chapter.")],
    "rows.jsonl": [("", 1, "a yak")],
    "table.csv": [("name | price", 2, "bread | 3"), ("name | price", 3, "two lines | 4")],
    "talk.pptx": [("Second", 2, "One point Say hello"), ("Last", 10, "")],
    "unclosed.html": [("", 1, "Home And the text.")],
    "wide.txt": [("", 1, "Plain words"), ("", 2, "in two lines")],
}
TOLD = [
    "book.epub: chapters not in the file: 2",
    "broken.pptx: broken document (BadZipFile: File is not a zip file)",
    "cut.pdf: broken or locked PDF (PdfStreamError: Stream has ended unexpectedly)",
    "data.bin.txt: binary (a NUL at byte 0)",
    "empty.docx: broken document (KeyError: \"There is no item named 'word/document.xml' in the "
    'archive")',
    "empty.md: empty",
    "latin.txt: read as cp1252",
    "locked.docx: locked with a password, or of an old format: save it anew",
    "locked.odt: locked with a password: save it without one",
    "locked.pdf: locked with a password: save it without one",
    "locked.xlsx: locked with a password, or of an old format: save it anew",
    "mail.eml: attachments left out: x.pdf",
    "mail.jp.txt: read as iso2022_jp",
    "no.ipynb: no notebook (TypeError)",
    "no.rtf: no RTF: it does not begin with {\\rtf",
    "odd.txt: its encoding cannot be told: convert it to UTF-8 (iconv)",
    "pages.pdf: pages that cannot be read: 3 (NotImplementedError: Unsupported filter /Unknown); "
    "pages without text: 2 (scanned?)",
    "picture.png: binary (a NUL at byte 6)",
    "rights.epub: encrypted: 1",
    "rows.jsonl: 1 of 2 lines without JSON text left out: 2; fields left out: url "
    "(--column names those to read)",
    "scan.pdf: no text (scanned pages?)",
    "sheet.xlsx: broken or locked workbook (BadZipFile: File is not a zip file)",
    "wide.txt: read as utf-16-be",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_formats(tmp_path)


def test_every_format_is_read_as_what_it_is(folder: Path, directory: Path) -> None:
    told: list[str] = []
    changes = refresh(folder, directory, globs=("*",), told=told)
    assert sorted(told) == TOLD
    assert sorted(Path(path).name for path in changes.files) == sorted(READ)
    for name, wanted in READ.items():
        content = read_content((folder / name).read_bytes(), content_format(name))
        found: dict[tuple[str, int], list[str]] = {}
        for section in content.sections:
            for line in section.lines or [Line(section.number, "")]:
                if line.text.strip() or not section.lines:
                    found.setdefault((section.heading, line.number), []).append(line.text.strip())
        assert [(*place, " ".join(texts)) for place, texts in found.items()] == wanted, name


def test_columns_of_csv_can_be_named() -> None:
    data = b"name,price\nbread,3\n"
    content = read_content(data, "csv", Reading(("price",)))
    assert [(part.heading, part.lines[0].text) for part in content.sections] == [("price", "3")]
    with pytest.raises(Unreadable, match="no column cost; it has name, price"):
        read_content(data, "csv", Reading(("cost",)))


def test_another_reader_reads_again(folder: Path, directory: Path) -> None:
    refresh(folder, directory)
    found = scan([folder], max_bytes=100_000, index=directory)
    with Index(directory, "m", "m") as index:
        known = index.files()
    assert changed(found, known) == []
    names = {Path(file.path).name for file in changed(found, known, Reading(("name",)))}
    assert names == {"rows.jsonl", "table.csv"}
    with pytest.MonkeyPatch.context() as patch:
        version = "llm_embeddings.searching.readers._version"
        patch.setattr(version, lambda library: f"later {library}")
        kinds = {Path(file.path).suffix for file in changed(found, known)}
    assert kinds == {".xlsx", ".pdf"}


def test_a_pdf_that_anybody_may_open_is_read(folder: Path) -> None:
    """Encrypted by AES against changes alone, as many published ones are."""
    writer = pypdf.PdfWriter(clone_from=folder / "pages.pdf")
    writer.encrypt("", "owner", algorithm="AES-256")
    locked = io.BytesIO()
    writer.write(locked)
    plain = read_content((folder / "pages.pdf").read_bytes(), "pdf")
    assert plain.sections
    assert read_content(locked.getvalue(), "pdf") == plain


def test_a_missing_library_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(Unreadable, match=r"needs openpyxl: pip install 'llm-embeddings\[search\]'"):
        read_content((folder / "prices.xlsx").read_bytes(), "xlsx")

    def needs_more(*arguments: object) -> None:
        raise pypdf.errors.DependencyError("cryptography>=3.1 is required for AES algorithm")

    monkeypatch.setattr(pypdf.PdfReader, "decrypt", needs_more)
    with pytest.raises(
        Unreadable, match=r"AES, needs cryptography: pip install 'llm-embeddings\[search\]'$"
    ) as aes:
        read_content((folder / "locked.pdf").read_bytes(), "pdf")
    assert aes.value.passing
    monkeypatch.setitem(sys.modules, "charset_normalizer", None)
    with pytest.raises(Unreadable, match=r"pip install 'llm-embeddings\[search\]'") as reason:
        decode("ночь, улица, фонарь, аптека".encode("cp1251") * 2)
    assert reason.value.passing


def test_a_missing_library_leaves_out_its_files_until_it_is_there(
    folder: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pypdf", None)
        patch.setitem(sys.modules, "openpyxl", None)
        without = refresh(folder, directory, told=told)
    extra = "pip install 'llm-embeddings[search]'"
    named = {line for line in told if extra in line}
    assert named >= {f"pages.pdf: needs pypdf: {extra}", f"prices.xlsx: needs openpyxl: {extra}"}
    later = refresh(folder, directory)
    gained = {Path(path).name for path in later.files.keys() - without.files.keys()}
    assert gained == {"pages.pdf", "prices.xlsx"}
