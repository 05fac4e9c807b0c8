"""`llm-embeddings train`: options out of dataclasses, presets, files, and the guide as written."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import ROOT, SMALL, write_model
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM
from typer.testing import CliRunner, Result

from llm_embeddings import Encoder, Recipe
from llm_embeddings.cli import app
from llm_embeddings.cli.fields import from_json, merged, options_of
from llm_embeddings.cli.train import STAGES
from llm_embeddings.training.contrastive import PRESETS
from llm_embeddings.training.mntp import MNTP
from llm_embeddings.training.options import StageOptions
from llm_embeddings.training.run.stage import TrainingError

GUIDE = ROOT / "docs" / "training.md"
TEACHERS = ROOT / "docs" / "training-teachers.md"
# Over what the guide says, so that its commands take seconds: the last of two options counts.
SHORT = {
    "mntp": "--max-steps 1 --batch-size 2 --block-length 16",
    "simcse": "--max-steps 2 --batch-size 4",
    "distill": "--max-steps 1 --batch-size 4",
    "rounds": "--max-steps 1 --batch-size 4 --warmup 0 --mined 2 --ratio 1",
    "contrastive": "--max-steps 1 --batch-size 4 --warmup 0",
    "llara": "--max-steps 1 --batch-size 2 --cutoff 64",
    "grit": "--max-steps 1 --batch-size 4 --generative-batch-size 2 --mixed-group 2",
}


def run(*arguments: str) -> Result:
    environment = {"COLUMNS": "160", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    return CliRunner(env=environment).invoke(app, ["train", *arguments])


def printed(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--print-config")
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.stdout)
    return values


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small language model, and data under the guide's names."""
    folder = tmp_path_factory.mktemp("desk")
    config = MistralConfig(**SMALL, tie_word_embeddings=True)
    write_model(folder / "llm", config)
    MistralForCausalLM(config).save_pretrained(folder / "llm")
    texts = [f"Animal {number} eats {number} apples and sleeps." for number in range(12)]
    (folder / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    triplets = [{"query": text[:9], "pos": text, "neg": f"No {text}"} for text in texts]
    chats = [{"text": ["What does it eat?", text]} for text in texts]
    pairs = [{"query": text[:9], "pos": text} for text in texts]
    sts = [{"a": text, "b": texts[-1], "score": place} for place, text in enumerate(texts)]
    corpus = [{"_id": str(place), "text": text} for place, text in enumerate(texts)]
    for name, rows in {
        "triplets": triplets,
        "chats": chats,
        "nli": pairs,
        "pairs": pairs,
        "sts": sts,
        "animals/corpus": corpus,
        "animals/queries": [{"_id": "q", "text": "Animal 3"}],
    }.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "animals" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t3\t1\n")
    (folder / "notes").mkdir()
    (folder / "notes" / "backup.md").write_text("# Backups\n\nRestore them with tar.\n")
    faq = [{"question": pair["query"], "answer": pair["pos"]} for pair in pairs]
    pq.write_table(pa.Table.from_pylist(faq), folder / "faq.parquet")
    pages = GUIDE.read_text(encoding="utf-8") + TEACHERS.read_text(encoding="utf-8")
    files = re.findall(r"```json\n(.*?)```", pages, re.S)
    for name, content in zip(("mixture", "recipe", "head"), files, strict=True):
        (folder / f"{name}.json").write_text(content, encoding="utf-8")
    return folder


def guide_commands() -> list[str]:
    text = GUIDE.read_text(encoding="utf-8") + TEACHERS.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.mark.slow
def test_the_guides_commands_work(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.setenv("XDG_CACHE_HOME", str(desk / "cache"))
    for line in guide_commands():
        if "./teacher" in line and not (desk / "teacher").exists():
            shutil.copytree(desk / "embedder", desk / "teacher")
        name, command, *arguments = shlex.split(line)
        assert name == "llm-embeddings"
        if command == "train":
            arguments += shlex.split(SHORT[arguments[0]])
            arguments += ["--dtype", "float32", "--no-show-progress"]
        result = CliRunner(env={"HF_HUB_OFFLINE": "1"}).invoke(app, [command, *arguments])
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
    for name in ("mntp", "simcse", "embedder", "instructed", "llara", "grit"):
        assert Encoder.from_pretrained(desk / name, dtype="float32").encode("x").shape == (16,)
    recipe = Encoder.from_pretrained(desk / "instructed", dtype="float32").recipe
    assert (recipe.query.prefix, recipe.pool_span) == ("{instruction}: ", "text")
    assert Encoder.from_pretrained(desk / "wide", dtype="float32").dimension == 256
    for name in ("adapted", "grit"):
        _, loaded = AutoModelForCausalLM.from_pretrained(desk / name, output_loading_info=True)
        assert not loaded["missing_keys"]
    steps = (desk / "watched" / "metrics.jsonl").read_text(encoding="utf-8")
    assert "animals/ndcg@10" in steps
    assert "sts/spearman" in steps


def test_the_guide_has_all_presets() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \| ?([\d,]*) \| ?([\de.-]*) \| ?([\d.]*) \| (\d+) \| (\d+) \|",
        GUIDE.read_text(encoding="utf-8"),
        re.M,
    )
    keys = ("batch_size", "learning_rate", "temperature", "negatives")
    expected = []
    for name, values in PRESETS.items():
        numbers = [values.get(key) for key in keys] + [values["lora"].rank]
        expected.append((name, numbers))
    found = [
        (name, [float(cell.replace(",", "")) if cell else None for cell in cells])
        for name, *cells in rows
    ]
    assert found == expected


def test_stages_are_listed_in_order() -> None:
    result = run("--help")
    assert result.exit_code == 0
    places = [result.stdout.index(f"│ {name} ") for name in STAGES]
    assert places == sorted(places)


@pytest.mark.parametrize("stage", STAGES)
def test_every_option_is_explained(stage: str) -> None:
    result = run(stage, "--help")
    assert result.exit_code == 0
    for item in dataclasses.fields(StageOptions):
        dashed = item.name.replace("_", "-")
        line = next(line for line in result.stdout.splitlines() if f"-{dashed} " in line)
        assert re.search(r"<[^>]+>(\.\.\.)? +\w", line), line


@dataclass(frozen=True, kw_only=True)
class Inner:
    rank: int = field(default=4, metadata={"help": "size"})
    layers: tuple[str, ...] = field(default=("a", "b"), metadata={"help": "where"})


@dataclass(frozen=True, kw_only=True)
class Outer:
    path: Path = field(metadata={"help": "where"})
    ratio: float = field(default=1.0, metadata={"help": "how much"})
    way: Literal["up", "down"] = field(default="up", metadata={"help": "which way"})
    sizes: tuple[int, ...] = field(default=(), metadata={"help": "how large"})
    on: bool = field(default=True, metadata={"help": "be on"})
    inner: Inner | None = field(default=Inner(), metadata={"help": "have an inside"})
    recipe: Recipe | str | None = field(default=None, metadata={"help": "how"})


def test_fields_become_options() -> None:
    found = {option.name: option.kind for option in options_of(Outer)}
    assert found == {
        "path": Path,
        "ratio": float,
        "way": Literal["up", "down"],
        "sizes": tuple[int, ...],
        "no_on": bool,
        "no_inner": bool,
        "inner_rank": int,
        "inner_layers": tuple[str, ...],
        "recipe": str,
    }


def test_options_go_over_files() -> None:
    base = {"ratio": 2.0, "inner": Inner(rank=8)}
    given = {"path": Path("x"), "sizes": [1, 2], "inner_layers": ["c"], "no_on": True}
    found = Outer(**merged(Outer, base, given))
    inner = Inner(rank=8, layers=("c",))
    assert found == Outer(path=Path("x"), ratio=2.0, sizes=(1, 2), inner=inner, on=False)
    assert merged(Outer, {}, {"no_inner": True}) == {"inner": None}
    assert merged(Outer, {"inner": None}, {"inner_rank": 3}) == {"inner": Inner(rank=3)}
    with pytest.raises(ValueError, match="--no-inner and --inner-rank contradict each other"):
        merged(Outer, {}, {"no_inner": True, "inner_rank": 3})


def test_a_field_no_option_can_express_is_an_error() -> None:
    strange = dataclasses.make_dataclass("strange", [("x", dict[str, int])])
    with pytest.raises(TypeError, match="x: no option can be made of dict"):
        list(options_of(strange))


def test_files_hold_every_type() -> None:
    values = {
        "path": "x",
        "ratio": 2,
        "way": "down",
        "sizes": [3],
        "on": False,
        "inner": {"rank": 5, "layers": ["c"]},
        "recipe": {"name": "r", "causal": False, "pooling": "mean"},
    }
    found = from_json(Outer, values, "run.json")
    assert found["inner"] == Inner(rank=5, layers=("c",))
    assert found["recipe"] == Recipe(name="r", causal=False, pooling="mean")
    assert found["sizes"] == (3,)
    assert from_json(Outer, {"inner": None}, "run.json") == {"inner": None}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "run.json is not a JSON object of options"),
        ({"rate": 1}, "run.json: unknown rate; known are path, ratio"),
        ({"ratio": "2"}, "run.json: ratio is '2', not a number"),
        ({"ratio": True}, "run.json: ratio is True, not a number"),
        ({"way": "left"}, "run.json: way is 'left', not one of up, down"),
        ({"sizes": 3}, "run.json: sizes is 3, not a list"),
        ({"sizes": ["a"]}, "run.json: sizes is 'a', not an integer"),
        ({"inner": {"rank": 0.5}}, "run.json: inner: rank is 0.5, not an integer"),
        ({"path": None}, "run.json: path is None, not a path"),
        ({"recipe": {"name": "x"}}, "run.json: recipe: .* missing 2 required"),
        ({"recipe": {"nam": "x"}}, "unknown recipe key 'nam'"),
    ],
)
def test_mistakes_in_files(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(Outer, values, "run.json")


NEEDED = ("-m", "./llm", "-d", "a.jsonl", "-o", "out")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_survives_a_file(preset: str, tmp_path: Path) -> None:
    values = printed("contrastive", *NEEDED, "--preset", preset, "--data", "b.jsonl@0.5")
    for name, value in PRESETS[preset].items():
        if not dataclasses.is_dataclass(value):
            assert values[name] == value, name
    assert values["lora"]["rank"] == PRESETS[preset]["lora"].rank
    assert values["data"] == ["a.jsonl", "b.jsonl@0.5"]
    (tmp_path / "run.json").write_text(json.dumps(values))
    assert printed("contrastive", "--config", str(tmp_path / "run.json")) == values


def test_what_is_given_wins_over_file_and_preset(tmp_path: Path) -> None:
    config = tmp_path / "run.json"
    config.write_text('{"model": "./llm", "temperature": 0.5, "lora": {"rank": 2, "alpha": 3}}')
    values = printed(
        "contrastive", "--preset", "e5-mistral", "--config", str(config), "-o", "out", "-d", "x",
        "--lora-rank", "7", "--no-same-source", "--matryoshka", "8", "--matryoshka", "16",
    )  # fmt: skip
    assert (values["temperature"], values["weight_decay"]) == (0.5, 0.1)
    assert (values["lora"]["rank"], values["lora"]["alpha"]) == (7, 3)
    assert (values["same_source"], values["matryoshka"]) == (False, [8, 16])
    assert not values["skip_duplicates"]
    back = ("--skip-duplicates", "--lora", "--same-source")
    values = printed("contrastive", *NEEDED, "--preset", "e5-mistral", *back)
    assert (values["skip_duplicates"], values["same_source"]) == (True, True)
    assert values["lora"]["rank"] == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mntp"], "error: --model, --output, --data missing: give it here or in a --config"),
        (["contrastive", "--preset", "best"], "--preset 'best' is not one of llm2vec, e5-mistral"),
        (["mntp", "--config", "no.json"], "no.json: No such file"),
        (["mntp", *NEEDED, "--learning-rate", "0"], "error: --learning-rate 0.0 must be above 0"),
        (["mntp", *NEEDED, "--lora-rank", "0"], "error: --lora-rank 0 must be 1 or more"),
        (["mntp", *NEEDED, "--recipe", "men"], "or a plain one, --recipe last-token or --recipe"),
        (["mntp", *NEEDED, "--recipe", "no.json"], "no.json: No such file"),
    ],
)
def test_mistakes_are_no_tracebacks(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stdout == ""


def test_mistakes_in_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{")
    assert "x.json is not JSON" in run("mntp", "--config", str(path)).stderr
    path.write_text("[]")
    result = run("mntp", *NEEDED, "--recipe", str(path))
    assert "is not a JSON object with the fields of a recipe" in result.stderr
    path.write_text('{"name": "x"}')
    assert "x.json is not a recipe: " in run("mntp", *NEEDED, "--recipe", str(path)).stderr


def test_bad_data_stops_before_training(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": ""}\n')
    data, output = str(tmp_path / "bad.jsonl"), tmp_path / "out"
    result = run("simcse", "-m", str(desk / "llm"), "-d", data, "-o", str(output))
    assert result.exit_code == 1
    assert "bad.jsonl, line 2: column 'text' holds an empty text" in result.stderr
    assert not output.exists()


@pytest.mark.parametrize("stage", ["mnt", "MNTP"])
def test_an_unknown_stage_is_code_2(stage: str) -> None:
    assert run(stage).exit_code == 2


def test_a_stop_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(options: MNTP) -> Path:
        raise TrainingError(f"loss is nan in update {options.seed}")

    monkeypatch.setattr("llm_embeddings.training.mntp.train_mntp", stop)
    result = run("mntp", *NEEDED)
    assert result.exit_code == 1
    assert "error: loss is nan in update 42" in result.stderr


def test_only_the_first_process_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    def done(options: MNTP) -> Path:
        return options.output

    monkeypatch.setattr("llm_embeddings.training.mntp.train_mntp", done)
    assert "out: made by mntp" in run("mntp", *NEEDED).stderr
    monkeypatch.setenv("RANK", "1")
    assert run("mntp", *NEEDED).stderr == ""
