"""The contrastive stage: what it feeds, what it learns, what it saves, what it refuses."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.training import (
    MODEL,
    assert_same_gradients,
    gradients,
    losses_of,
    quick,
    triplets,
    update,
    write_rows,
)
from torch.nn.functional import cross_entropy, normalize

from llm_embeddings import Encoder, get_recipe
from llm_embeddings.records.sources import Source
from llm_embeddings.training import contrastive
from llm_embeddings.training.batches.pairs import Lengths, Pair, known_answers, tokenize_pairs
from llm_embeddings.training.contrastive import PRESETS, Contrastive, train_contrastive
from llm_embeddings.training.losses import distillation
from llm_embeddings.training.options import LoraOptions

QUESTION = "Find the stone"


def stage_of(folder: Path, data: Any, **more: Any) -> Any:
    return contrastive._Stage(Contrastive(**quick(folder, data, **more)))


@pytest.fixture
def data(tmp_path: Path) -> str:
    return triplets(tmp_path / "stones.jsonl")


def test_update_has_the_loss_and_gradient_of_the_whole_batch(tmp_path: Path, data: str) -> None:
    """Against a plain padded forward; chunks of 40 tokens or all at once."""
    batches = []
    for budget in (40, 4096):
        stage = stage_of(tmp_path, data, lora=None, batch_tokens=budget, temperature=0.1)
        batches.append(next(stage.batches(0)))
        losses, found = update(stage, batches[-1])
        rows = tokenize_pairs(stage._trained, batches[-1], Lengths())
        stage.model.zero_grad()
        vectors = []
        for row in rows:
            hidden = stage._trained.backbone(
                torch.tensor([row.ids]), torch.ones(1, len(row.ids))
            ).last_hidden_state[0]
            vectors.append(normalize(hidden[row.start :].mean(0), dim=-1))
        scores = torch.stack(vectors[:4]) @ torch.stack(vectors[4:]).T / 0.1
        passages = [text for pair in batches[-1] for text in pair.passages]
        for place, pair in enumerate(batches[-1]):
            for other, text in enumerate(passages):
                if text in pair.positives and other != place * 2:
                    scores[place, other] = -torch.inf
        loss = cross_entropy(scores, torch.arange(4) * 2)
        loss.backward()
        assert losses["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert_same_gradients(found, gradients(stage.model), 2e-5)
    assert batches[0] == batches[1]


def test_batches_go_on_where_they_stopped(tmp_path: Path, data: str) -> None:
    stage = stage_of(tmp_path, data)
    whole = stage.batches(0)
    expected = [next(whole) for _ in range(5)]
    assert next(stage.batches(3)) == expected[3]
    assert [pair for batch in expected[:2] for pair in batch] != [
        pair for batch in expected[2:4] for pair in batch
    ]


def test_instructions_stand_before_queries_and_in_symmetric_data_before_all(
    tmp_path: Path, data: str
) -> None:
    for symmetric in (False, True):
        source = Source(Path(data), instruction=QUESTION, symmetric=symmetric)
        stage = stage_of(tmp_path, (source,))
        rows, _ = stage._rows(next(stage.batches(0)))
        texts = [stage._trained.tokenizer.decode(row) for row in rows]
        assert all(f"<|user|>\n{QUESTION}\n<|embed|>" in text for text in texts[:4])
        assert all((QUESTION in text) == symmetric for text in texts[4:])


@pytest.mark.parametrize(
    ("given", "expected"), [(None, "web search"), ("", ""), ("Match", "Match")]
)
def test_instruction_of_queries_whose_data_has_none(
    tmp_path: Path, data: str, given: str | None, expected: str
) -> None:
    stage = stage_of(tmp_path, data, instruction=given)
    rows, _ = stage._rows(next(stage.batches(0)))
    text = stage._trained.tokenizer.decode(rows[0])
    assert ("<|user|>" in text) == bool(expected)
    assert expected in text


def test_rows_are_those_that_serve(tmp_path: Path, data: str) -> None:
    stage = stage_of(tmp_path, data)
    pair = Pair("amber?", ("a stone", "a tree"), QUESTION, "")
    encoder = Encoder.from_pretrained(MODEL, dtype="float32")
    rows, _ = stage._rows([pair])
    assert rows[:1] == encoder.tokenize(["amber?"], "query", QUESTION)
    assert rows[1:] == encoder.tokenize(["a stone", "a tree"], "document")


def test_a_batch_is_of_one_source(tmp_path: Path) -> None:
    data = (triplets(tmp_path / "a.jsonl"), triplets(tmp_path / "b.jsonl"))
    examples = stage_of(tmp_path, data)._mixture.batches(4, 0, epochs=1)
    assert all(len({example.source for example in batch}) == 1 for batch in examples)
    mixed = stage_of(tmp_path, data, same_source=False)._mixture.batches(4, 0, epochs=1)
    assert any(len({example.source for example in batch}) == 2 for batch in mixed)


@pytest.mark.parametrize("save", ["merged", "adapter"])
@pytest.mark.slow
def test_training_learns_and_the_result_serves(tmp_path: Path, data: str, save: Any) -> None:
    options = Contrastive(
        **quick(tmp_path, data, max_steps=12, learning_rate=5e-3, log_every=1, save=save)
    )
    result = train_contrastive(options)
    losses = losses_of(result)
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    encoder = Encoder.from_pretrained(result, dtype="float32")
    before = Encoder.from_pretrained(MODEL, dtype="float32")
    assert encoder.recipe.replace(name="") == before.recipe.replace(name="", base=None)
    texts = ["which stone is red", "amber"]
    assert np.abs(encoder.encode(texts) - before.encode(texts)).max() > 1e-2


@pytest.mark.slow
def test_training_under_way_encodes_as_the_result_does(tmp_path: Path, data: str) -> None:
    stage = stage_of(tmp_path, data)
    texts = ["which stone is red", "amber"]
    stage.model.eval()
    expected = Encoder.from_pretrained(MODEL, dtype="float32").encode_query(texts)
    found = stage.encode(stage.model, texts, "query")
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_matryoshka_and_qwen3_losses(tmp_path: Path, data: str) -> None:
    batch = next(stage_of(tmp_path, data).batches(0))
    plain, _ = update(stage_of(tmp_path, data), batch)
    cut, _ = update(stage_of(tmp_path, data, matryoshka=(8, 24)), batch)
    short, _ = update(stage_of(tmp_path, data, matryoshka=(8,)), batch)
    assert cut["loss"] == pytest.approx(plain["loss"] + short["loss"], rel=1e-5)
    more, _ = update(stage_of(tmp_path, data, same_tower=True), batch)
    assert more["loss"] > plain["loss"]
    fewer, _ = update(stage_of(tmp_path, data, margin=0.0), batch)
    assert fewer["loss"] < plain["loss"]


def pair(query: str, *passages: str, instruction: str = "", more: tuple[str, ...] = ()) -> Pair:
    return Pair(query, passages, instruction, "", (passages[0], *more))


def test_which_passages_answer_which_queries() -> None:
    pairs = [
        pair("q", "a", "n"),
        pair("r", "a", "b"),  # an equal positive
        pair("q", "b", "m"),  # an equal query, whose answer is a negative of the second
        pair("q", "c", "k", instruction="Other"),  # the same words, asked otherwise
        pair("s", "d", "n", more=("c",)),  # another answer that was not drawn
    ]
    found = [
        [place for place, known in enumerate(row) if known] for row in known_answers(pairs).tolist()
    ]
    assert found == [[0, 2, 3, 4], [0, 2], [0, 2, 3, 4], [6], [6, 8]]


def test_a_perfect_model_of_few_labels_has_no_loss(tmp_path: Path) -> None:
    """Four labels, each the positive of four texts; by default none is its own negative."""
    labels = torch.eye(4)
    pairs = [pair(f"text {number}", f"label {number % 4}") for number in range(16)]
    vectors = torch.cat([labels.repeat(4, 1), labels.repeat(4, 1)])
    for skip, wanted in ((True, 0.0), (False, float(np.log(4)))):
        options = Contrastive(**quick(tmp_path, "d", negatives=0, skip_duplicates=skip))
        found = contrastive.contrastive_loss(options, vectors, pairs)
        assert float(found) == pytest.approx(wanted, abs=1e-4)
    assert Contrastive(**quick(tmp_path, "d")).skip_duplicates


def test_presets_of_papers_warn_of_answers_that_are_negatives(tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "pos": ["the same text"], "neg": [f"other {i}"]} for i in range(4)]
    data = write_rows(tmp_path / "same.jsonl", rows)
    more = {"temperature": 1.0, "skip_duplicates": False}
    stage = stage_of(tmp_path, data, **more)
    batch = next(stage.batches(0))
    with pytest.warns(UserWarning, match=r"42\.86% of the negatives .* skip_duplicates=True"):
        plain, _ = update(stage, batch)
    again, _ = update(stage, batch)  # warned of once
    skipped, _ = update(stage_of(tmp_path, data, temperature=1.0), batch)
    assert plain["false_negatives"] == again["false_negatives"] == pytest.approx(12 / 28)
    assert skipped["loss"] < plain["loss"]
    assert "false_negatives" not in skipped
    assert [name for name in PRESETS if PRESETS[name].get("skip_duplicates", True)] == ["qwen3"]


def test_a_positive_among_the_negatives_is_named(tmp_path: Path) -> None:
    rows = [{"query": "a", "pos": ["b", "c"], "neg": ["d", "c"]}] * 4
    data = write_rows(tmp_path / "both.jsonl", rows)
    with pytest.raises(ValueError, match=r"both\.jsonl, line 1: 'c' is a positive and a negative"):
        stage_of(tmp_path, data)
    stage_of(tmp_path, data, negatives=0)


def scored(path: Path, **changes: Any) -> str:
    """Rows whose scores name their passages."""
    rows = [
        {
            "query": f"q{i}",
            "pos": [f"p{i}0", f"p{i}1"],
            "neg": [f"n{i}2", f"n{i}3", f"n{i}4"],
            "pos_scores": [10 * i, 10 * i + 1],
            "neg_scores": [10 * i + 2, 10 * i + 3, 10 * i + 4],
        }
        for i in range(6)
    ]
    return write_rows(path, [*rows[:-1], rows[-1] | changes])


def test_a_teachers_scores_go_with_their_passages(tmp_path: Path) -> None:
    data = scored(tmp_path / "scored.jsonl")
    stage = stage_of(tmp_path, data, negatives=4, distillation="kl")
    for pair in (pair for batch in islice(stage.batches(0), 4) for pair in batch):
        assert pair.scores == tuple(float(text[1:]) for text in pair.passages)
    plain = stage_of(tmp_path, data, negatives=4)
    assert next(plain.batches(0))[0].passages == next(stage.batches(0))[0].passages


@pytest.mark.parametrize("kind", ["kl", "margin-mse"])
def test_distillation_is_added_with_its_weight(tmp_path: Path, kind: Any) -> None:
    data = scored(tmp_path / "scored.jsonl")
    more = {"negatives": 2, "temperature": 0.5, "distillation": kind, "teacher_temperature": 4.0}
    stage = stage_of(tmp_path, data, **more, distillation_weight=0.3, contrastive_weight=0.7)
    batch = next(stage.batches(0))
    both, _ = update(stage, batch)
    contrast, _ = update(stage_of(tmp_path, data, negatives=2, temperature=0.5), batch)
    rows, starts = stage._rows(batch)
    vectors = normalize(stage.model.vectors(rows, starts), dim=-1).detach()
    student = torch.stack([vectors[4 + 3 * i : 7 + 3 * i] @ vectors[i] / 0.5 for i in range(4)])
    teacher = torch.tensor([pair.scores for pair in batch])
    wanted = distillation(student, teacher, kind, temperature=4.0)
    assert both["loss"] == pytest.approx(0.7 * contrast["loss"] + 0.3 * float(wanted), rel=1e-5)


@pytest.mark.slow
def test_a_teachers_order_is_learnt(tmp_path: Path) -> None:
    """Against the data's own: what it calls negative scores higher."""
    rows = [
        {"query": f"q {w}", "pos": w, "neg": f"not {w}", "pos_scores": [0], "neg_scores": [9]}
        for w in ("red", "green", "blue", "amber")
    ]
    options = quick(tmp_path, write_rows(tmp_path / "odd.jsonl", rows), distillation="margin-mse")
    more = {"contrastive_weight": 0, "max_steps": 12, "learning_rate": 5e-3, "temperature": 0.1}
    result = train_contrastive(Contrastive(**options | more))
    encoder = Encoder.from_pretrained(result, dtype="float32")
    queries = encoder.encode_query([row["query"] for row in rows])
    good, bad = (encoder.encode_document([row[key] for row in rows]) for key in ("neg", "pos"))
    assert ((queries * good).sum(1) > (queries * bad).sum(1)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos_scores": None}, r"line 6: 'pos_scores' is None, not a score for each of 2 texts"),
        ({"neg_scores": [1, 2]}, r"line 6: 'neg_scores' is \[1, 2\], not a score for each of 3"),
        ({"neg_scores": [1, 2, "x"]}, r"line 6: 'neg_scores' is"),
        ({"neg_scores": [1, 2, float("nan")]}, r"line 6: 'neg_scores' is"),
    ],
)
def test_scores_that_are_missing_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    data = scored(tmp_path / "scored.jsonl", **changes)
    with pytest.raises(ValueError, match=message):
        stage_of(tmp_path, data, distillation="kl")
    stage_of(tmp_path, data)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_options(tmp_path: Path, name: str) -> None:
    values = {"model": "m", "output": tmp_path, "data": "d.jsonl", **PRESETS[name]}
    options = Contrastive(**values)
    assert isinstance(options.lora, LoraOptions)
    if options.recipe is not None:
        assert isinstance(options.recipe, str)
        assert get_recipe(options.recipe).name == options.recipe


