"""A folder with one file of each format and fault: what is read of it, and what is named."""

from __future__ import annotations

import json
import sys
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest
from helpers.searching import refresh
from openpyxl import Workbook

from llm_embeddings.searching.decoding import Unreadable, decode
from llm_embeddings.searching.index import Index
from llm_embeddings.searching.outline import Line
from llm_embeddings.searching.readers import Reading, content_format, read_content
from llm_embeddings.searching.sources import scan
from llm_embeddings.searching.updating import changed

WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
SLIDE = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" xmlns:p="p"'
OPEN = 'xmlns:text="t" xmlns:table="b" xmlns:office="o"'
DELETED = "<w:del><w:r><w:delText>floppy </w:delText></w:r></w:del>"


def paragraph(text: str, style: str = "") -> str:
    named = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{named}<w:r><w:t>{text}</w:t></w:r></w:p>"


def slide(*texts: str) -> str:
    lines = "".join(f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p>" for text in texts)
    return f"<p:sld {SLIDE}>{lines}</p:sld>"


ZIPPED = {
    "letter.docx": {
        # The id of a style is in the language of the program, its name is not.
        "word/styles.xml": f'<w:styles {WORD}><w:style w:styleId="berschrift1">'
        '<w:name w:val="heading 1"/></w:style></w:styles>',
        "word/document.xml": f"<w:document {WORD}><w:body>{paragraph('Backups', 'berschrift1')}"
        f"<w:p>{DELETED}<w:r><w:t>Restore from tape.</w:t></w:r></w:p><w:tbl><w:tr>"
        f"<w:tc>{paragraph('Part')}</w:tc><w:tc>{paragraph('QX-7741')}</w:tc></w:tr></w:tbl>"
        "</w:body></w:document>",
        "word/footnotes.xml": f"<w:footnotes {WORD}>{paragraph('See below.')}</w:footnotes>",
    },
    "talk.pptx": {
        "ppt/slides/slide10.xml": slide("Last"),
        "ppt/slides/slide2.xml": slide("Second", "One point"),
        "ppt/slides/_rels/slide2.xml.rels": '<R xmlns="r"><Relationship Type="x/notesSlide" '
        'Target="../notesSlides/n.xml"/></R>',
        "ppt/notesSlides/n.xml": slide("Say hello"),
    },
    "note.odt": {
        "content.xml": f'<office:d {OPEN}><text:h text:outline-level="1">Garden</text:h>'
        "<text:p>Water<text:s/>the <text:span>roses</text:span>.</text:p><table:table>"
        "<table:table-row><table:table-cell><text:p>a</text:p></table:table-cell>"
        "<table:table-cell><text:p>b</text:p></table:table-cell></table:table-row></table:table>"
        "</office:d>"
    },
    "book.epub": {
        "META-INF/container.xml": '<c xmlns="u"><rootfile full-path="OEBPS/b.opf"/></c>',
        "OEBPS/b.opf": '<package xmlns="o"><manifest><item id="a" href="a%20b.xhtml"/>'
        '<item id="z" href="gone.xhtml"/></manifest><spine><itemref idref="a"/>'
        '<itemref idref="z"/></spine></package>',
        "OEBPS/a b.xhtml": "<html><h1>Chapter</h1><p>It was night.</p></html>",
    },
    "empty.docx": {"word/other.xml": "<x/>"},
}
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["# Analysis\n", "We look at cats."]},
        {
            "cell_type": "code",
            "source": "print(42)",
            "outputs": [
                {"output_type": "stream", "text": ["42\n"]},
                {"data": {"image/png": "AAAA", "text/plain": "<Figure>"}},
            ],
        },
    ]
}
BYTES = {
    "table.csv": b'name;price\nbread;3\n"two\nlines";4\n',
    "page.html": b"<nav>Home</nav><main><h1>Topic</h1><p>Body.</p><footer>by me</footer></main>"
    b'<div role="navigation"><div>More</div></div><footer>Imprint</footer>',
    "only.html": b"<nav>Nothing else</nav>",
    "unclosed.html": b"<nav>Home<p>And the text.</p>",
    "paper.tex": b"\\section{Intro}\nHello $x$.\n\\subsection*{More}\ntext",
    "code.py": b"import os\n\ndef main(x):\n    return x\n\n\nclass A:\n    pass\n",
    "colours.txt": b"\x1b[31mred alert\x1b[0m \x1b]0;title\x07done",
    "mail.jp.txt": "日本語のテキスト".encode("iso2022_jp"),
    "wide.txt": "Plain words\nin two lines".encode("utf-16-be"),
    "rich.rtf": rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Arial;}}{\*\generator x;}\f0 A "
    rb"\b caf\'e9\b0  for \u8364? 5\par Second {\i line}\par}",
    "cells.ipynb": json.dumps(NOTEBOOK).encode(),
    "locked.docx": b"\xd0\xcf\x11\xe0" + bytes(99),
    "broken.pptx": b"PK\x03\x04rest",
    "sheet.xlsx": b"PK\x03\x04rest",
    "odd.txt": bytes(range(128, 256)) * 9,
    "no.ipynb": b"[1]",
    "no.rtf": b"plain",
    "data.bin.txt": b"\0\1\2",
}
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
    "letter.docx": [
        ("Backups", 2, "Restore from tape."),
        ("Backups", 3, "Part | QX-7741 See below."),
    ],
    "mail.eml": [("Grüße", 1, "From: a@b.c To: d@e.f Hello"), ("Grüße", 2, "World")],
    "mail.jp.txt": [("", 1, "日本語のテキスト")],
    "note.odt": [("Garden", 2, "Water the roses."), ("Garden", 3, "a | b")],
    "only.html": [("", 1, "Nothing else")],
    "page.html": [("Topic", 1, "Body. by me")],
    "paper.tex": [("Intro", 2, "Hello $x$."), ("Intro > More", 4, "text")],
    "prices.xlsx": [("Bread > kind | price", 2, "rye | 3.5"), ("Bread > kind | price", 4, "x")],
    "rich.rtf": [("", 1, "A café for € 5"), ("", 2, "Second line")],
    "table.csv": [("name | price", 2, "bread | 3"), ("name | price", 3, "two lines | 4")],
    "talk.pptx": [("Second", 2, "One point Say hello"), ("Last", 10, "")],
    "unclosed.html": [("", 1, "Home And the text.")],
    "wide.txt": [("", 1, "Plain words"), ("", 2, "in two lines")],
}
TOLD = [
    "book.epub: chapters not in the file: 2",
    "broken.pptx: broken document (BadZipFile: File is not a zip file)",
    "data.bin.txt: binary (a NUL at byte 0)",
    "empty.docx: broken document (KeyError: \"There is no item named 'word/document.xml' in the "
    'archive")',
    "locked.docx: locked with a password, or of an old format: save it anew",
    "mail.eml: attachments left out: x.pdf",
    "mail.jp.txt: read as iso2022_jp",
    "no.ipynb: no notebook (TypeError)",
    "no.rtf: no RTF: it does not begin with {\\rtf",
    "odd.txt: its encoding cannot be told: convert it to UTF-8 (iconv)",
    "sheet.xlsx: broken or locked workbook (BadZipFile: File is not a zip file)",
    "wide.txt: read as utf-16-be",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One file of each format and fault."""
    folder = tmp_path / "formats"
    folder.mkdir()
    for name, parts in ZIPPED.items():
        with zipfile.ZipFile(folder / name, "w") as file:
            for part, content in parts.items():
                file.writestr(part, content)
    for name, data in BYTES.items():
        (folder / name).write_bytes(data)
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "Grüße", "a@b.c", "d@e.f"
    mail.set_content("Hello\n\nWorld")
    mail.add_attachment(b"x", maintype="application", subtype="pdf", filename="x.pdf")
    (folder / "mail.eml").write_bytes(bytes(mail))
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Bread"
    for row in (["kind", "price"], ["rye", 3.5], [None, None], ["x", None]):
        sheet.append(row)
    book.save(folder / "prices.xlsx")
    return folder


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
    assert names == {"table.csv"}
    with pytest.MonkeyPatch.context() as patch:
        version = "llm_embeddings.searching.readers._version"
        patch.setattr(version, lambda library: f"later {library}")
        names = {Path(file.path).name for file in changed(found, known)}
    assert names == {"prices.xlsx", "sheet.xlsx"}


def test_a_missing_library_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(Unreadable, match=r"needs openpyxl: pip install 'llm-embeddings\[search\]'"):
        read_content((folder / "prices.xlsx").read_bytes(), "xlsx")
    monkeypatch.setitem(sys.modules, "charset_normalizer", None)
    with pytest.raises(Unreadable, match=r"pip install 'llm-embeddings\[search\]'") as reason:
        decode("ночь, улица, фонарь, аптека".encode("cp1251") * 2)
    assert reason.value.passing
