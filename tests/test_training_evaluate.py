"""Metrics equal scipy's and scikit-learn's, and the errors say what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

from llm_embeddings import Encoder
from llm_embeddings.training.evaluate import (
    Score,
    evaluate,
    ndcg,
    retrieval,
    similarity,
    spearman,
)


def encode(texts: list[str], role: str) -> Any:
    """Counts of letters: equal texts are equal, whatever their role."""
    return np.array([[text.count(letter) for letter in "abcdef"] for text in texts], np.float32)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """Two queries that can be found, one without relevant documents."""
    folder = tmp_path / "animals"
    corpus = [("d1", "aaa", ""), ("d2", "b", "bb"), ("d3", "ab", ""), ("q2", "cc", "")]
    write(
        folder / "corpus.jsonl",
        [{"_id": name, "title": title, "text": text} for name, text, title in corpus],
    )
    queries = {"q1": "aab", "q2": "cc", "q3": "d"}
    write(folder / "queries.jsonl", [{"_id": name, "text": queries[name]} for name in queries])
    qrels = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t1\nq1\td3\t0\nq2\td3\t1\nq3\td1\t0\n"
    (folder / "qrels.tsv").write_text(qrels)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., Path]:
    def make(count: int = 30) -> Path:
        rng = np.random.default_rng(0)
        texts = ["".join(rng.choice(list("abcdef"), 6)) for _ in range(count)]
        rows = [
            {"a": text, "b": texts[place // 2], "score": place % 5}
            for place, text in enumerate(texts)
        ]
        return write(tmp_path / "sts.jsonl", rows)

    return make


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
    scores = retrieval(encode, beir, resamples=0)
    # q1 finds d3, d1, d2 with gains 0, 2, 1; q2 finds d1, d2, d3, for its namesake is no hit.
    first = (2 / np.log2(3) + 1 / 2) / (2 + 1 / np.log2(3))
    assert scores["ndcg@10"].value == pytest.approx((first + 1 / 2) / 2)
    assert scores["mrr@10"].value == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert scores["recall@100"].value == 1
    assert scores["ndcg@10"].count == 2


def test_qrels_may_lie_in_a_folder(beir: Path) -> None:
    expected = retrieval(encode, beir)
    (beir / "qrels").mkdir()
    (beir / "qrels.tsv").rename(beir / "qrels" / "test.tsv")
    assert retrieval(encode, beir) == expected


def test_intervals_hold_the_value_and_repeat(beir: Path, pairs: Callable[..., Path]) -> None:
    for score in (similarity(encode, pairs()), retrieval(encode, beir)["mrr@10"]):
        assert score.low <= score.value <= score.high
        assert score.low < score.high
    assert similarity(encode, pairs()) == similarity(encode, pairs())
    assert similarity(encode, pairs(), seed=1) != similarity(encode, pairs())


def test_more_pairs_narrow_the_interval(pairs: Callable[..., Path]) -> None:
    few = similarity(encode, pairs(30))
    many = similarity(encode, pairs(480))
    # The width goes with one over the square root of the count: here to a quarter.
    assert 0.15 < (many.high - many.low) / (few.high - few.low) < 0.4


def test_repeated_sentences_are_embedded_once(pairs: Callable[..., Path]) -> None:
    given: list[str] = []

    def counting(texts: list[str], role: str) -> Any:
        given.extend(texts)
        return encode(texts, role)

    similarity(counting, pairs())
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


def test_mistakes(beir: Path, pairs: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 2 pairs: a correlation needs at least three"):
        similarity(encode, pairs(2))
    path = write(tmp_path / "x.jsonl", [{"a": "x", "b": "y"}])
    with pytest.raises(ValueError, match="x.jsonl, line 1: score is None, not a number"):
        similarity(encode, path)
    path = write(tmp_path / "x.jsonl", [{"a": "x", "score": 1}])
    with pytest.raises(ValueError, match="x.jsonl, line 1: a pair has the texts a and b"):
        similarity(encode, path)
    with pytest.raises(ValueError, match="vectors that are not finite"):
        similarity(lambda texts, role: np.full((len(texts), 2), np.nan), pairs())
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1 d1 1\n")
    with pytest.raises(ValueError, match=r"qrels.tsv, line 2 is not query-id, corpus-id, score"):
        retrieval(encode, beir)
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t0\n")
    with pytest.raises(ValueError, match="no query of .* has a relevant document"):
        retrieval(encode, beir)
    write(beir / "corpus.jsonl", [{"id": "d1", "text": "x"}])
    with pytest.raises(ValueError, match=r"corpus.jsonl, line 1: a row has _id and text, not id"):
        retrieval(encode, beir)
