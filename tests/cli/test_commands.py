"""`demo`, `info`, `recipes`, `export`, and how any command says what went wrong."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import BUNDLED
from typer.testing import CliRunner

from llm_embeddings import Encoder
from llm_embeddings.cli import app
from llm_embeddings.cli.console import PipeConsole
from llm_embeddings.cli.describe import POOLINGS
from llm_embeddings.families import RECIPES, REFUSED

E5 = "intfloat/e5-mistral-7b-instruct"


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner(env={"COLUMNS": "120", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"})


def test_help_is_a_table_of_contents(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    places = [
        result.stdout.index(f"│ {name} ")
        for name in ("demo", "recipes", "info", "encode", "search", "export")
    ]
    assert places == sorted(places)


@pytest.mark.usefixtures("short_corpus")
@pytest.mark.slow
def test_demo_ranks_real_passages_twice_alike(runner: CliRunner) -> None:
    result = runner.invoke(app, ["demo", "what happens to glucose in a cell", "--top", "2"])
    assert result.exit_code == 0, result.output
    assert result.output.count("  1. ") == 2
    assert "the same passages as above: yes" in result.output
    assert "Glycolysis" in result.output.split("  1. ")[1]


@pytest.mark.slow
@pytest.mark.usefixtures("short_corpus")
def test_demo_takes_another_model(runner: CliRunner) -> None:
    model = str(BUNDLED / "e5-mistral/model")
    result = runner.invoke(app, ["demo", "storms", "--top", "1", "--model", model])
    assert result.exit_code == 0, result.output


def test_a_users_mistake_is_no_traceback(runner: CliRunner) -> None:
    result = runner.invoke(app, ["demo", "--model", "./no/such/model"])
    assert result.exit_code == 1
    assert "error: './no/such/model' is neither a directory nor a hub id" in result.stderr
    assert result.stdout == ""


def test_a_traceback_can_be_asked_for(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--traceback", "demo", "--model", "./no/such/model"])
    assert isinstance(result.exception, FileNotFoundError)


@pytest.mark.parametrize("arguments", [["no-such-command"], ["info", "--no-such-option"]])
def test_usage_is_code_2(runner: CliRunner, arguments: list[str]) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_closed_pipe_ends_quietly() -> None:
    code = "from llm_embeddings.cli import app; app(['recipes', '--json'])"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_info_shows_what_the_backbone_is_fed(runner: CliRunner, e5: Encoder) -> None:
    model = str(BUNDLED / "e5-mistral/model")
    command = ["info", model, "--text", "hello\nworld", "--role", "query", "--instruction", "Do"]
    result = runner.invoke(app, [*command, "--recipe", E5])
    assert result.exit_code == 0, result.output
    assert "Instruct: Do\\nQuery: hello\\nworld" in result.stdout
    ids = e5.tokenize("hello\nworld", "query", "Do")[0]
    pieces = e5.tokenizer.convert_ids_to_tokens(ids)
    shown = result.stdout.split("world\n", 1)[1].split()
    wanted = [word for pair in zip(map(str, ids), pieces, strict=True) for word in pair]
    assert [word.removeprefix("*") for word in shown[: len(wanted)]] == wanted
    assert [word for word in shown if word.startswith("*")] == [f"*{ids[-1]}"]
    assert f"{len(ids)} tokens, 1 pooled (*)" in result.stdout


def test_info_counts_the_parameters_that_are_loaded(runner: CliRunner) -> None:
    result = runner.invoke(app, ["info"])
    count = sum(p.numel() for p in Encoder.from_pretrained().backbone.parameters())
    assert f"{count / 1e6:,.1f} million" in result.stdout
    assert f"{count * 4 / 1e6:.1f} MB in float32" in result.stdout


def test_info_counts_parameters_without_weights(runner: CliRunner, tmp_path: Path) -> None:
    model = BUNDLED / "e5-mistral/model"
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((model / name).read_bytes())
    alone = runner.invoke(app, ["info", str(tmp_path), "--recipe", E5])
    whole = runner.invoke(app, ["info", str(model), "--recipe", E5])
    assert alone.exit_code == 0, alone.output
    lines = [
        next(line for line in result.stdout.splitlines() if line.startswith("parameters"))
        for result in (alone, whole)
    ]
    assert lines[0].split()[:3] == lines[1].split()[:3]
    assert lines[0].split()[-1] == "config.json"


@pytest.mark.parametrize("name", RECIPES)
def test_info_explains_every_recipe_without_its_files(
    runner: CliRunner, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    result = runner.invoke(app, ["info", name])
    assert result.exit_code == 0, result.output
    recipe = RECIPES[name]
    assert ("causal:" if recipe.causal else "both ways:") in result.stdout
    assert POOLINGS[recipe.pooling].split()[0] in result.stdout
    assert "unknown" in result.stdout


@pytest.mark.parametrize("columns", [40, 80])
def test_info_fits_the_terminal(
    runner: CliRunner, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = importlib.import_module("llm_embeddings.cli.info")
    monkeypatch.setattr(info, "output", lambda: PipeConsole(width=columns, highlight=False))
    result = runner.invoke(app, ["info", E5, "--text", "a long text " * 30])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "\x1b" not in result.stdout


def test_info_names_near_models(runner: CliRunner) -> None:
    result = runner.invoke(app, ["info", "intfloat/e5-mistral-7b-instrct"])
    assert result.exit_code == 1
    assert f"Nearest known: {E5}" in result.stderr
    assert result.stdout == ""


@pytest.mark.slow
def test_info_check_tests_the_model(runner: CliRunner) -> None:
    result = runner.invoke(app, ["info", "--check"])
    assert result.exit_code == 0, result.output
    for name in ("loaded", "attention", "finite vectors", "batches", "tokenizer"):
        assert f"passed  {name}: " in result.stdout
    assert Encoder.from_pretrained().packing in result.stdout


@pytest.mark.slow
def test_info_check_fails_aloud(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_attention(model: object) -> None:
        raise ValueError("it attends the other way")

    monkeypatch.setattr("llm_embeddings.checkpoint.checks.check_attention", check_attention)
    monkeypatch.setattr("llm_embeddings.checkpoint.checks.prepare", lambda model: None)
    result = runner.invoke(app, ["info", "--check"])
    assert result.exit_code == 1
    assert "FAILED  attention: it attends the other way" in result.stdout
    assert "passed  tokenizer" in result.stdout


def test_recipes_lists_what_matches(runner: CliRunner) -> None:
    every = runner.invoke(app, ["recipes"])
    assert [line.split()[0] for line in every.stdout.splitlines()] == list(RECIPES)
    some = runner.invoke(app, ["recipes", "gritlm", "--json"])
    names = [json.loads(line)["name"] for line in some.stdout.splitlines()]
    assert names == [name for name in RECIPES if "GritLM" in name]


def test_recipes_says_why_a_model_is_refused(runner: CliRunner) -> None:
    result = runner.invoke(app, ["recipes", "nv-embed-v2"])
    assert result.exit_code == 1
    assert REFUSED["nvidia/NV-Embed-v2"] in result.stderr


def test_recipes_names_near_ones(runner: CliRunner) -> None:
    result = runner.invoke(app, ["recipes", "e5-mistrl-7b-instruct"])
    assert result.exit_code == 1
    assert E5 in result.stderr


@pytest.mark.parametrize("option", [[], ["--sentence-transformers"]])
@pytest.mark.slow
def test_export_writes_what_loads_back(
    runner: CliRunner, tmp_path: Path, option: list[str]
) -> None:
    result = runner.invoke(app, ["export", str(tmp_path / "copy"), *option])
    assert result.exit_code == 0, result.output
    copy, bundled = Encoder.from_pretrained(tmp_path / "copy"), Encoder.from_pretrained()
    assert (copy.encode("same") == bundled.encode("same")).all()
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert (tmp_path / "copy/modules.json").is_file() == bool(option)


def test_export_keeps_what_is_there(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    result = runner.invoke(app, ["export", str(tmp_path)])
    assert result.exit_code == 1
    assert f"{tmp_path} exists and is kept" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
