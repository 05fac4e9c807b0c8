"""A model among other programs: caches, pickles, copies, forks, options that are another's."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers_llm_embeddings import as_sentence_transformer

from llm_embeddings import Encoder
from llm_embeddings.evaluation import local_task, mteb_encoder

mteb = pytest.importorskip("mteb")
TEXTS = ["Paris is in France.", "", "cats purr " * 60, "a"]


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-5, rtol=0)


def meta(model: SentenceTransformer) -> tuple[str | None, str | None]:
    found = mteb.models.model_meta.ModelMeta.from_sentence_transformer_model(model)
    return found.name, found.revision


@pytest.mark.filterwarnings("ignore:The (fill_missing|compute_metadata) parameter")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_model_has_a_name_and_a_revision_of_its_own(e5: Encoder, gritlm: Encoder) -> None:
    mean = Encoder(e5.backbone, e5.tokenizer, e5.recipe.replace(pooling="mean"))
    short = as_sentence_transformer(e5)
    short.max_seq_length = 24
    models = [
        as_sentence_transformer(e5),
        as_sentence_transformer(gritlm),
        as_sentence_transformer(mean),
        as_sentence_transformer(e5, truncate_dim=8),
        as_sentence_transformer(e5, prompts={"sts": "Same? "}),
        as_sentence_transformer(e5, default_prompt_name="query"),
        short,
    ]
    assert len({meta(model) for model in models}) == len(models)
    assert meta(as_sentence_transformer(e5)) == meta(models[0])
    for name, revision in map(meta, models):
        assert name is not None
        assert "/" in name
        assert revision is not None
        assert len(revision) == 32


@pytest.mark.filterwarnings("ignore:The (fill_missing|compute_metadata) parameter")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_revision_follows_the_weights(fresh: Encoder) -> None:
    model = as_sentence_transformer(fresh)
    before = meta(model)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    assert meta(model) != before


def test_a_card_tells_nobody_elses_revision(fresh: Encoder, tmp_path: Path) -> None:
    model = as_sentence_transformer(fresh)
    revision = model.model_card_data.base_model_revision
    model.save(str(tmp_path))
    assert revision is not None
    assert revision not in (tmp_path / "README.md").read_text()


def test_a_pickle_holds_no_weights(fresh: Encoder) -> None:
    model = as_sentence_transformer(fresh, truncate_dim=8, prompts={"sts": "Same? "})
    model.max_seq_length = 30
    data = pickle.dumps(model)
    assert len(data) < 30_000
    again = pickle.loads(data)
    assert (again.max_seq_length, again.prompts) == (30, model.prompts)
    close(again.encode_query(TEXTS), model.encode_query(TEXTS))


def test_weights_that_lie_in_no_file_travel(fresh: Encoder) -> None:
    model = as_sentence_transformer(fresh)
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    close(pickle.loads(pickle.dumps(model)).encode(TEXTS), model.encode(TEXTS))


def test_copies_share_weights_that_are_not_trained_then(fresh: Encoder) -> None:
    model = as_sentence_transformer(fresh)
    again = copy.deepcopy(model)
    assert again[0].backbone is model[0].backbone
    again.max_seq_length = 20
    assert model.max_seq_length == fresh.max_length
    close(again.encode(["a"]), model.encode(["a"]))
    for each in (model, again):
        with pytest.raises(ValueError, match="load the checkpoint once more"):
            each.train()(each.preprocess(["a"]))
    del again, each
    model.train()(model.preprocess(["a"]))["sentence_embedding"].sum().backward()


def embed(model: SentenceTransformer, texts: list[str]) -> Any:
    return model.encode(texts)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.slow
def test_a_forked_child_does_not_hang(gritlm: Encoder) -> None:
    model, texts = as_sentence_transformer(gritlm), TEXTS * 40
    expected = model.encode(texts)
    ends = signal.signal, (signal.SIGTERM, signal.SIG_DFL)
    with multiprocessing.get_context("fork").Pool(1, *ends) as pool:
        close(pool.apply_async(embed, (model, texts)).get(timeout=60), expected)


def test_states_of_tokens(gritlm: Encoder) -> None:
    model = as_sentence_transformer(gritlm)
    texts = ["Cats purr.", "a"]
    states = model.encode(texts, output_value="token_embeddings")
    ids = gritlm.tokenize(texts)
    assert [state.shape for state in states] == [
        (len(row), gritlm.backbone.config.hidden_size) for row in ids
    ]
    for row, state in zip(ids, states, strict=True):
        with torch.no_grad():
            alone = gritlm.backbone(torch.tensor([row])).last_hidden_state[0]
        close(state, alone)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"backend": "onnx"}, "PyTorch"),
        ({"processor_kwargs": {"model_max_length": 12}}, "max_seq_length"),
        ({"config_kwargs": {"hidden_size": 12}}, "recipe="),
        ({"model_kwargs": {"normalise": True}}, "normalise"),
    ],
    ids=str,
)
def test_what_is_not_for_this_module_is_refused(
    gritlm: Encoder, tmp_path: Path, option: Any, message: str
) -> None:
    as_sentence_transformer(gritlm).save(str(tmp_path))
    with pytest.raises(ValueError, match=message):
        SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu", **option)


@pytest.mark.slow
def test_prompts_of_who_loads_a_model(e5: Encoder, tmp_path: Path) -> None:
    as_sentence_transformer(e5).save(str(tmp_path))
    load: Any = lambda prompts: SentenceTransformer(  # noqa: E731
        str(tmp_path), trust_remote_code=True, device="cpu", prompts=prompts
    )
    close(load({"query": ""}).encode_query(TEXTS), e5.encode_query(TEXTS, ""))
    other = load({"query": "Instruct: Same?\nQuery: ", "sts": "Same: "})
    close(other.encode_query(TEXTS), e5.encode_query(TEXTS, "Same?"))
    close(other.encode_document(TEXTS), e5.encode_document(TEXTS))
    assert other.prompts["sts"] == "Same: "


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrap", [as_sentence_transformer, mteb_encoder])
def test_two_models_do_not_mix_in_mtebs_cache(
    e5: Encoder, gritlm: Encoder, tmp_path: Path, wrap: Any
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = [
        '{"a": "A cat purrs.", "b": "The cat is content.", "score": 0.9}',
        '{"a": "A dog barks.", "b": "Paris is in France.", "score": 0.1}',
        '{"a": "Rain falls.", "b": "It is raining.", "score": 0.8}',
        '{"a": "Bread is baked.", "b": "Ships sail.", "score": 0.3}',
    ]
    pairs.write_text("\n".join(lines))
    task, cache = local_task(pairs), mteb.ResultCache(tmp_path / "cache")

    def score(model: Any, where: Any) -> float:
        done = mteb.evaluate(model, task, cache=where, co2_tracker=False, show_progress_bar=False)
        return float(done.task_results[0].scores["test"][0]["cosine_spearman"])

    alone = [score(wrap(encoder), None) for encoder in (e5, gritlm)]
    for _ in range(2):
        assert [score(wrap(encoder), cache) for encoder in (e5, gritlm)] == pytest.approx(alone)
    assert len(list((tmp_path / "cache").rglob("model_meta.json"))) == 2
