"""`llm-embeddings search`, the command, on the bundled model."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.formats import write_formats
from helpers.searching import write_folder
from typer.testing import CliRunner

from llm_embeddings.cli import app
from llm_embeddings.searching.places import FILE, default_directory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


@pytest.fixture
def cli(tmp_path: Path, folder: Path, load_once: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in a folder's parent, with a cache of its own."""
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: str, columns: str = "80") -> Any:
        runner = CliRunner(env={"COLUMNS": columns, "NO_COLOR": "1"})
        return runner.invoke(app, ["search", *arguments])

    return run


def test_command_answers_and_reuses_its_index(cli: Any) -> None:
    first = cli("notes", "when do I trim my hedge", "--top", "2")
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("1. ")
    assert "notes/garden.txt:3\n" in first.stdout  # the line, not the passage's first
    assert "2 files read" in first.stderr
    assert str(default_directory([Path("notes")])) in first.stderr
    second = cli("notes", "when do I trim my hedge", "--top", "2")
    assert second.stdout == first.stdout
    assert "read" not in second.stderr


def test_command_names_what_it_leaves_out(cli: Any, folder: Path) -> None:
    (folder / "bad.md").write_bytes(b"\0")
    for number in range(5):
        (folder / f"{number}.png").write_bytes(b"\0")
    first = cli("notes", "bread")
    assert "skipped: notes/bad.md: binary (a NUL at byte 0)" in first.stderr
    assert "5 of .png: notes/0.png, notes/1.png, notes/2.png, ... (--glob '*.png')" in first.stderr
    second = cli("notes", "bread")
    assert "bad.md" not in second.stderr
    listed = default_directory([Path("notes")]) / "skipped.txt"
    assert f"6 skipped: {listed}" in second.stderr
    assert len(listed.read_text().splitlines()) == 6


def test_command_speaks_json(cli: Any) -> None:
    result = cli("notes/kitchen.md", "yeast", "--json", "--top", "1")
    assert (
        json.loads(result.stdout).items()
        >= {
            "rank": 1,
            "path": "notes/kitchen.md",
            "line": 9,
            "last_line": 11,
            "heading": "Kitchen > Yeast",
            "text": "Let it rise.",
            "same_in": [],
        }.items()
    )


def test_words_and_vectors_can_rank_alone(cli: Any) -> None:
    def found(mode: str) -> list[Any]:
        result = cli("notes", "hedge", "--json", "--top", "9", "--mode", mode)
        return [json.loads(line) for line in result.stdout.splitlines()]

    (words,) = found("words")
    assert (words["cosine"], words["bm25"], words["best_line"]) == (None, words["score"], 3)
    vector, hybrid = found("vector"), found("hybrid")
    assert [hit["cosine"] for hit in vector] == [hit["score"] for hit in vector]
    assert {hit["path"]: hit["bm25"] for hit in vector} == dict.fromkeys(
        ["notes/garden.txt", "notes/kitchen.md"]
    )
    assert hybrid[0]["text"] == words["text"]
    assert [hit["bm25"] for hit in hybrid] == [words["bm25"], 0, 0, 0]
    result = cli("notes", "zebra", "--mode", "words")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no passage has a word of 'zebra'" in result.stderr


def test_lines_around_the_best_are_shown_as_they_are(cli: Any, folder: Path) -> None:
    (folder / "code.txt").write_text("one\n\ttwo\n\n\nthe yak\nfive\nsix\n")
    result = cli("notes", "yak", "--top", "1", "--mode", "words", "--context", "1")
    assert result.stdout.splitlines()[1:] == ["      4  ", " >    5  the yak", "      6  five"]
    first = cli("notes", "one two", "--top", "1", "--mode", "words", "--context", "1")
    assert first.stdout.splitlines()[1:] == [" >    1  one", "      2      two"]


