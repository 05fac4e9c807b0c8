"""`synthesize` and `mine` on the command line: from documents to data for training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.synthesis import said
from typer.testing import CliRunner

from llm_embeddings.cli import app
from llm_embeddings.records.examples import read_examples
from llm_embeddings.records.sources import sources_of
from llm_embeddings.synthesis.calls.generators import ModelOptions, Prompt, Reply


class Scripted:
    def __init__(self, name: str, options: ModelOptions) -> None:
        self.name = name
        self.options = options

    async def __call__(self, prompt: Prompt) -> Reply:
        return Reply(said(prompt.text, ""), 300, 100)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Scripted]:
    """The generators that were opened; no model is asked."""
    found: list[Scripted] = []

    def scripted(name: str, options: ModelOptions) -> Scripted:
        found.append(Scripted(name, options))
        return found[-1]

    monkeypatch.setattr("llm_embeddings.synthesis.calls.providers.open_generator", scripted)
    return found


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    for name in ("pump", "valve", "boiler", "meter"):
        steps = " ".join(f"Step {i}: turn the {name} by {i} degrees and wait." for i in range(9))
        (folder / f"{name}.md").write_text(f"# The {name}\n\n{steps}\n")
    (folder / "photo.txt").write_bytes(b"\0\1\2")
    return folder


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_from_documents_to_training_data(
    tmp_path: Path, opened: list[Scripted], handbook: Path
) -> None:
    output = tmp_path / "run"
    command = ("synthesize", output, "--model", "fake:one", "--documents", handbook)
    command = (*command, "--examples", 40, "--instruction", "Find the step.")
    done = run(*command, "--temperature", "-1", "--top-p", "0")
    assert done.exit_code == 0, done.output
    assert "photo.txt: binary" in done.stderr
    assert "made 40 of 40 examples" in done.stderr
    assert opened[0].options == ModelOptions(temperature=None, top_p=None)
    rows = (output / "train" / "grounded.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(rows[0])["provenance"]["place"].startswith(str(handbook))
    mined = run("mine", output / "train", "-o", tmp_path / "mined", "--bm25", "-n", 2, "--ratio", 0)
    assert mined.exit_code == 0, mined.output
    examples = [e for s in sources_of([tmp_path / "mined"]) for e in read_examples(s)]
    assert all(example.instruction == "Find the step." for example in examples)
    assert f"{len(rows)} queries over 4 passages" in mined.stderr
    again = run(*command, "--temperature", "-1", "--top-p", "0", "--near", "0")
    assert again.exit_code == 0, again.output
    other = run(*command)
    assert other.exit_code == 1
    assert "was begun with temperature = None" in other.stderr


@pytest.mark.slow
def test_a_spent_budget_is_no_error(tmp_path: Path, opened: list[Scripted]) -> None:
    command = ("synthesize", tmp_path / "run", "-m", "fake:one", "--examples", 200)
    command = (*command, "--group", "sts", "--language", "en=2", "--language", "de")
    done = run(*command, "--max-tokens", 20_000)
    assert done.exit_code == 0, done.output
    assert "stopped: the budget" in done.stderr
    more = run(*command)
    assert "made 200 of 200 examples" in more.stderr
    assert "stopped" not in more.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "--model is missing"),
        (("-m", "gpt"), 1, "names no provider"),
        (("-m", "openai:gpt-4.1-mini"), 1, "OPENAI_API_KEY"),
        (("-m", "nosuch:model"), 1, "cannot be used"),
        (("-m", "local:/no/such/dir"), 1, "/no/such/dir"),
        (("-m", "a:b", "--documents", "none"), 1, "no such document"),
        (("-m", "a:b", "--group", "poems"), 1, "'poems' is not known"),
        (("-m", "a:b", "--group", "sts=x"), 2, "'x' is no number"),
        (("-m", "a:b", "--language", "en", "--language", "en"), 2, "comes twice"),
        (("-m", "a:b", "--language", "en"), 1, "bitext needs two languages"),
        (("-m", "a:b", "--max-cost", "5"), 1, "needs the prices"),
        (("-m", "a:b", "--concurrency", "0"), 1, "must be 1 or more"),
    ],
)
def test_mistakes_of_synthesize(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    done = run("synthesize", tmp_path / "run", *options)
    assert done.exit_code == code, done.output
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--ranks", "5"), 2, "write FIRST-LAST"),
        (("--bm25", "--model", "x"), 2, "drop --model"),
        (("--bm25", "-n", "9", "--ranks", "1-20"), 1, "cannot give 9 negatives"),
    ],
)
def test_mistakes_of_mine(
    tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"query": "q", "positive": "p"}\n')
    done = run("mine", tmp_path / "pairs.jsonl", "-o", tmp_path / "out", *options)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
