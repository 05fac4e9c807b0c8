"""Metrics equal scipy's and scikit-learn's, and the errors say what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.evaluation import encode, sentences, write, write_beir, write_labelled, write_pairs
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ndcg_score

from llm_embeddings import Encoder
from llm_embeddings.evaluation import Score, evaluate
from llm_embeddings.evaluation.measures import bm25, retrieval, similarity
from llm_embeddings.evaluation.scores import Bootstrap, ndcg, spearman
from llm_embeddings.evaluation.sets import read_retrieval, read_set

NONE = Bootstrap(resamples=0)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "animals")


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., Path]:
    return lambda count=30: write_pairs(tmp_path / "sts.jsonl", count)


@pytest.mark.parametrize("levels", [3, 1000])
def test_spearman_is_scipys(levels: int) -> None:
    rng = np.random.default_rng(levels)
    first, second = rng.integers(0, levels, (2, 200)).astype(float)
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)


def test_spearman_of_a_constant_is_zero() -> None:
    assert spearman(np.ones(4), np.arange(4.0)) == 0


def test_ndcg_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    gains, scores = rng.integers(0, 3, 50), rng.normal(size=50)
    found = ndcg(gains[np.argsort(-scores)].tolist(), gains.tolist())
    assert found == pytest.approx(ndcg_score([gains], [scores], k=10))


def test_retrieval(beir: Path) -> None:
    scores = retrieval(encode, read_retrieval(beir), bootstrap=NONE)
    # q1 finds d3, d1, d2 with gains 0, 2, 1; q2 finds d1, d2, d3, for its namesake is no hit.
    first = (2 / np.log2(3) + 1 / 2) / (2 + 1 / np.log2(3))
    assert scores["ndcg@10"].value == pytest.approx((first + 1 / 2) / 2)
    assert scores["mrr@10"].value == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert scores["recall@100"].value == 1
    assert scores["ndcg@10"].count == 2


def test_ranks_that_count(beir: Path) -> None:
    cuts = [("recall", 1), ("recall", 2), ("mrr", 1), ("ndcg", 1)]
    scores = retrieval(encode, read_retrieval(beir), cuts=cuts, bootstrap=NONE)
    assert {name: score.value for name, score in scores.items()} == {
        "recall@1": 0,
        "recall@2": 0.25,
        "mrr@1": 0,
        "ndcg@1": 0,
    }


def test_equal_numbers_are_not_the_query_itself(beir: Path) -> None:
    """Where ids are numbers on both sides, no document is left out for its number."""
    assert read_retrieval(beir).shared_ids
    write(beir / "queries.jsonl", [{"_id": "d3", "text": "ab ab"}])
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nd3\td3\t1\n")
    data = read_retrieval(beir)
    assert not data.shared_ids
    assert retrieval(encode, data, bootstrap=NONE)["mrr@10"].value == 1


def test_bm25_finds_shared_words(beir: Path) -> None:
    write(
        beir / "queries.jsonl", [{"_id": "q1", "text": "AAA bb"}, {"_id": "q2", "text": "no such"}]
    )
    scores = bm25(read_retrieval(beir), bootstrap=NONE)
    assert scores["recall@100"].value == 0.5
    assert scores["ndcg@10"].value < 1


def test_qrels_may_lie_in_a_folder(beir: Path) -> None:
    expected = evaluate(encode, [beir])
    (beir / "qrels").mkdir()
    (beir / "qrels.tsv").rename(beir / "qrels" / "test.tsv")
    assert evaluate(encode, [beir]) == expected


def test_classification(tmp_path: Path) -> None:
    train = write_labelled(tmp_path / "my_train.jsonl", 60, 0)
    test = write_labelled(tmp_path / "my_test.jsonl", 30, 1)
    score = evaluate(encode, [test])["my/accuracy"]
    learnt, asked = (
        zip(*sentences(count, seed), strict=True) for count, seed in ((60, 0), (30, 1))
    )
    texts, labels = learnt
    expected = LogisticRegression(max_iter=1000).fit(encode(texts, ""), labels)
    texts, labels = asked
    assert score.value == pytest.approx(expected.score(encode(texts, ""), labels))
    assert score.low < score.value < score.high
    folder = tmp_path / "intents"
    folder.mkdir()
    train.rename(folder / "train.jsonl")
    test.rename(folder / "test.jsonl")
    assert evaluate(encode, [folder])["intents/accuracy"] == score


def test_clustering_of_what_is_far_apart(tmp_path: Path) -> None:
    rows = [{"text": letter * 5, "label": letter} for letter in "abc" for _ in range(8)]
    scores = evaluate(encode, [write(tmp_path / "groups.jsonl", rows)], resamples=20)
    assert scores["groups/v_measure"].value == pytest.approx(1)


def test_intervals_hold_the_value_and_repeat(beir: Path, pairs: Callable[..., Path]) -> None:
    paths = [pairs(), beir]
    scores = evaluate(encode, paths)
    for name in ("sts/spearman", "animals/mrr@10"):
        assert scores[name].low <= scores[name].value <= scores[name].high
        assert scores[name].low < scores[name].high
    assert evaluate(encode, paths) == scores
    assert evaluate(encode, paths, seed=1) != scores


def test_more_pairs_narrow_the_interval(pairs: Callable[..., Path]) -> None:
    few = evaluate(encode, [pairs(30)])["sts/spearman"]
    many = evaluate(encode, [pairs(480)])["sts/spearman"]
    # The width goes with one over the square root of the count: here to a quarter.
    assert 0.15 < (many.high - many.low) / (few.high - few.low) < 0.4


def test_repeated_sentences_are_embedded_once(pairs: Callable[..., Path]) -> None:
    given: list[str] = []

    def counting(texts: list[str], role: str) -> Any:
        given.extend(texts)
        return encode(texts, role)

    evaluate(counting, [pairs()])
    assert len(given) == len(set(given)) > 0


def test_an_encoder_is_a_callable(beir: Path, pairs: Callable[..., Path], e5: Encoder) -> None:
    scores = evaluate(e5.encode, [pairs(), beir], resamples=10)
    assert list(scores) == [
        "sts/spearman",
        "animals/ndcg@10",
        "animals/recall@100",
        "animals/mrr@10",
    ]
    assert all(-1 <= score.value <= 1 for score in scores.values())
    assert str(Score(0.5, 0.25, 0.75, 10)) == "0.500 [0.250, 0.750]"


def test_mistakes_in_pairs(pairs: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 2 pairs: a correlation needs at least three"):
        evaluate(encode, [pairs(2)])
    for score in (None, "high", True, float("nan")):
        path = write(tmp_path / "x.jsonl", [{"a": "x", "b": "y", "score": score}])
        with pytest.raises(ValueError, match=f"x.jsonl, line 1: score is {score!r}, not a number"):
            evaluate(encode, [path])
    path = write(tmp_path / "x.jsonl", [{"a": "x", "score": 1}])
    with pytest.raises(ValueError, match="x.jsonl, line 1: a pair has the texts a and b"):
        evaluate(encode, [path])
    data = read_set(pairs())
    with pytest.raises(ValueError, match="vectors that are not finite"):
        similarity(lambda texts, role: np.full((len(texts), 2), np.nan), data)


def test_mistakes_in_retrieval(beir: Path) -> None:
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1 d1 1\n")
    with pytest.raises(ValueError, match=r"qrels.tsv, line 2 is not query-id, corpus-id, score"):
        evaluate(encode, [beir])
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t0\n")
    with pytest.raises(ValueError, match="no query of .* has a relevant document"):
        evaluate(encode, [beir])
    (beir / "qrels.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"has neither qrels.tsv nor qrels/test.tsv"):
        evaluate(encode, [beir])
    write_beir(beir)
    write(beir / "corpus.jsonl", [{"_id": "d1", "text": "x"}, {"_id": "d1", "text": "y"}])
    with pytest.raises(ValueError, match=r"line 2: _id 'd1' stands in an earlier line too"):
        evaluate(encode, [beir])
    write(beir / "corpus.jsonl", [{"_id": "d1", "text": "x", "title": 7}])
    with pytest.raises(ValueError, match=r"line 1: title is 7, not a text"):
        evaluate(encode, [beir])
    write(beir / "corpus.jsonl", [{"id": "d1", "text": "x"}])
    with pytest.raises(ValueError, match=r"corpus.jsonl, line 1: a row has _id and text, not id"):
        evaluate(encode, [beir])


def test_mistakes_in_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [{"text": "x", "label": "a"}, {"text": "y", "label": None}])
    with pytest.raises(ValueError, match=r"x.jsonl, line 2: a row has text and label"):
        evaluate(encode, [path])
    path = write(tmp_path / "x.jsonl", [{"text": "x", "label": "a"}])
    with pytest.raises(ValueError, match=r"has the one label 'a': there is nothing to tell apart"):
        evaluate(encode, [path])
    write_labelled(tmp_path / "train.jsonl", 4, 0)
    test = write(
        tmp_path / "test.jsonl", [{"text": "x", "label": "sea"}, {"text": "y", "label": "z"}]
    )
    with pytest.raises(
        ValueError, match=r"test.jsonl has the label 'z', which .*train.jsonl lacks"
    ):
        evaluate(encode, [test])


def test_mistakes_in_paths(tmp_path: Path, pairs: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="has neither corpus.jsonl nor test.jsonl: give a file of"):
        evaluate(encode, [tmp_path])
    with pytest.raises(ValueError, match=r"notes.txt does not end in one of .jsonl"):
        evaluate(encode, [tmp_path / "notes.txt"])
    with pytest.raises(FileNotFoundError):
        evaluate(encode, [tmp_path / "nothing.jsonl"])
    path = write(tmp_path / "x.jsonl", [{"query": "x", "positive": "y"}])
    with pytest.raises(ValueError, match="x.jsonl has the columns query, positive: give a file of"):
        evaluate(encode, [path])
    with pytest.raises(ValueError, match="another set is called 'sts', too"):
        evaluate(encode, [pairs(), pairs()])
