"""Encoders, and a tokenizer, of the golden checkpoints that lie in this repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import BUNDLED, ROOT
from transformers import PreTrainedTokenizerFast

from llm_embeddings import Encoder


@pytest.fixture(scope="session", autouse=True)
def assets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hashes of files are noted in a folder of this test run, by children, too."""
    folder = str(tmp_path_factory.mktemp("assets"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ASSETS_CACHE", folder)
        patch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", folder)
        yield


@pytest.fixture(scope="session")
def e5() -> Encoder:
    return Encoder.from_pretrained(BUNDLED / "e5-mistral/model", dtype="float32")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    found: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
        BUNDLED / "e5-mistral/model"
    )
    return found


@pytest.fixture(scope="session")
def gritlm() -> Encoder:
    return Encoder.from_pretrained(BUNDLED / "gritlm-7b/model", dtype="float32")


@pytest.fixture(scope="session")
def llm2vec() -> Encoder:
    case = BUNDLED / "llm2vec-mistral"
    return Encoder.from_pretrained(case / "mntp", adapters=[case / "supervised"], dtype="float32")


@pytest.fixture(params=["e5", "gritlm", "llm2vec"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """One family after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def short_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sixteenth passage of the package's corpus in its place."""
    corpus = ROOT / "src/llm_embeddings/data/corpus.jsonl"
    lines = corpus.read_text(encoding="utf-8").splitlines()
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines[::16]), encoding="utf-8")
    monkeypatch.setattr("llm_embeddings.corpus._PATH", tmp_path / "corpus.jsonl")


@pytest.fixture(scope="session")
def loaded() -> dict[str, tuple[Encoder, dict[Any, Any]]]:
    """What `load_once` has loaded, with the ranges it came with."""
    return {}


@pytest.fixture
def load_once(
    loaded: dict[str, tuple[Encoder, dict[Any, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same arguments give the same encoder, where what is tested comes after loading.

    Checkpoints of the test itself are loaded each time.
    """
    load = Encoder.from_pretrained

    def from_pretrained(model: Any = None, **options: Any) -> Encoder:
        lasting = model is None or Path(model).resolve().is_relative_to(BUNDLED)
        if not lasting or options.get("devices") or options.get("vector_cache"):
            return load(model, **options)
        key = repr((str(model), sorted(options.items())))
        if key not in loaded:
            encoder = load(model, **options)
            loaded[key] = encoder, dict(encoder.ranges)
        encoder, ranges = loaded[key]
        encoder.ranges = dict(ranges)
        return encoder

    monkeypatch.setattr(Encoder, "from_pretrained", from_pretrained)
