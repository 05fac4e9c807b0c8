"""mteb, offline on local files, finds what this package finds; each family is asked its way."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers import BUNDLED
from helpers.evaluation import write_labelled, write_pairs, write_retrieval
from typer.testing import CliRunner

with warnings.catch_warnings():
    # mteb's dependencies, while they are imported.
    warnings.simplefilter("ignore")
    import mteb

from llm_embeddings import Encoder
from llm_embeddings.cli.console import Commands
from llm_embeddings.cli.evaluate import evaluate_command
from llm_embeddings.evaluation import evaluate, local_task, mteb_encoder
from llm_embeddings.evaluation.mteb.instructions import ENGLISH
from llm_embeddings.evaluation.mteb.run import find_tasks, run_tasks

pytestmark = pytest.mark.slow

E5 = "intfloat/e5-mistral-7b-instruct"
SAME = {
    "sts/spearman": ("sts", "cosine_spearman"),
    "notes/ndcg@10": ("notes", "ndcg_at_10"),
    "notes/recall@100": ("notes", "recall_at_100"),
    "notes/mrr@10": ("notes", "mrr_at_10"),
    "my/accuracy": ("my", "accuracy"),
    "groups/v_measure": ("groups", "v_measure"),
}


@pytest.fixture(scope="module")
def named() -> Encoder:
    """E5-Mistral under its own name, which its rules go by."""
    return Encoder.from_pretrained(BUNDLED / "e5-mistral/model", recipe=E5, dtype="float32")


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    """A set of each kind."""
    write_labelled(tmp_path / "my_train.jsonl", 60, 0)
    return [
        write_pairs(tmp_path / "sts.jsonl"),
        write_retrieval(tmp_path / "notes"),
        write_labelled(tmp_path / "my_test.jsonl", 30, 1),
        write_labelled(tmp_path / "groups.jsonl", 45, 2),
    ]


def run(model: Any, task: Any, cache: Any = None) -> dict[str, Any]:
    """The scores of a task by mteb."""
    options: Any = {"batch_size": 16, "show_progress_bar": False}
    done = mteb.evaluate(model, task, cache=cache, encode_kwargs=options, show_progress_bar=False)
    scores: dict[str, Any] = done.task_results[0].scores["test"][0]
    return scores


@pytest.mark.filterwarnings("ignore::llm_embeddings.evaluation.rules.InstructionWarning")
@pytest.mark.slow
def test_scores_are_mtebs(encoder: Encoder, sets: list[Path]) -> None:
    ours = evaluate(encoder, sets, resamples=0)
    model = mteb_encoder(encoder)
    assert isinstance(model, mteb.EncoderProtocol)
    tasks = {task.metadata.name: run(model, task) for task in map(local_task, sets)}
    for name, (task, metric) in SAME.items():
        theirs = tasks[task][metric]
        # mteb rounds means over queries to five decimals, but for MRR.
        rounded = task == "notes" and metric != "mrr_at_10"
        wanted = round(ours[name].value, 5) if rounded else ours[name].value
        assert theirs == pytest.approx(wanted, abs=1e-6), name
        assert -1 <= theirs <= 1


def test_precision_is_an_option_of_mteb(encoder: Encoder, sets: list[Path]) -> None:
    model, task = mteb_encoder(encoder), local_task(sets[0])

    def score(precision: str) -> float:
        done = mteb.evaluate(
            model, task, cache=None, co2_tracker=False, encode_kwargs={"precision": precision}
        )
        return float(done.task_results[0].scores["test"][0]["cosine_spearman"])

    wanted = run(model, task)["cosine_spearman"]
    assert score("float16") == pytest.approx(wanted, abs=0.05)
    assert score("int8") == pytest.approx(wanted, abs=0.3)
    with pytest.raises(ValueError, match="precision=.binary. is not one of"):
        score("binary")


class Recorder:
    """Notes what an encoder is asked, and passes it on."""

    def __init__(self, encoder: Encoder) -> None:
        self.asked: list[tuple[str, str | None, bool | None]] = []
        self._encode = encoder.encode

    def __call__(self, texts: Any, role: Any, instruction: Any = None, **options: Any) -> Any:
        self.asked.append((role, instruction, options["normalize"]))
        return self._encode(texts, role, instruction, **options)


def asked(encoder: Encoder, path: Path, monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    recorder = Recorder(encoder)
    monkeypatch.setattr(encoder, "encode", recorder)
    run(mteb_encoder(encoder), local_task(path, instruction="Sort them."))
    return set(recorder.asked)


@pytest.mark.slow
def test_each_task_has_its_instruction(
    named: Encoder,
    gritlm: Encoder,
    llm2vec: Encoder,
    sets: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sts, retrieval, classification, _ = sets
    same = "Retrieve semantically similar text"
    assert asked(named, sts, monkeypatch) == {("query", f"{same}.", None)}
    assert asked(llm2vec, sts, monkeypatch) == {("query", f"{same}:", None)}
    assert asked(named, classification, monkeypatch) == {("query", "Sort them.", False)}
    bare = {("query", "Sort them.", None), ("document", "", None)}
    assert asked(named, retrieval, monkeypatch) == bare
    raw = {("query", "Sort them.", False), ("document", "", False)}
    assert asked(gritlm, retrieval, monkeypatch) == raw


def test_results_are_mtebs_own_and_found_again(
    named: Encoder, sets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = local_task(sets[0])
    (first,) = run_tasks(named, [task], output=tmp_path / "out")
    assert (first.name, first.kind, first.metric) == ("sts", "STS", "cosine_spearman")
    assert first.english == first.value
    (path,) = (tmp_path / "out").glob("results/intfloat__e5-mistral-7b-instruct/*/sts.json")
    saved = json.loads(path.read_text())
    assert saved["task_name"] == "sts"
    assert saved["scores"]["test"][0]["main_score"] == pytest.approx(first.value, abs=1e-6)
    meta = json.loads((path.parent / "model_meta.json").read_text())
    assert (meta["embed_dim"], meta["max_tokens"]) == (named.dimension, 512)
    # The second run embeds nothing; other instructions, or other rows, are another result.
    recorder = Recorder(named)
    monkeypatch.setattr(named, "encode", recorder)
    (second,) = run_tasks(named, [local_task(sets[0])], output=tmp_path / "out")
    assert second.value == pytest.approx(first.value, abs=1e-6)
    assert recorder.asked == []
    list(run_tasks(named, [task], output=tmp_path / "out", instructions={"STS": ""}))
    assert set(recorder.asked) == {("query", "", None)}
    recorder.asked.clear()
    write_pairs(sets[0], 20)
    list(run_tasks(named, [local_task(sets[0])], output=tmp_path / "out"))
    assert recorder.asked


def test_limit_of_the_published_scores(e5: Encoder) -> None:
    recipe = e5.recipe.replace(max_length=64)
    short = Encoder(e5.backbone, e5.tokenizer, recipe)
    assert mteb_encoder(short).mteb_model_meta.max_tokens == 64
    assert mteb_encoder(short, max_length=48).mteb_model_meta.max_tokens == 48
    named = mteb_encoder(short, name="you/model", revision="v1").mteb_model_meta
    assert (named.name, named.revision) == ("you/model", "v1")


def test_what_is_no_text(e5: Encoder) -> None:
    metadata = local_task_metadata()
    with pytest.raises(ValueError, match="pictures has image and no text: this model embeds texts"):
        mteb_encoder(e5).encode(
            [{"image": [1]}], task_metadata=metadata, hf_split="test", hf_subset="default"
        )


def local_task_metadata() -> Any:
    class Metadata:
        name, type, prompt = "pictures", "STS", None

    return Metadata()


def test_gains_that_are_no_whole_numbers(sets: list[Path]) -> None:
    path = sets[1] / "qrels" / "test.tsv"
    path.write_text(path.read_text().replace("\t2\n", "\t1.5\n"))
    with pytest.raises(ValueError, match=r"test.tsv: \d+ has the score 1.5, and mteb takes whole"):
        local_task(sets[1])


@pytest.mark.slow
def test_tasks_by_name() -> None:
    (task,) = find_tasks(["STS17"], languages=["eng"])
    assert task.hf_subsets == ["en-en"]
    every = {task.metadata.name for task in find_tasks(["MTEB(eng, v1)"])}
    assert every == {name for tasks in ENGLISH.values() for name in tasks}
    with pytest.raises(ValueError, match="'NFCorpse' is neither a file nor a task.*: NFCorpus"):
        find_tasks(["NFCorpse"])


def test_command_beside_published_figures(
    sets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"STS12": local_task(sets[0], name="STS12"), "NQ": local_task(sets[1], name="NQ")}
    monkeypatch.setattr(
        "llm_embeddings.evaluation.mteb.run.find_tasks",
        lambda names, languages: [found[name] for name in names],
    )
    app = typer.Typer(cls=Commands)
    app.command("evaluate")(evaluate_command)
    app.command("other")(lambda: None)  # a single command would have no name
    given = ["evaluate", str(BUNDLED / "e5-mistral/model"), "--recipe", E5, "--compare"]
    given += ["-t", "STS12", "-t", "NQ", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines() if line]
    assert lines[0] == ["task", "type", "metric", "score"]
    assert lines[1][:3] == ["STS12", "STS", "cosine_spearman"]
    task, ours, printed, difference, band, *verdict = lines[4]
    assert (task, printed, band, *verdict) == (
        *("STS12", "79.7", "0.55"),
        *("out", "of", "band", "arXiv", "2401.00368"),
    )
    assert float(ours) - 79.7 == pytest.approx(float(difference), abs=0.006)
    assert "2 of 2 tasks: NQ" in result.stderr
    assert CliRunner().invoke(app, given).stdout == result.stdout