@pytest.mark.parametrize(
    ("editor", "wanted"),
    [
        ("vim -R", ["vim", "-R", "+3", "{}"]),
        pytest.param("code", ["code", "--goto", "{}:3"], marks=pytest.mark.slow),
        pytest.param("hx", ["hx", "{}:3"], marks=pytest.mark.slow),
        pytest.param("ed", ["ed", "{}"], marks=pytest.mark.slow),
    ],
)
def test_the_first_hit_opens_in_an_editor(
    cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, editor: str, wanted: list[str]
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setenv("VISUAL", editor)
    monkeypatch.setattr("subprocess.run", lambda command, check: ran.append(command))
    assert cli("notes", "hedge", "--open").exit_code == 0
    assert ran == [[part.replace("{}", str(folder / "garden.txt")) for part in wanted]]


def test_indexes_are_listed_and_forgotten(cli: Any) -> None:
    assert "there are no indexes" in cli("--list").stderr
    cli("notes", "bread")
    listed = cli("--list").stdout
    directory = default_directory([Path("notes")])
    assert str(Path("notes").absolute()) in listed
    assert "2 files, 4 passages" in listed
    assert str(directory) in listed
    damaged = directory.with_name("damaged")
    shutil.copytree(directory, damaged)
    (damaged / FILE).write_bytes(b"no database" * 400)
    assert "cannot be read (file is not a database)" in (listed := cli("--list").stdout)
    assert str(Path("notes").absolute()) in listed
    assert cli("--forget", "--index", str(damaged)).exit_code == 0
    assert not damaged.exists()
    assert cli("notes", "--forget").exit_code == 0
    assert not directory.exists()
    again = cli("notes", "--forget")
    assert (again.exit_code, "there is no index in" in again.stderr) == (1, True)
    assert cli("--forget").exit_code == 2
    outside = cli("--forget", "--index", "notes")
    assert (outside.exit_code, Path("notes/garden.txt").exists()) == (1, True)


def test_a_folder_that_has_moved_keeps_its_index(
    cli: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cli("notes", "hedge", "--json")
    folder.rename(folder.with_name("papers"))
    monkeypatch.setattr("llm_embeddings.Encoder.encode_document", None)
    moved = cli("papers", "hedge", "--json")
    assert moved.exit_code == 0, moved.output
    assert f"the index of {folder} is kept for papers" in moved.stderr
    assert "read" not in moved.stderr
    assert moved.stdout == first.stdout.replace("notes/", "papers/")
    assert str(folder.with_name("papers")) in cli("--list").stdout


def test_an_index_of_a_later_version_stays_where_it_is(cli: Any, folder: Path) -> None:
    cli("notes", "hedge")
    file = default_directory([Path("notes")]) / "index.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE facts SET key = '4:' || key")
    connection.close()
    before = file.read_bytes()
    folder.rename(folder.with_name("papers"))
    assert "2 files read" in cli("papers", "hedge").stderr
    assert file.read_bytes() == before


@pytest.mark.slow
def test_an_index_in_the_folder_is_not_searched(cli: Any) -> None:
    cli("notes", "bread", "--index", "notes/mine")
    result = cli("notes", "bread", "--json")
    assert "skipped: notes/mine: a search index" in result.stderr
    assert {json.loads(line)["path"] for line in result.stdout.splitlines()} == {
        "notes/garden.txt",
        "notes/kitchen.md",
    }


@pytest.mark.slow
def test_columns_of_jsonl_are_chosen(cli: Any, folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"body": "a yak", "note": "a gnu", "url": "http://x"}\n')
    whole = cli("notes", "gnu", "--mode", "words", "--json")
    assert json.loads(whole.stdout)["text"] == "body: a yak\nnote: a gnu"
    assert "fields left out: url (--column names those to read)" in whole.stderr
    part = cli("notes", "yak", "--mode", "words", "--json", "--column", "body")
    assert json.loads(part.stdout)["text"] == "a yak"
    assert "1 file read, 1 passage embedded" in part.stderr


def test_command_fits_a_narrow_terminal(cli: Any, folder: Path) -> None:
    (folder / "long.txt").write_text("roses and bread " * 50)
    result = cli("notes", "roses", "--top", "1", columns="40")
    assert max(map(len, result.stdout.splitlines())) <= 40
    assert "\x1b" not in result.output


INDEXED = (
    "book.epub cells.ipynb colours.txt latin.txt letter.docx mail.eml mail.jp.txt note.odt "
    "only.html page.html pages.pdf paper.tex prices.xlsx rich.rtf rights.epub rows.jsonl table.csv "
    "talk.pptx unclosed.html wide.txt"
)
SKIPPED = """\
broken.pptx: broken document (BadZipFile: File is not a zip file)
code.py: .py is not searched unless asked
cut.pdf: broken or locked PDF (PdfStreamError: Stream has ended unexpectedly)
data.bin.txt: binary (a NUL at byte 0)
empty.docx: broken document (KeyError: "There is no item named 'word/document.xml' in the archive")
empty.md: empty
gone.txt: cannot be read (No such file or directory)
huge.txt: larger than --max-file-size 0.1
link: a link to a directory: name it to search it
locked.docx: locked with a password, or of an old format: save it anew
locked.odt: locked with a password: save it without one
locked.pdf: locked with a password: save it without one
locked.xlsx: locked with a password, or of an old format: save it anew
no.ipynb: no notebook (TypeError)
no.rtf: no RTF: it does not begin with {\\rtf
odd.txt: its encoding cannot be told: convert it to UTF-8 (iconv)
picture.png: .png is not searched unless asked
scan.pdf: no text (scanned pages?)
sheet.xlsx: broken or locked workbook (BadZipFile: File is not a zip file)
"""


def test_each_file_of_a_folder_is_searched_or_named(cli: Any, tmp_path: Path) -> None:
    write_formats(tmp_path)
    arguments = ("formats", "bread", "--mode", "vector", "--top", "99", "--max-file-size", "0.1")
    result = cli(*arguments, "--json")
    found = {json.loads(line)["path"] for line in result.stdout.splitlines()}
    assert sorted(path.removeprefix("formats/") for path in found) == INDEXED.split()
    listed = default_directory([Path("formats")]) / "skipped.txt"
    assert listed.read_text().replace("formats/", "") == SKIPPED
    for line in SKIPPED.splitlines():
        name, _, reason = line.partition(": ")
        by_name = f"skipped: 1 of {Path(name).suffix}: formats/{name} (--glob"
        assert (
            by_name if "unless asked" in reason else f"skipped: formats/{line}"
        ) in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["notes", " "], 2, "there is no query"),
        (["notes"], 2, "is a path"),
        (["bread", "notes"], 1, "'bread' does not exist (the query comes last, in quotes)"),
        (["notes", "bread", "--model", "./none"], 1, "'./none' is neither"),
        (["notes", "bread", "--index", "notes"], 1, "notes is not an index of llm-embeddings"),
        (["notes", "bread", "--glob", "*.none"], 1, "nothing found"),
        (["notes", "bread", "--instruction", "Find it"], 1, "instruction"),
    ],
)
def test_mistakes_are_explained(cli: Any, arguments: list[str], code: int, message: str) -> None:
    result = cli(*arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


def test_an_interrupt_says_how_to_go_on(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_embeddings.Encoder.encode_document", interrupt)
    result = cli("notes", "bread")
    assert result.exit_code == 130
    assert "what is finished is kept" in result.stderr


def test_a_closed_pipe_ends_quietly(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as ended:
            app(["search", str(folder), "bread", "--index", str(tmp_path / "index")])
    assert ended.value.code == 141
    assert "Pipe" not in capfd.readouterr().err
