"""A folder with one file of each format, and of each fault that a file may have."""

from __future__ import annotations

import io
import json
import zipfile
from email.message import EmailMessage
from pathlib import Path

from openpyxl import Workbook
from pypdf import PdfWriter

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
    "rights.epub": {
        "META-INF/container.xml": '<c xmlns="u"><rootfile full-path="b.opf"/></c>',
        "META-INF/encryption.xml": '<e xmlns="u"><CipherReference URI="a%20b.xhtml"/></e>',
        "b.opf": '<package xmlns="o"><manifest><item id="a" href="a%20b.xhtml"/><item id="c" '
        'href="c.xhtml"/></manifest><spine><itemref idref="a"/><itemref idref="c"/></spine>'
        "</package>",
        "a b.xhtml": "xMJz 8qLw",
        "c.xhtml": "<p>An open chapter.</p>",
    },
    "locked.odt": {
        "META-INF/manifest.xml": '<m xmlns="u"><file-entry><encryption-data/></file-entry></m>',
        "content.xml": "xMJz 8qLw",
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
    "rows.jsonl": b'{"text": "a yak", "url": "http://x"}\nnot JSON\n',
    "latin.txt": "Ein Märchen über Bäume".encode("latin-1"),
    "empty.md": b"",
    "picture.png": b"\x89PNG\r\n\0",
    "huge.txt": b"word " * 30_000,
    "locked.docx": b"\xd0\xcf\x11\xe0" + bytes(99),
    "locked.xlsx": b"\xd0\xcf\x11\xe0" + bytes(99),
    "broken.pptx": b"PK\x03\x04rest",
    "sheet.xlsx": b"PK\x03\x04rest",
    "odd.txt": bytes(range(128, 256)) * 9,
    "no.ipynb": b"[1]",
    "no.rtf": b"plain",
    "data.bin.txt": b"\0\1\2",
}


def pdf(*pages: str, form: str = "", failing: int = 0) -> bytes:
    """A PDF with a line of text on each page, or none.

    Args:
        pages: The lines.
        form: What is filled into a form; "" = there is none.
        failing: Number of a page that is packed in a way that no reader knows; 0 = none.
    """
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    fields = f"/AcroForm<</Fields[{4 + 2 * len(pages)} 0 R]>>" if form else ""
    objects = [
        f"<</Type/Catalog/Pages 2 0 R{fields}>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET" if text else ""
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents {5 + 2 * number} 0 R"
            "/Resources<</Font<</F1 3 0 R>>>>>>"
        )
        packed = "/Filter/Unknown" if number + 1 == failing else ""
        objects.append(f"<</Length {len(stream)}{packed}>>stream\n{stream}\nendstream")
    objects += [f"<</FT/Tx/T(name)/V({form})>>"] * bool(form)
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj{body}endobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    tail = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer<</Size {size}/Root 1 0 R>>\n"
    return data + f"{tail}startxref\n{len(data)}\n%%EOF".encode()


def locked_pdf(text: str, password: str) -> bytes:
    """A PDF of one page behind a password."""
    writer, written = PdfWriter(clone_from=io.BytesIO(pdf(text))), io.BytesIO()
    writer.encrypt(password, algorithm="RC4-128")
    writer.write(written)
    return written.getvalue()


def write_formats(parent: Path) -> Path:
    """The folder."""
    folder = parent / "formats"
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
    (folder / "scan.pdf").write_bytes(pdf("", ""))
    (folder / "cut.pdf").write_bytes(pdf("about")[:99])
    (folder / "locked.pdf").write_bytes(locked_pdf("about", "key"))
    (folder / "pages.pdf").write_bytes(pdf("on bread", "", "gone", form="Ada", failing=3))
    (folder / "link").symlink_to(parent, target_is_directory=True)
    (folder / "gone.txt").symlink_to(parent / "nowhere.txt")
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Bread"
    for row in (["kind", "price"], ["rye", 3.5], [None, None], ["x", None]):
        sheet.append(row)
    book.save(folder / "prices.xlsx")
    return folder
