"""`evaluate` and `passkey` on the command line, what they keep, and what they refuse."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers import BUNDLED
from helpers.evaluation import write_labelled, write_pairs, write_retrieval
from typer.testing import CliRunner, Result

from llm_embeddings import Encoder
from llm_embeddings.cli.console import Commands
from llm_embeddings.cli.evaluate import evaluate_command
from llm_embeddings.cli.passkey import passkey_command
from llm_embeddings.evaluation import evaluate
from llm_embeddings.evaluation.passkey import passages, passkey
from llm_embeddings.evaluation.results import FILE, read_results

pytestmark = pytest.mark.usefixtures("load_once")  # loading has tests of its own

E5 = str(BUNDLED / "e5-mistral/model")


def call(*arguments: object) -> Result:
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
    app.command("evaluate")(evaluate_command)
    app.command("passkey")(passkey_command)
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    return write_retrieval(tmp_path / "notes")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "sts.jsonl")


@pytest.mark.slow
def test_scores_are_those_of_python(pairs: Path, beir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ("evaluate", "-t", pairs, "-t", beir, "--k", 3, "-o", out, "--dtype", "float32")
    result = call(*given, "--json", "--resamples", 10)
    assert result.exit_code == 0, result.output
    found = {each["name"]: each for each in json.loads(result.stdout)}
    cuts = [(metric, 3) for metric in ("ndcg", "recall", "mrr")]
    encoder = Encoder.from_pretrained(dtype="float32")
    expected = evaluate(encoder, [pairs, beir], cuts=cuts, resamples=10)
    for name, score in expected.items():
        named, _, metric = name.partition("/")
        assert found[named]["scores"][metric]["value"] == pytest.approx(score.value, abs=1e-6)
        assert found[named]["scores"][metric]["high"] == pytest.approx(score.high, abs=1e-6)
    assert set(found["notes"]["bm25"]) == {"ndcg@3", "recall@3", "mrr@3"}
    assert {each.name for each in read_results(out).values()} == {"sts", "notes"}
    table = call(*given)
    for word in ("sts", "STS", "spearman", "notes", "Retrieval", "ndcg@3", "BM25", "95% interval"):
        assert word in table.stdout


@pytest.mark.slow
def test_a_second_run_goes_on(
    pairs: Path, beir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    asked: Counter[str] = Counter()
    encode = Encoder.encode

    def counting(self: Encoder, texts: Any, *rest: Any, **options: Any) -> Any:
        asked["sts" if "document" in rest and len(texts) == 30 else "other"] += 1
        if len(texts) == 10:  # the queries
            raise OSError("the disk is gone")
        return encode(self, texts, *rest, **options)

    monkeypatch.setattr(Encoder, "encode", counting)
    first = call("evaluate", "-t", pairs, "-t", beir, "-o", out)
    assert first.exit_code == 1
    assert f"error: the disk is gone. What is done is kept in {out}" in first.output
    assert [each.name for each in read_results(out).values()] == ["sts"]
    monkeypatch.setattr(Encoder, "encode", encode)
    second = call("evaluate", "-t", pairs, "-t", beir, "-o", out)
    assert second.exit_code == 0
    before = (out / FILE).read_bytes()
    monkeypatch.setattr(Encoder, "encode", counting)
    asked.clear()
    third = call("evaluate", "-t", pairs, "-t", beir, "-o", out)
    assert third.stdout == second.stdout
    assert asked.total() == 0
    assert (out / FILE).read_bytes() == before
    write_pairs(pairs, 12)
    assert call("evaluate", "-t", pairs, "-o", out).exit_code == 0
    assert asked.total() == 1
    written = json.loads((out / FILE).read_bytes())
    metric = next(iter(written["results"][-1]["scores"].values()))
    metric["value"] += 0.125
    (out / FILE).write_text(json.dumps(written), encoding="utf-8")
    assert call("evaluate", "-t", pairs, "-o", out).exit_code == 0
    assert asked.total() == 2, "what a disk has changed is measured again"


def test_damaged_scores_are_named(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"results": [{"na')
    result = call("evaluate", "-t", pairs, "-o", tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path / FILE} is not a file of scores" in result.output


def test_instructions(beir: Path, pairs: Path) -> None:
    result = call("evaluate", E5, "-t", beir, "-t", pairs, "--json", "--no-bm25")
    assert result.exit_code == 0, result.output
    assert "note: notes: no published instruction, so 'Given a web search query" in result.stderr
    found = {each["name"]: each for each in json.loads(result.stdout)}
    assert found["sts"]["instruction"] == "Retrieve semantically similar text."
    assert found["notes"]["bm25"] is None
    given = call("evaluate", E5, "-t", beir, "--json", "--instruction", "notes=Find the note.")
    assert "note:" not in given.stderr
    (notes,) = json.loads(given.stdout)
    assert notes["instruction"] == "Find the note."
    assert notes["scores"] != found["notes"]["scores"]


@pytest.mark.slow
def test_plot_and_classes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_labelled(tmp_path / "train.jsonl", 30, 0)
    test = write_labelled(tmp_path / "test.jsonl", 15, 1)
    plot = tmp_path / "plots" / "scores.png"
    result = call("evaluate", "-t", test.parent, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert "Classification" in result.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_published_figures(pairs: Path) -> None:
    shown = call("evaluate", "intfloat/E5-Mistral-7b-instruct", "--compare")
    assert shown.exit_code == 0
    assert "56.90" in shown.stdout
    unknown = call("evaluate", "BAAI/LLARA-beir", "--compare")
    assert unknown.exit_code == 1
    assert "BAAI/LLARA-beir has no published figures here; there are some of" in unknown.output
    assert "--compare is about tasks of MTEB" in call(
        "evaluate", E5, "-t", pairs, "--compare"
    ).output.replace("\n", " ")


def test_mistakes(tmp_path: Path, pairs: Path) -> None:
    assert call("evaluate").exit_code == 2
    assert call("evaluate", "-t", pairs, "--instruction", "x").exit_code == 2
    missing = call("evaluate", "-t", tmp_path / "no.jsonl")
    assert missing.exit_code == 1
    assert "no.jsonl: No such file or directory" in missing.output
    taken = call("evaluate", "-t", pairs, "--instruction", "sts=Alike?")
    assert taken.exit_code == 1
    assert "llm-embeddings-small takes no instruction, and 'Alike?' is given" in taken.output


def test_passages() -> None:
    made = passages(lambda text: len(text.split()), 100, documents=20, queries=10, seed=3)
    assert made == passages(lambda text: len(text.split()), 100, documents=20, queries=10, seed=3)
    assert made != passages(lambda text: len(text.split()), 100, documents=20, queries=10, seed=4)
    lengths = [len(text.split()) for text in made.documents]
    # No document is longer, and none has room for another sentence of four words.
    assert all(95 < length <= 100 for length in lengths)
    for query, place in zip(made.queries, made.wanted, strict=True):
        name = query.removeprefix("what is the pass key for ").rstrip("?")
        holds = [name in text for text in made.documents]
        assert holds.index(True) == place
        assert sum(holds) == 1
    places = {text.split().index("pass") for text in made.documents}
    assert len(places) > 10  # the key is anywhere
    with pytest.raises(ValueError, match="length 10: the pass key alone takes 18 tokens"):
        passages(lambda text: len(text.split()), 10, seed=0)


def test_passkey_finds_what_the_model_reads() -> None:
    encoder = Encoder.from_pretrained(dtype="float32")
    found = passkey(encoder, [64, 128], documents=12, queries=6)
    assert list(found) == [64, 128]
    assert all(score.value > 0.5 for score in found.values())
    # A model that sees the first words alone has to guess.
    blind = Encoder(encoder.backbone, encoder.tokenizer, encoder.recipe)
    encode = blind.encode
    blind.encode = lambda texts, *rest, **options: encode(  # type: ignore[method-assign]
        texts, *rest, **{**options, "max_length": 8}
    )
    assert passkey(blind, [128], documents=40, queries=20)[128].value < 0.5


def test_lengths_that_are_not_read(llm2vec: Encoder) -> None:
    with pytest.raises(ValueError, match=r"length 512: .* reads 400 tokens at most: leave it out"):
        passkey(llm2vec, [512])
    with pytest.raises(ValueError, match="9 queries over 8 documents: there are 1040 names"):
        passkey(llm2vec, [256], documents=8, queries=9)


@pytest.mark.slow
def test_passkey_command(tmp_path: Path) -> None:
    plot = tmp_path / "passkey.svg"
    few = ("--lengths", "96,64", "--documents", 4, "--queries", 2)
    result = call("passkey", *few, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["64", "96"]
    assert "<svg" in plot.read_text()
    as_json = json.loads(call("passkey", *few, "--json").stdout)
    assert as_json["64"]["count"] == 2
    wrong = call("passkey", "--lengths", "many")
    assert wrong.exit_code == 2
    long = call("passkey", "--lengths", "64,4096")
    assert long.exit_code == 1
    assert "length 4096: llm-embeddings-small reads 512 tokens at most" in long.output
