"""Exports for servers: none of them runs here; plain transformers reads what was written for them.

`Plain` does what the sources of vLLM, text-embeddings-inference and infinity say they do with the
files of a directory. It is asked as ENGINE.md says.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from helpers import BUNDLED, ROOT, SMALL, assert_close, read_case, write_model
from transformers import AutoConfig, AutoModel, AutoTokenizer, LlamaConfig, MistralConfig
from typer.testing import CliRunner

from llm_embeddings import Encoder, Recipe, Template, get_recipe
from llm_embeddings.cli import app
from llm_embeddings.export import rows
from llm_embeddings.export.engines import SERVERS, Engine, fidelity
from llm_embeddings.export.modules import export_for, export_sentence_transformers
from llm_embeddings.export.note import command
from llm_embeddings.recipe import Role

pytestmark = pytest.mark.slow

E5 = BUNDLED / "e5-mistral/model"
TEXTS = [t for t in read_case(BUNDLED / "e5-mistral")["texts"] if t and len(t) < 400]
PAGE = ROOT / "docs" / "export.md"
POOLINGS = {"lasttoken": "last-token", "cls_token": "cls", "mean_tokens": "mean"}


class Plain:
    """A server in miniature: it knows a directory's files and the options it was started with."""

    def __init__(self, path: Path, engine: Engine, started: str) -> None:
        self.engine = engine
        self.options = shlex.split(started)
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModel.from_pretrained(path, dtype="float32").eval()
        self.limit = json.loads((path / "sentence_bert_config.json").read_text())["max_seq_length"]
        self.modules = (path / "modules.json").is_file()
        self.normalizes = (path / "modules.json").is_file() and "Normalize" in (
            path / "modules.json"
        ).read_text()
        self.mode = ""
        if self.modules:
            modes = json.loads((path / "1_Pooling/config.json").read_text())
            (self.mode,) = (key for key, value in modes.items() if value is True and "mode" in key)
            self.mode = self.mode.removeprefix("pooling_mode_")

    def states(self, given: str | list[int]) -> torch.Tensor:
        ids = given
        if isinstance(given, str):
            ids = self.tokenizer(given, truncation=True, max_length=self.limit)["input_ids"]
        assert len(ids) <= self.limit
        with torch.inference_mode():
            states: torch.Tensor = self.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        return states

    def vector(self, given: str | list[int], normalize: bool) -> list[Any]:
        states = self.states(given)
        if "--pooler-config" in self.options:
            pooler = json.loads(self.options[self.options.index("--pooler-config") + 1])
            assert pooler == {"task": "token_embed", "use_activation": False}
            return states.tolist()
        if self.engine == "tei":
            pooling = self.options[self.options.index("--pooling") + 1]
            assert pooling == POOLINGS[self.mode]
        weights = torch.arange(1, len(states) + 1)[:, None]
        vector = {
            "lasttoken": states[-1],
            "cls_token": states[0],
            "mean_tokens": states.mean(0),
            "weightedmean_tokens": (states * weights).sum(0) / weights.sum(),
        }[self.mode]
        return (vector / vector.norm() if normalize else vector).tolist()

    def answer(self, body: dict[str, Any]) -> list[Any]:
        """The vectors of a request's inputs."""
        if self.engine == "tei":
            assert body["truncate"] is True
            return [self.vector(text, body["normalize"]) for text in body["inputs"]]
        assert body["model"] == self.options[self.options.index("--served-model-name") + 1]
        normalize = self.engine == "infinity" or self.normalizes
        return [self.vector(given, normalize) for given in body["input"]]


def with_recipe(**values: Any) -> Encoder:
    defaults = {"name": "custom", "causal": True, "pooling": "last_token", "max_length": 24}
    return Encoder.from_pretrained(E5, recipe=Recipe(**{**defaults, **values}), dtype="float32")


def ask(server: Plain, path: Path, texts: list[str], role: Role) -> Any:
    """Vectors of texts, by what the directory's ENGINE.md says."""
    text = (path / "ENGINE.md").read_text("utf-8")
    bodies = [shlex.split(line)[-1] for line in re.findall(r"^curl .+$", text, re.M)]
    if len(bodies) == 2:
        body = json.loads(bodies[get_args(Role).index(role)])
        key = "inputs" if server.engine == "tei" else "input"
        (frame,) = body[key]
        body[key] = [frame.replace("TEXT", text) for text in texts]
        return server.answer(body)
    found = rows(path, texts, role)
    ids = ", ".join(str(row.ids) for row in found)
    states = server.answer(json.loads(bodies[0].replace("IDS", ids)))
    assert "`row.shares @ vectors`" in text
    vectors = [row.shares @ np.array(one) for row, one in zip(found, states, strict=True)]
    if "divided by its length" in text:
        vectors = [vector / np.linalg.norm(vector) for vector in vectors]
    return vectors


