"""What `llm-embeddings search` reads: which files, as what text, in which passages."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from helpers.formats import pdf

from llm_embeddings.searching.chunks import LIMIT, OVERLAP, chunk
from llm_embeddings.searching.decoding import Unreadable, decode
from llm_embeddings.searching.excerpts import excerpt, pattern, printable
from llm_embeddings.searching.outline import Line, Section
from llm_embeddings.searching.places import claim
from llm_embeddings.searching.readers import Reading, read_content
from llm_embeddings.searching.sources import scan


@pytest.mark.parametrize(
    ("data", "text", "note"),
    [
        ("Größe".encode(), "Größe", ""),
        ("Größe".encode("utf-8-sig"), "Größe", ""),
        ("Größe".encode("utf-16"), "Größe", ""),
        ("\ufeffGröße".encode("utf-32-le"), "Größe", ""),
        (
            "Größe über alles für Äpfel".encode() + b"\xff",
            "Größe über alles für Äpfel\ufffd",
            "bad",
        ),
        ("naïve café".encode("cp1252"), "naïve café", "read as cp1252"),
        (
            "ночь, улица, фонарь, аптека, бессмысленный и тусклый свет".encode("cp1251"),
            "ночь, улица, фонарь, аптека, бессмысленный и тусклый свет",
            "read as cp1251",
        ),
        (
            "雨ニモマケズ風ニモマケズ雪ニモ夏ノ暑サニモマケヌ".encode("shift-jis"),
            "雨ニモマケズ風ニモマケズ雪ニモ夏ノ暑サニモマケヌ",
            "read as cp932",
        ),
    ],
)
def test_encodings(data: bytes, text: str, note: str) -> None:
    found = decode(data)
    assert found[0] == text
    assert note in found[1]
    assert bool(note) == bool(found[1])


def test_an_encoding_that_the_page_declares_is_taken() -> None:
    page = "<meta charset=koi8-r><p>Привет, мир</p>".encode("koi8-r")
    document = read_content(page, "html")
    assert document.note == "read as koi8-r"
    assert [line.text for line in document.sections[0].lines if line.text] == ["Привет, мир"]


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (b"", "text", "empty"),
        (b" \n\n", "markdown", "no text"),
        (b"abc\0def", "text", "a NUL at byte 3"),
        (bytes(range(1, 32)) * 9, "text", "control characters"),
        (b"<script>no()</script>", "html", "no text"),
        (b'{"n": 1}\n[]\nnope', "jsonl", "3 lines"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, kind: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_content(data, kind)


def test_markdown_headings_and_lines() -> None:
    text = (
        "---\ntitle: x\n---\n# A\r\n\nbody\x0cstill\n```\n# no heading\n```\n"
        "## B ##\n### C\ndeep\n\nUnder\n=====\nlast"
    )
    sections = read_content(text.encode(), "markdown").sections
    assert [(part.heading, part.number) for part in sections] == [
        ("", 1),
        ("A", 4),
        ("A > B > C", 11),
        ("Under", 14),
    ]
    assert Line(6, "body\x0cstill") in sections[1].lines
    assert Line(8, "# no heading") in sections[1].lines
    assert sections[3].lines == [Line(16, "last")]


def test_html_headings_and_lines() -> None:
    page = (
        "<html><head><title>T</title><style>p {}</style></head>\n<body><h1>A &amp;\n B</h1>\n"
        "<p>one <b>bold</b>\ntwo</p><script>var x</script>\n<ul><li>three<li>four</ul>"
    )
    (section,) = read_content(page.encode(), "html").sections
    assert (section.heading, section.number) == ("T > A & B", 2)
    lines = [line for line in section.lines if line.text]
    assert lines == [Line(4, "one bold"), Line(5, "two"), Line(6, "three"), Line(6, "four")]


def test_broken_html_is_read_as_far_as_it_goes() -> None:
    page = b"<p>one<![if !IE]>two<![endif]><b <i>three</p></x><![odd[>four<p>five &amp &#xd800;"
    lines = [
        line.text
        for part in read_content(page, "html").sections
        for line in part.lines
        if line.text
    ]
    assert lines == ["onetwothree", "four", "five & \ufffd"]


def test_jsonl_loses_no_text() -> None:
    data = (
        b'{"title": "T", "note": "more", "text": "one"}\n\nbad\n{"id": "7", "body": "two"}\n'
        b'"three"\n{"n": 1}\n{"turns": [{"role": "user", "of": {"x": "y"}}, {"role": "bot"}], "u": "http://a"}'
    )
    document = read_content(data, "jsonl")
    assert [(part.number, part.heading, text_of(part)) for part in document.sections] == [
        (1, "T", "one\nnote: more"),
        (4, "", "two"),
        (5, "", "three"),
        (7, "", "turns.role: user\nturns.of.x: y\nturns.role: bot"),
    ]
    assert document.note == (
        "2 of 6 lines without JSON text left out: 3, 6; "
        "fields left out: id, n, u (--column names those to read)"
    )
    named = read_content(data, "jsonl", Reading(("u", "turns.of")))
    assert [text_of(part) for part in named.sections] == ["turns.of.x: y\nu: http://a"]
    with pytest.raises(Unreadable, match="with text in gone"):
        read_content(data, "jsonl", Reading(("gone",)))


def text_of(section: Section) -> str:
    return "\n".join(line.text for line in section.lines)


def test_pdf_pages() -> None:
    found = chunk(read_content(pdf("about bread", "", "about roses"), "pdf").sections)
    assert [(part.first, part.text) for part in found] == [(1, "about bread"), (3, "about roses")]


@pytest.mark.parametrize(
    ("data", "reason"), [(b"%PDF-1.7 cut off", "broken or locked PDF"), (pdf(""), "scanned pages")]
)
def test_pdf_without_text(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_content(data, "pdf")


def test_pdf_without_pypdf_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(Unreadable, match=r"pip install 'llm-embeddings\[search\]'") as reason:
        read_content(b"%PDF", "pdf")
    assert reason.value.passing


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"Line {number} has a few words." for number in range(300)),
        " ".join(f"Sentence {number} ends here." for number in range(300)),
        " ".join(f"word{number}" for number in range(900)),
        "".join(map(str, range(1500))),
        "".join(f"これは文{number}です。" for number in range(500)),
        "".join(map(chr, range(0x4E00, 0x5A00))),
        "\n\n".join(map(str, range(900))),
    ],
)
def test_passages_keep_to_the_limit_and_lose_nothing(text: str) -> None:
    lines = [Line(number, line) for number, line in enumerate(text.split("\n"), 1)]
    found = chunk([Section("", 1, lines)])
    assert len(found) > 1
    position = 0
    whole = "".join(text.split())
    for part in found:
        assert len(part.text.encode()) <= LIMIT
        body = "".join(part.text.split())
        at = whole.find(body, max(0, position - OVERLAP))
        assert 0 <= at <= position  # begins where the last one ended, or a little before
        position = at + len(body)
        assert part.text.startswith(lines[part.first - 1].text[:3]) or len(lines) == 1
        assert part.text.endswith(lines[part.last - 1].text[-3:]) or len(lines) == 1
    assert position == len(whole)


def test_passages_end_with_paragraphs_and_say_where_they_are() -> None:
    paragraphs = [f"Start {number}. " + "word " * 70 for number in range(6)]
    lines = "\n\n".join(paragraphs).split("\n")
    numbered = [Line(number, line) for number, line in enumerate(lines, 3)]
    found = chunk([Section("Title", 1, numbered), Section("Alone", 20, [])])
    assert [(part.first, part.last) for part in found] == [(1, 5), (7, 9), (11, 13), (20, 20)]
    assert all(part.text.startswith("Start") for part in found[:3])
    assert found[0].passage.startswith("Title\nStart 0.")
    assert found[3].passage == "Alone"


def test_scan_takes_documents_and_names_the_rest(folder: Path, directory: Path) -> None:
    for name in (".git/a.md", "node_modules/b.md", ".hidden.md", "code.py", "sub/LICENSE"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("text")
    (folder / "huge.md").write_bytes(b"x" * 100_001)
    (folder / "nowhere.md").symlink_to(folder / "gone")
    (folder / "loop").symlink_to(folder)
    (folder / "self.md").symlink_to(folder / "self.md")
    os.mkfifo(folder / "pipe.md")
    found = scan([folder, folder / "sub"], max_bytes=100_000, index=directory)
    names = [Path(file.path).relative_to(folder).as_posix() for file in found.files]
    assert names == ["garden.txt", "kitchen.md", "sub/LICENSE"]
    reasons = {Path(skip.file.path).name: skip.reason for skip in found.skipped}
    assert reasons == {
        "code.py": ".py is not searched unless asked",
        "huge.md": "larger than --max-file-size 0.1",
        "loop": "a link to a directory: name it to search it",
        "nowhere.md": "cannot be read (No such file or directory)",
        "pipe.md": "not a regular file",
        "self.md": "cannot be read (Too many levels of symbolic links)",
    }


def test_scan_takes_what_is_named_and_what_globs_match(folder: Path, directory: Path) -> None:
    (folder / ".git").mkdir()
    for name in (".git/config", "code.py"):
        (folder / name).write_text("text")
    named = scan([folder / ".git", folder / "code.py"], max_bytes=99, index=directory)
    assert [Path(file.path).name for file in named.files] == ["config", "code.py"]
    globbed = scan([folder], globs=["*.py", "kit*"], max_bytes=999, index=directory)
    assert [Path(file.path).name for file in globbed.files] == ["code.py", "kitchen.md"]
    assert globbed.skipped == []


def test_the_index_is_not_searched(folder: Path) -> None:
    (folder / "idx").mkdir()
    (folder / "idx" / "skipped.txt").write_text("text")
    found = scan([folder], max_bytes=999, index=folder / "idx")
    assert len(found.files) == 2
    claim(folder / "another")
    (folder / "another" / "skipped.txt").write_text("text")
    found = scan([folder], max_bytes=999, index=folder / "idx")
    assert len(found.files) == 2
    assert [skip.reason for skip in found.skipped] == ["a search index: its files are not searched"]


def test_excerpts_show_where_the_words_are() -> None:
    text = "filler " * 100 + "the price of bread rose " + "filler " * 100
    words = pattern("What are the prices of bread?")
    assert words is not None
    found = excerpt(text, words, 80)
    assert "price of bread" in found
    assert found.startswith("... ")
    assert found.endswith(" ...")
    assert len(found) <= 90
    assert {match[0] for match in words.finditer(text)} == {"price", "bread"}
    assert pattern("?!") is None


def test_a_file_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\nc\u202ed\udcff") == "a\ufffd[2Jb c\ufffdd\ufffd"
