"""GRIT's stage: both losses in one update, one checkpoint that embeds and generates."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import BUNDLED, child_environment, read_case
from helpers.training import (
    MODEL,
    assert_same_gradients,
    losses_of,
    quick,
    triplets,
    update,
    write_rows,
)
from helpers.training_grit_processes import options
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llm_embeddings import Encoder
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.families import gritlm as family
from llm_embeddings.records.examples import Conversation, Message
from llm_embeddings.training import grit
from llm_embeddings.training.batches.both import read_stripped
from llm_embeddings.training.batches.conversations import tokenize_conversation
from llm_embeddings.training.batches.pairs import Lengths, choose, tokenize_pairs
from llm_embeddings.training.grit import GRIT, train_grit
from llm_embeddings.training.losses import IGNORED
from llm_embeddings.training.options import LoraOptions
from llm_embeddings.training.passes import encoding

TALKS = [
    ["What is 2+2?", "4"],
    ["Hi!", " Hello, how can I help?  ", "Write a haiku about rain", "Soft rain on the roof"],
    ["Name a prime above 100.", "101"],
    ["Say nothing", "…"],
]


def stage_of(folder: Path, data: str, talks: str, **more: Any) -> Any:
    values = quick(folder, data, generative=(talks,), generative_batch_size=4, temperature=1.0)
    return grit._Stage(GRIT(**values | more))


@pytest.fixture
def data(tmp_path: Path) -> str:
    return triplets(tmp_path / "stones.jsonl")


@pytest.fixture
def talks(tmp_path: Path) -> str:
    return write_rows(tmp_path / "talks.jsonl", [{"text": turns} for turns in TALKS])


def conversation(turns: list[str]) -> Conversation:
    speakers = ("user", "assistant")
    return Conversation(tuple(Message(speakers[i % 2], text) for i, text in enumerate(turns)))  # type: ignore[arg-type]


@pytest.mark.golden
def test_batches_are_those_of_the_reference(tmp_path: Path, talks: str) -> None:
    """Ids and instruction lengths of all; labels of all but the conversation of two turns."""
    case = read_case(BUNDLED / "losses")["parts"]["gritlm"]["train_step"]["data"]
    with np.load(BUNDLED / "losses/golden_gritlm.npz") as stored:
        table = {key: stored[key] for key in stored.files if key.startswith("gritlm-7b")}
    rows = [
        {"query": row["query"], "pos": row["pos"], "neg": row["neg"]} for row in case["embedding"]
    ]
    stage = stage_of(tmp_path, write_rows(tmp_path / "golden.jsonl", rows), talks, lora=None)
    examples = list(read_stripped(stage._data._examples.surveys[0].source, negatives=True))
    pairs = choose(examples, 1, "", random.Random(0))
    found = tokenize_pairs(stage._trained, pairs, Lengths(64, 64))
    for side, part in (("query", found[:4]), ("passage", found[4:])):
        mask = table[f"gritlm-7b/{side}/attention_mask"].astype(bool)
        for row, ids, kept, start in zip(
            part,
            table[f"gritlm-7b/{side}/input_ids"],
            mask,
            table[f"gritlm-7b/{side}/instruction_lens"],
            strict=True,
        ):
            assert row.ids == ids[kept].tolist()
            assert row.start == start
    tokenizer, recipe = stage._trained.tokenizer, stage._trained.recipe
    for place, turns in enumerate(case["generative"]):
        ids, labels = tokenize_conversation(tokenizer, recipe, conversation(turns), 96)
        kept = table["gritlm-7b/generative/attention_mask"][place].astype(bool)
        assert ids == table["gritlm-7b/generative/input_ids"][place][kept].tolist()
        if len(turns) == 2:
            assert labels == table["gritlm-7b/generative/labels"][place][kept].tolist()


def test_all_answers_and_their_ends_are_learnt_and_nothing_else() -> None:
    tokenizer = load_tokenizer(Path(MODEL))
    ids, labels = tokenize_conversation(tokenizer, grit.GRIT_RECIPE, conversation(TALKS[1]), 96)
    learnt = [label for label in labels if label != IGNORED]
    assert all(label in (token, IGNORED) for token, label in zip(ids, labels, strict=True))
    assert tokenizer.decode(learnt) == "Hello, how can I help?</s>Soft rain on the roof</s>"
    frame = tokenizer.decode([i for i, label in zip(ids, labels, strict=True) if label == IGNORED])
    assert "Hello" not in frame
    assert frame.count("<|assistant|>") == 2


def test_a_plain_text_is_learnt_whole_and_cut() -> None:
    tokenizer = load_tokenizer(Path(MODEL))
    text = Conversation((Message("text", "Rain falls on the old roof."),))
    ids, labels = tokenize_conversation(tokenizer, grit.GRIT_RECIPE, text, 5)
    assert len(ids) == 5
    assert ids[0] == tokenizer.bos_token_id
    assert labels == [IGNORED, *ids[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["token", "sample", "mixed"])
def test_one_update_is_the_sum_of_two(
    tmp_path: Path, data: str, talks: str, aggregation: Any
) -> None:
    """And chunks of any size give the same gradient."""
    common: dict[str, Any] = {"aggregation": aggregation, "mixed_group": 2}
    both = stage_of(tmp_path, data, talks, **common, embedding_weight=0.5, generative_weight=2.0)
    batch = next(both.batches(0))
    losses, slopes = update(both, batch)
    found: dict[str, torch.Tensor] = {}
    total = 0.0
    for name, weight in (("embedding", 0.5), ("generative", 2.0)):
        other = "generative" if name == "embedding" else "embedding"
        stage = stage_of(tmp_path, data, talks, **common, **{f"{other}_weight": 0.0})
        part, gradient = update(stage, next(stage.batches(0)))
        total += weight * part[name]
        assert losses[name] == pytest.approx(part[name], rel=1e-5)
        for key, value in gradient.items():
            found[key] = found.get(key, 0.0) + weight * value
    assert losses["loss"] == pytest.approx(total, rel=1e-5)
    assert_same_gradients(found, slopes, 2e-5)
    chunked = stage_of(
        tmp_path,
        data,
        talks,
        **common,
        embedding_weight=0.5,
        generative_weight=2.0,
        batch_tokens=50,
    )
    _, parts = update(chunked, batch)
    assert_same_gradients(parts, slopes, 2e-5)


def test_answers_of_a_query_are_no_negatives_of_it(
    tmp_path: Path, talks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"query": f"q{i}", "pos": "the same text", "neg": f"other {i}"} for i in range(4)]
    data = write_rows(tmp_path / "same.jsonl", rows)
    masked = stage_of(tmp_path, data, talks)
    batch = next(masked.batches(0))
    found, _ = update(masked, batch)
    plain = stage_of(tmp_path, data, talks, skip_duplicates=False)
    with pytest.warns(UserWarning, match="answer the query that they are set against"):
        counted, _ = update(plain, batch)
    assert found["embedding"] < counted["embedding"]
    assert counted["false_negatives"] == pytest.approx(12 / 28)


def test_batches_go_on_where_they_stopped(tmp_path: Path, data: str, talks: str) -> None:
    stage = stage_of(tmp_path, data, talks, generative_batch_size=3)
    whole = stage.batches(0)
    expected = [next(whole) for _ in range(4)]
    assert next(stage.batches(3)) == expected[3]


@pytest.mark.parametrize("lora", [None, LoraOptions(rank=4)])
@pytest.mark.slow
def test_training_learns_and_the_result_embeds_and_generates(
    tmp_path: Path, data: str, talks: str, lora: Any
) -> None:
    values = quick(tmp_path, data, generative=(talks,), generative_batch_size=4, lora=lora)
    more = {"max_steps": 10, "learning_rate": 3e-3, "log_every": 1, "temperature": 0.2}
    result = train_grit(GRIT(**values | more))
    losses = losses_of(result)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    encoder = Encoder.from_pretrained(result, dtype="float32")
    assert not encoder.recipe.causal
    trained = AutoModelForCausalLM.from_pretrained(result, dtype=torch.float32)
    start = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    ids, changed = torch.tensor([[1, 500, 600, 700]]), torch.tensor([[1, 500, 600, 701]])
    assert torch.equal(trained(ids).logits[:, :3], trained(changed).logits[:, :3])
    assert torch.equal(trained.lm_head.weight, start.lm_head.weight) == (lora is not None)
    for name in ("sliding_window", "use_cache", "is_causal"):
        before, after = (getattr(model.config, name, None) for model in (start, trained))
        assert after == before


@pytest.mark.slow
def test_two_processes_make_the_same_update(tmp_path: Path, data: str, talks: str) -> None:
    """The heads too, each of which only one of the two losses uses."""
    train_grit(options(tmp_path, "single"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, "-m", "helpers.training_grit_processes", str(tmp_path)],
        env=child_environment() | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert losses_of(tmp_path / "single") == pytest.approx(losses_of(tmp_path / "double"), rel=1e-5)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("single", "double"))
    before = AutoModelForCausalLM.from_pretrained(MODEL).state_dict()
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], atol=1e-3, rtol=1e-2)  # stored in bfloat16
        assert not torch.equal(weight, before[name])
    heads = [load_file(tmp_path / name / "heads.safetensors") for name in ("single", "double")]
    for name, weight in heads[0].items():
        torch.testing.assert_close(weight, heads[1][name], atol=1e-4, rtol=1e-4)


def test_default_recipe_is_gritlms(tmp_path: Path, data: str, talks: str) -> None:
    published = family.RECIPES["GritLM/GritLM-7B"]
    assert grit.GRIT_RECIPE.query == published.query
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in Path(MODEL).iterdir():
        content = file.read_bytes()
        if file.name == "config.json":
            config = json.loads(content)
            del config["auto_map"]
            content = json.dumps(config).encode()
        (plain / file.name).write_bytes(content)
    recipe = stage_of(tmp_path, data, talks, model=str(plain))._trained.recipe
    assert (recipe.name, recipe.causal) == ("grit", False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generative": ()}, r"generative_weight=1.0 needs generative data"),
        ({"embedding_weight": 0.0, "generative_weight": 0.0}, r"are both 0: nothing is trained"),
        ({"generative_weight": -1.0}, r"generative_weight=-1.0 must be 0 or more"),
        ({"aggregation": "mean"}, r"aggregation='mean' is not one of"),
        ({"query_length": 40_000}, r"query_length=40000 exceeds the model's 32768 positions"),
        ({"mixed_group": 0}, r"mixed_group=0 must be 1 or more"),
        ({"save": "adapter", "lora": LoraOptions()}, r"save='adapter' has no language-model head"),
        ({"generative_batch_size": 5}, r"fewer than a batch of 5"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, data: str, talks: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stage_of(tmp_path, data, talks, **change)


def test_a_conversation_without_an_answer_is_named(tmp_path: Path, data: str) -> None:
    broken = write_rows(tmp_path / "broken.jsonl", [{"text": ["Hi!"]}])
    with pytest.raises(ValueError, match=r"broken\.jsonl.*none of the assistant at the end"):
        stage_of(tmp_path, data, broken)


def test_a_model_that_cannot_be_packed_is_refused_before_training(
    tmp_path: Path, data: str, talks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "choose_kernel", lambda *_: (None, "padded batches: a reason"))
    with pytest.raises(ValueError, match=r"cannot be trained this way \(padded batches: a reason"):
        stage_of(tmp_path, data, talks)