def check(encoder: Encoder, engine: Engine, path: Path, unit: bool = True) -> None:
    """What is asked for gives the encoder's vectors, for both roles and texts of all lengths."""
    differences = export_for(encoder.model, path, engine)
    assert all(difference.remedy for difference in differences)
    assert command(encoder.model, engine) in (path / "ENGINE.md").read_text("utf-8")
    server = Plain(path, engine, command(encoder.model, engine))
    queries, documents = (ask(server, path, TEXTS, role) for role in get_args(Role))
    assert_close(queries, encoder.encode_query(TEXTS, normalize=unit), 2e-5)
    assert_close(documents, encoder.encode_document(TEXTS, normalize=unit), 2e-5)


@pytest.mark.parametrize("engine", SERVERS)
def test_last_token_on_every_server(engine: Engine, e5: Encoder, tmp_path: Path) -> None:
    check(e5, engine, tmp_path)


@pytest.mark.parametrize("family", ["gritlm", "llm2vec"])
def test_token_vectors_where_vllm_does_not_pool(
    family: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    encoder = request.getfixturevalue(family)
    check(encoder, "vllm", tmp_path, unit=encoder.recipe.normalize)
    assert not (tmp_path / "modules.json").exists()
    assert_close(Encoder.from_pretrained(tmp_path).encode(TEXTS), encoder.encode(TEXTS))


@pytest.mark.parametrize(
    ("engine", "recipe"),
    [
        ("vllm", {"join": "segments", "pooling": "last_k_mean", "last_k": 8}),
        ("vllm", {"join": "segments", "eos": True, "query": Template("q: ", " a:")}),
        ("vllm", {"pooling": "weighted_mean", "pool_span": "text", "query": Template("q: ")}),
        ("vllm", {"causal": False, "pooling": "mean", "eos": True, "normalize": False}),
        ("vllm", {"separator": "!@#$%^&*()", "max_text_length": 5, "pooling": "mean"}),
        ("tei", {"pooling": "mean", "eos": True, "document": Template("passage: ")}),
        ("tei", {"pooling": "first_token", "bos": False}),
        ("infinity", {"pooling": "weighted_mean", "query": Template("q: ")}),
    ],
    ids=str,
)
def test_any_recipe_that_a_server_can_serve(
    engine: Engine, recipe: dict[str, Any], tmp_path: Path
) -> None:
    encoder = with_recipe(**recipe)
    check(encoder, engine, tmp_path, unit=encoder.recipe.normalize)


@pytest.mark.parametrize("engine", SERVERS)
def test_suffixes_are_put_and_long_texts_left_to_the_client(engine: Engine, tmp_path: Path) -> None:
    query = Template('say "q": ', " \\o/", bare="")
    encoder = with_recipe(query=query, truncate="text", max_length=500)
    check(encoder, engine, tmp_path)
    assert "at most 500 tokens" in (tmp_path / "ENGINE.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("engine", "recipe", "reason"),
    [
        ("tei", {"causal": False}, "lets a mistral decoder attend causally"),
        ("infinity", {"causal": False}, "lets a mistral decoder attend causally"),
        ("tei", {"pooling": "weighted_mean"}, "does not pool the weighted mean"),
        ("infinity", {"pooling": "last_k_mean", "last_k": 2}, "the mean of the last 2 tokens"),
        ("tei", {"join": "segments"}, "tokenises a prompt and its text as one string"),
        ("tei", {"separator": "!@#$%^&*()"}, "does not shorten long texts word by word"),
        ("tei", {"pooling": "mean", "pool_span": "text"}, "of the text without its prompt"),
    ],
    ids=str,
)
def test_wrong_vectors_are_refused_by_name(
    engine: Engine, recipe: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="would give wrong vectors") as error:
        export_for(with_recipe(**recipe).model, tmp_path / "new", engine)
    assert reason in str(error.value)
    assert "It can be served by vLLM 0.33" in str(error.value)
    assert not (tmp_path / "new").exists()


def test_rows_need_an_exported_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no llm_embeddings.json: name a directory"):
        rows(tmp_path, TEXTS, "query")


def test_an_unknown_engine_is_named(e5: Encoder) -> None:
    with pytest.raises(ValueError, match="engine='ollama' is not one of"):
        fidelity(e5.model, "ollama")  # type: ignore[arg-type]


def test_sentence_transformers_is_exact_or_refused(e5: Encoder, llm2vec: Encoder) -> None:
    assert fidelity(e5.model, "sentence-transformers") == []
    found = [difference.what for difference in fidelity(llm2vec.model, "sentence-transformers")]
    assert "does not know max_text_length=400" in found


@pytest.mark.parametrize("native", [True, False])
def test_old_readers_find_the_rotary_base_and_scaling(native: bool, tmp_path: Path) -> None:
    """transformers < 5 and text-embeddings-inference do not look into `rope_parameters`."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = LlamaConfig(**SMALL, rope_parameters=rope, max_position_embeddings=512)
    model = write_model(tmp_path / "model", config)
    encoder = Encoder.from_pretrained(model, recipe="mean", dtype="float32")
    if native:
        export_sentence_transformers(encoder.model, tmp_path / "new")
    else:
        export_for(encoder.model, tmp_path / "new", "vllm")
    written = json.loads((tmp_path / "new/config.json").read_text())
    assert written["rope_theta"] == written["rope_scaling"]["rope_theta"] == 500000.0
    assert written["rope_scaling"]["rope_type"] == "llama3"
    assert AutoConfig.from_pretrained(tmp_path / "new").rope_parameters == rope
    assert_close(Encoder.from_pretrained(tmp_path / "new").encode(TEXTS), encoder.encode(TEXTS))


def test_what_text_embeddings_inference_reads(tmp_path: Path) -> None:
    """It takes no null for the padding token, no missing pooling mode, and its own word."""
    write_model(tmp_path / "model", LlamaConfig(**SMALL, pad_token_id=None))
    recipe = Recipe(name="both ways", causal=False, pooling="mean")
    encoder = Encoder.from_pretrained(tmp_path / "model", recipe=recipe, dtype="float32")
    export_for(encoder.model, tmp_path / "new", "tei")
    config = json.loads((tmp_path / "new/config.json").read_text())
    assert "pad_token_id" not in config
    assert config["use_bidirectional_attention"] is True
    assert config["is_causal"] is False
    modes = json.loads((tmp_path / "new/1_Pooling/config.json").read_text())
    wanted = {"cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken"}
    assert {f"pooling_mode_{mode}" for mode in wanted} <= set(modes)


def test_sliding_windows_go_where_attention_is_both_ways(gritlm: Encoder, tmp_path: Path) -> None:
    export_for(gritlm.model, tmp_path, "vllm")
    assert json.loads((tmp_path / "config.json").read_text())["sliding_window"] is None
    again = AutoModel.from_pretrained(tmp_path, dtype="float32")
    ids = torch.tensor([[1, 30, 40, 50], [1, 30, 40, 60]])
    with torch.inference_mode():
        first, second = again(input_ids=ids).last_hidden_state[:, 0]
    assert float((first - second).abs().max()) > 1e-4  # the first state sees the last token


def rows_of_the_page() -> list[Any]:
    """Family, recipes, backbone and verdicts of each row of the table in docs/export.md."""
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?`) \| (\w+) \| (.+) \|$", text, re.M)
    return [
        pytest.param(name, kind, cells.split(" | "), id=name)
        for names, kind, cells in rows
        for name in re.findall(r"`(.+?)`", names)
    ]


@pytest.mark.parametrize(("name", "kind", "cells"), rows_of_the_page())
def test_the_page_says_what_the_function_says(name: str, kind: str, cells: list[str]) -> None:
    with torch.device("meta"):
        backbone = AutoModel.from_config(AutoConfig.for_model(kind, **SMALL))
    tokenizer = AutoTokenizer.from_pretrained(E5)
    model: Any = SimpleNamespace(
        recipe=get_recipe(name), backbone=backbone, tokenizer=tokenizer, max_length=512
    )
    verdicts = []
    for engine in get_args(Engine):
        differences = fidelity(model, engine)
        wrong = any(not difference.remedy for difference in differences)
        verdicts.append("wrong" if wrong else "right if" if differences else "right")
    assert [re.match(r"wrong|right if|right", cell).group() for cell in cells] == verdicts


def test_the_page_has_a_row_for_every_family() -> None:
    families = {get_recipe(row.values[0]).family for row in rows_of_the_page()}
    assert families == {
        "llm2vec",
        "e5-mistral",
        "llara",
        "gritlm",
        "qwen3-embedding",
        "repllama",
        "bge-en-icl",
    }


def test_the_command_line_prints_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", "e5", "--for", "vllm", "--model", str(E5)])
    assert result.exit_code == 0, result.output
    assert "vllm serve e5 --served-model-name" in result.output
    assert "put 'Instruct: Given a web search query" in result.output
    assert (tmp_path / "e5/ENGINE.md").is_file()


def test_the_command_line_refuses_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(BUNDLED / "gritlm-7b/model")
    result = CliRunner().invoke(app, ["export", "new", "--for", "infinity", "--model", model])
    assert result.exit_code == 1
    assert "attends both ways" in result.output
    assert list(tmp_path.iterdir()) == []
    result = CliRunner().invoke(app, ["export", "new", "--for", "tei", "--sentence-transformers"])
    assert result.exit_code == 2


@pytest.mark.parametrize("options", [["--for", "sentence-transformers"], []])
def test_the_command_line_still_writes_the_other_forms(options: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(tmp_path / "new"), *options])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "new/ENGINE.md").exists()
    assert (tmp_path / "new/modules.json").exists() == bool(options)


def test_the_facts_are_light_to_import() -> None:
    code = (
        "import sys, llm_embeddings.export.engines, llm_embeddings.export.note; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers"}.isdisjoint(done.stdout.split())


def test_sliding_causal_decoders_are_served_as_they_are(tmp_path: Path) -> None:
    config = MistralConfig(**SMALL, sliding_window=8)
    write_model(tmp_path / "model", config)
    encoder = Encoder.from_pretrained(tmp_path / "model", recipe="mean", dtype="float32")
    export_for(encoder.model, tmp_path / "new", "vllm")
    assert json.loads((tmp_path / "new/config.json").read_text())["sliding_window"] == 8
    again = Encoder.from_pretrained(tmp_path / "new")
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
