"""`llm-embeddings search`, the command, on the bundled model."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.searching import write_folder
from typer.testing import CliRunner

from llm_embeddings.cli import app
from llm_embeddings.searching.places import default_directory


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


def test_command_fits_a_narrow_terminal(cli: Any, folder: Path) -> None:
    (folder / "long.txt").write_text("roses and bread " * 50)
    result = cli("notes", "roses", "--top", "1", columns="40")
    assert max(map(len, result.stdout.splitlines())) <= 40
    assert "\x1b" not in result.output


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
