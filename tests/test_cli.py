"""The command line."""

from __future__ import annotations

import pytest
from helpers import BUNDLED
from typer.testing import CliRunner

from llm_embeddings.cli import app


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner(env={"COLUMNS": "120", "NO_COLOR": "1"})


def test_demo_ranks_real_passages_twice_alike(runner: CliRunner) -> None:
    result = runner.invoke(app, ["demo", "what happens to glucose in a cell", "--top", "2"])
    assert result.exit_code == 0, result.output
    assert result.output.count("  1. ") == 2
    assert "the same passages as above: yes" in result.output
    assert "Glycolysis" in result.output.split("  1. ")[1]


def test_demo_takes_another_model(runner: CliRunner) -> None:
    model = str(BUNDLED / "e5-mistral/model")
    result = runner.invoke(app, ["demo", "storms", "--top", "1", "--model", model])
    assert result.exit_code == 0, result.output


def test_a_users_mistake_is_no_traceback(runner: CliRunner) -> None:
    result = runner.invoke(app, ["demo", "--model", "./no/such/model"])
    assert result.exit_code == 1
    assert "error: './no/such/model' is neither a directory nor a hub id" in result.stderr
    assert result.stdout == ""