def test_rows_without_negatives_are_named(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", [{"query": "a", "pos": "b"}] * 4)
    with pytest.raises(ValueError, match=r"pairs\.jsonl.*has no negatives"):
        stage_of(tmp_path, data)
    assert len(next(stage_of(tmp_path, data, negatives=0).batches(0))[0].passages) == 1


def test_few_negatives_come_again(tmp_path: Path, data: str) -> None:
    batch = next(stage_of(tmp_path, data, negatives=5).batches(0))
    passages = batch[0].passages[1:]
    assert len(passages) == 5
    assert len(set(passages)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, r"temperature=0.0 must be above 0"),
        ({"negatives": -1}, r"negatives=-1 must be 0 or more"),
        ({"query_length": 0}, r"query_length=0 must be 1 or more"),
        ({"matryoshka": (0,)}, r"matryoshka=\(0,\) has a length below 1"),
        ({"matryoshka": (48,)}, r"matryoshka=48 is longer than the vectors: 24"),
        ({"batch_size": 1, "negatives": 0}, r"nothing to tell apart"),
        ({"distillation": "mse"}, r"distillation='mse' is not one of"),
        ({"distillation": "kl", "negatives": 0}, r"negatives=0 leaves nothing to rank"),
        ({"contrastive_weight": 0.0}, r"contrastive_weight=0 without distillation"),
        ({"query_length": 40_000}, r"max_length=40000 is not between"),
        ({"max_characters": 3}, r"stones\.jsonl: none of its 8 items is kept"),
        ({"batch_size": 9}, r"has 8 items, fewer than a batch of 9"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, data: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stage_of(tmp_path, data, **change)


def test_an_instruction_without_a_place_is_refused_before_training(
    tmp_path: Path, data: str
) -> None:
    source = Source(Path(data), instruction=QUESTION, symmetric=True)
    with pytest.raises(ValueError, match=r"instruction 'Find the stone' has no place"):
        stage_of(tmp_path, (source,), recipe=get_recipe("last-token"))
