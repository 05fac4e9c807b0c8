"""Two models under one path, one after the other: nobody gets the first one's vectors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.compatibility import run
from helpers.other_models import CHANGES, copy_of

from llm_embeddings import Encoder
from llm_embeddings.cli.encode import journal
from llm_embeddings.rag import DocumentIndex, StateStore

pytestmark = pytest.mark.slow

TEXTS = [f"Sentence {number} on rivers, bread and the number {number * 7}." for number in range(8)]
MODEL = ("--model", "model", "--dtype", "float32", "--device", "cpu")


@pytest.fixture(params=["rope", "rows"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `model`, and `second`, which lies in its place after `exchange`."""
    monkeypatch.chdir(tmp_path)
    copy_of(tmp_path / "model")
    CHANGES[request.param](copy_of(tmp_path / "second"))
    Path("texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    pairs = ({"query": text[:12], "positive": text} for text in TEXTS)
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    rows = ({"a": text, "b": text[::-1], "score": len(text) % 5} for text in TEXTS)
    Path("scored.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tmp_path


def exchange() -> None:
    shutil.rmtree("model")
    shutil.move("second", "model")


def opened(**options: Any) -> Encoder:
    return Encoder.from_pretrained("model", dtype="float32", device="cpu", **options)


def same(found: Any, wanted: Any) -> bool:
    return np.allclose(found, wanted, atol=1e-4)


def test_vector_cache(place: Path) -> None:
    first = opened(vector_cache="vectors.sqlite").encode(TEXTS)
    exchange()
    second = opened(vector_cache="vectors.sqlite").encode(TEXTS)
    assert same(second, opened().encode(TEXTS))
    assert not same(second, first)


def test_interrupted_encode(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("encode", "texts.txt", "-o", "out.npy", "--chunk", "2", *MODEL)
    append = journal.Journal.append

    def full(self: journal.Journal, *arguments: Any) -> None:
        if len(self.finished) == 2:
            raise OSError("the disk is full")
        append(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "append", full)
        run(*command, exit_code=1)
    exchange()
    assert "with --restart" in run(*command, exit_code=1).stderr
    run(*command, "--restart")
    assert same(np.load("out.npy"), opened().encode(TEXTS))


def test_search(place: Path) -> None:
    command = ("search", "texts.txt", TEXTS[3], "--json", "--index", "index", *MODEL)
    run(*command)
    exchange()
    assert "--rebuild makes it anew" in run(*command, exit_code=1).stderr
    (hit,) = map(json.loads, run(*command, "--rebuild").stdout.splitlines())
    fresh = run(*command[:4], "--index", "fresh", *MODEL)
    assert hit == json.loads(fresh.stdout)


def test_document_index_and_states(place: Path) -> None:
    first = opened()
    index = DocumentIndex(first, "documents.sqlite")
    index.add(TEXTS)
    index.close()
    StateStore("states").bind(first.fingerprint("document", ""))
    exchange()
    with pytest.raises(ValueError, match="another file"):
        DocumentIndex(opened(), "documents.sqlite")
    with pytest.raises(ValueError, match="another folder"):
        StateStore("states").bind(opened().fingerprint("document", ""))


def test_evaluation(place: Path) -> None:
    command = ("evaluate", "model", "--tasks", "scored.jsonl", *MODEL[2:])
    command += ("--resamples", "2", "--json", "-o")
    run(*command, "scores")
    exchange()
    second = run(*command, "scores").stdout
    assert len(json.loads(Path("scores/scores.json").read_bytes())["results"]) == 2
    assert json.loads(second) == json.loads(run(*command, "fresh").stdout)


def test_mining(place: Path) -> None:
    pytest.importorskip("faiss")
    scorers = set()
    for output in ("mined", "mined again"):
        run("mine", "pairs.jsonl", "-o", output, "--negatives", "2", *MODEL)
        scorers.add(json.loads(Path(output, "mining.json").read_bytes())["scorer"])
        if len(scorers) == 1:
            exchange()
    assert len(scorers) == 2


def test_ray(place: Path) -> None:
    pytest.importorskip("ray")
    from llm_embeddings.distributed.batch import EmbedBatch
    from llm_embeddings.distributed.folder import Folder
    from llm_embeddings.distributed.output import manifest

    Path("output").mkdir()
    folder = Folder("output")
    begun = manifest.begun(folder, None, {}, [], EmbedBatch("model", device="cpu").facts)
    exchange()
    with pytest.raises(ValueError, match="begun with another model"):
        manifest.begun(folder, begun, {}, [], EmbedBatch("model", device="cpu").facts)


def test_keys_of_hosts(place: Path) -> None:
    langchain = pytest.importorskip("langchain_llm_embeddings").LLMEmbeddings
    llama = pytest.importorskip("llama_index.embeddings.llm_embeddings").LLMEmbedding
    keys = []
    for _ in range(2):
        options: Any = {"dtype": "float32", "device": "cpu"}
        lang = langchain(model="model", **options)
        keys += [lang.cache_namespace("query"), lang.cache_namespace("document")]
        keys.append(str(llama(model_name="model", **options).to_dict()["fingerprint"]))
        if len(keys) == 3:
            exchange()
    assert len(set(keys)) == 6
