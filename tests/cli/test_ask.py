"""`llm-embeddings ask`, the command, on a golden checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import BUNDLED
from helpers.searching import write_folder
from typer.testing import CliRunner

from llm_embeddings.cli import app

MODEL = ("--model", str(BUNDLED / "gritlm-7b/model"), "--recipe", "GritLM/GritLM-7B")


@pytest.fixture
def cli(tmp_path: Path, load_once: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command beside a folder of notes, with a cache of its own."""
    write_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: str) -> Any:
        runner = CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"})
        return runner.invoke(app, ["ask", *arguments])

    return run


def test_answer_comes_with_its_sources(cli: Any) -> None:
    options = (*MODEL, "--dtype", "float32", "--max-tokens", "8", "--top", "2")
    plain = cli("notes", "when do I trim my hedge", *options)
    assert plain.exit_code == 0, plain.output
    answer, _, sources = plain.stdout.partition("\n\n")
    assert answer
    assert [line[:10] for line in sources.splitlines()] == ["[1] notes/", "[2] notes/"]
    for _ in range(2):
        cached = cli("notes", "when do I trim my hedge", *options, "--cache", "doc")
        assert cached.stdout == plain.stdout
    assert list((Path("cache") / "llm-embeddings").glob("search/*/states/*.safetensors"))


@pytest.mark.slow
def test_model_that_cannot_generate_is_named_before_any_file_is_read(cli: Any) -> None:
    found = cli("notes", "when do I trim my hedge")
    assert found.exit_code == 1
    assert "cannot generate" in found.stderr
    assert not Path("cache").exists()


def test_nothing_to_answer_from(cli: Any) -> None:
    Path("empty").mkdir()
    found = cli("empty", "why", *MODEL, "--dtype", "float32")
    assert found.exit_code == 1
    assert "nothing found" in found.stderr
    assert cli("notes").exit_code == 2


def test_cache_that_cannot_be_is_named(cli: Any) -> None:
    found = cli("notes", "why", *MODEL, "--dtype", "float32", "--max-tokens", "40000")
    assert found.exit_code == 1
    assert "32768 positions" in found.stderr
