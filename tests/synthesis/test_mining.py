"""Mined negatives: the right ranks, no known or likely positives, ready for training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_embeddings import Encoder
from llm_embeddings.corpus import load_corpus
from llm_embeddings.ranking import nearest
from llm_embeddings.ranking.bm25 import words
from llm_embeddings.records.examples import read_examples
from llm_embeddings.records.sources import Source, sources_of
from llm_embeddings.synthesis.mining import candidates
from llm_embeddings.synthesis.mining.candidates import dense, lexical
from llm_embeddings.synthesis.mining.mine import Mining, mine

FREE = Mining(negatives=3, ratio=None, choice="hardest")


@pytest.fixture
def encoder(e5: Encoder) -> Encoder:
    return e5


@pytest.fixture(scope="module")
def passages() -> list[str]:
    return [document.passage for document in load_corpus()][:60]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path: Path, passages: list[str]) -> Path:
    rows = [
        {"query": " ".join(text.split()[3:9]), "positive": text, "source": "demo"}
        for text in passages[:12]
    ]
    return write(tmp_path / "pairs.jsonl", rows)


@pytest.fixture
def corpus(tmp_path: Path, passages: list[str]) -> Path:
    return write(tmp_path / "corpus.jsonl", [{"text": text} for text in passages])


def test_hardest_negatives_are_the_nearest_passages(
    tmp_path: Path, pairs: Path, corpus: Path, passages: list[str], encoder: Encoder
) -> None:
    mined = mine([pairs], tmp_path / "out", encoder, FREE, corpus=[corpus])
    assert (mined.queries, mined.passages, mined.full) == (12, 60, 12)
    before = list(read_examples(Source(pairs)))
    after = [e for s in sources_of([tmp_path / "out"]) for e in read_examples(s, negatives=True)]
    vectors = encoder.encode_document(passages, normalize=True)
    for old, new in zip(before, after, strict=True):
        scores = vectors @ encoder.encode_query(old.query, normalize=True)
        nearest = [passages[i] for i in np.argsort(-scores) if passages[i] not in old.positives]
        assert list(new.negatives) == nearest[:3]
        assert (new.query, new.positives, new.source) == (old.query, old.positives, "demo")


def test_ranks_are_a_window(tmp_path: Path, pairs: Path, corpus: Path, encoder: Encoder) -> None:
    mine([pairs], tmp_path / "all", encoder, Mining(negatives=9, ratio=None, choice="hardest"),
         corpus=[corpus])  # fmt: skip
    window = Mining(negatives=3, ranks=(5, 7), ratio=None)
    mine([pairs], tmp_path / "some", encoder, window, corpus=[corpus])
    everything = list(read_examples(Source(tmp_path / "all" / "pairs.jsonl")))
    some = list(read_examples(Source(tmp_path / "some" / "pairs.jsonl")))
    assert [e.negatives[4:7] for e in everything] == [e.negatives for e in some]


@pytest.mark.parametrize(
    "limits", [{"ratio": 0.8}, {"ratio": None, "margin": 0.15}, {"ratio": None, "lowest": 0.2}]
)
def test_scores_stay_within_limits(
    tmp_path: Path, pairs: Path, corpus: Path, encoder: Encoder, limits: dict[str, Any]
) -> None:
    mined = mine([pairs], tmp_path / "out", encoder, Mining(negatives=5, **limits), corpus=[corpus])
    assert sum(mined.refused.values()) > 0
    assert mined.full + mined.short + mined.dropped == 12
    for example in read_examples(Source(tmp_path / "out" / "pairs.jsonl")):
        query = encoder.encode_query(example.query, normalize=True)
        positive = encoder.encode_document(example.positives[0], normalize=True) @ query
        scores = encoder.encode_document(list(example.negatives), normalize=True) @ query
        if "lowest" in limits:
            assert scores.min() >= 0.2 - 1e-5
        else:
            margin = limits.get("margin", (1 - (limits["ratio"] or 1)) * positive)
            assert scores.max() <= positive - margin + 1e-5


def test_every_known_positive_is_left_out(tmp_path: Path, encoder: Encoder) -> None:
    rows = [
        {"query": "who purrs", "positive": "Cats purr."},
        {"query": "Who  purrs", "positive": "Kittens purr."},
        {"query": "what barks", "positive": "Dogs bark.", "negative": "Wolves howl."},
    ]
    texts = ["cats PURR.", "who purrs", "Lions roar.", "Wolves howl.", "Tigers purr a little."]
    pairs = write(tmp_path / "pairs.jsonl", rows)
    (tmp_path / "corpus.txt").write_text("\n".join(texts))
    mine([pairs], tmp_path / "out", encoder, FREE, corpus=[tmp_path / "corpus.txt"])
    cats, kittens, dogs = read_examples(Source(tmp_path / "out" / "pairs.jsonl"))
    for example in (cats, kittens):
        assert not {"cats PURR.", "Kittens purr.", "who purrs"} & set(example.negatives)
    assert dogs.negatives[0] == "Wolves howl."  # the one that it had
    assert len(dogs.negatives) == len(set(dogs.negatives)) == 3


def test_bm25_finds_shared_words(tmp_path: Path, pairs: Path, corpus: Path) -> None:
    mined = mine([pairs], tmp_path / "out", None, FREE, corpus=[corpus])
    assert mined.full + mined.short == 12
    for example in read_examples(Source(tmp_path / "out" / "pairs.jsonl")):
        asked = set(words(example.query))
        assert all(asked & set(words(text)) for text in example.negatives)
    report = json.loads((tmp_path / "out" / "mining.json").read_text(encoding="utf-8"))
    assert report["scorer"] == "BM25"


def test_bm25_of_words_nobody_has() -> None:
    found = lexical(["zzz", "cats"], ["Cats purr.", "Dogs bark."], [[0], [0]], 2)
    assert found.places.tolist() == [[-1, -1], [0, -1]]
    assert found.positive[0] == 0
    assert words("Cats 灯塔守 it's") == ["cats", "灯塔", "塔守", "it", "s"]


def test_the_random_choice_follows_the_seed(
    tmp_path: Path, pairs: Path, corpus: Path, encoder: Encoder
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = Mining(negatives=3, ranks=(1, 20), ratio=None, seed=seed)
        mine([pairs], tmp_path / name, encoder, options, corpus=[corpus])
    a, b, c = [(tmp_path / name / "pairs.jsonl").read_text(encoding="utf-8") for name in "abc"]
    assert a == b != c


def test_faiss_agrees_with_all_comparisons(
    monkeypatch: pytest.MonkeyPatch, encoder: Encoder
) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(1200)]
    queries = np.asarray(encoder.encode_query(texts[:20], normalize=True))
    own = [[i] for i in range(20)]
    exact = dense(encoder, queries, texts, own, 10)
    monkeypatch.setattr(candidates, "FAISS_FROM", 1_000)
    approximate = dense(encoder, queries, texts, own, 10)
    shared = [len({*a} & {*b}) for a, b in zip(exact.places, approximate.places, strict=True)]
    assert np.mean(shared) > 8
    np.testing.assert_allclose(exact.positive, approximate.positive)


def test_parts_of_a_corpus_and_vectors_on_disk_change_nothing(
    monkeypatch: pytest.MonkeyPatch, encoder: Encoder, passages: list[str]
) -> None:
    queries = np.asarray(encoder.encode_query(passages[:9], normalize=True))
    own = [[i] for i in range(9)]
    whole = dense(encoder, queries, passages, own, 7)
    monkeypatch.setattr(candidates, "_IN_MEMORY", 0)
    for name, value in (("_SCORED_AT_ONCE", 11), ("_QUERIES_AT_ONCE", 4)):
        monkeypatch.setattr(nearest, name, value)
    parts = dense(encoder, queries, passages, own, 7)
    np.testing.assert_array_equal(whole.places, parts.places)
    np.testing.assert_allclose(whole.scores, parts.scores, atol=1e-6)


def test_instructions_stay_with_their_texts(tmp_path: Path, encoder: Encoder) -> None:
    rows = [{"instruction": "Find.", "query": f"q {i}", "positive": f"p {i}"} for i in range(5)]
    pairs = Source(write(tmp_path / "pairs.jsonl", rows), symmetric=True)
    mine([pairs], tmp_path / "out", encoder, FREE)
    for example in read_examples(Source(tmp_path / "out" / "pairs.jsonl")):
        assert (example.instruction, example.document_instruction) == ("Find.", "Find.")
        assert len(example.negatives) == 3


def test_mistakes(tmp_path: Path, pairs: Path, encoder: Encoder) -> None:
    few = write(tmp_path / "few.jsonl", [{"query": "q", "positive": "p"}])
    with pytest.raises(ValueError, match="1 different passages cannot give 3 negatives"):
        mine([few], tmp_path / "out", encoder, FREE)
    full = tmp_path / "full"
    full.mkdir()
    (full / "a").write_text("a")
    with pytest.raises(ValueError, match="holds files"):
        mine([pairs], full, encoder, FREE)
    with pytest.raises(ValueError, match="is a file"):
        mine([pairs], pairs, encoder, FREE)
    with pytest.raises(ValueError, match="the same name"):
        mine([pairs, pairs], tmp_path / "out", encoder, FREE)
    with pytest.raises(FileNotFoundError):
        mine([pairs], tmp_path / "out", encoder, FREE, corpus=[tmp_path / "none.jsonl"])
    odd = write(tmp_path / "odd.jsonl", [{"x": 1}])
    with pytest.raises(ValueError, match="a passage is expected in one of"):
        mine([pairs], tmp_path / "out", encoder, FREE, corpus=[odd])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"negatives": 0}, "at least one"),
        ({"ranks": (0, 5)}, "from 1"),
        ({"ranks": (1, 5)}, "are fewer than the 7"),
        ({"ratio": 1.5}, r"not in \(0, 1\]"),
        ({"margin": -1}, "0 or more"),
        ({"choice": "best"}, "is not random or hardest"),
    ],
)
def test_options_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mining(**given)


def test_scores_are_the_teachers_cosines(
    tmp_path: Path, pairs: Path, corpus: Path, encoder: Encoder
) -> None:
    """As training reads them, beside every text of a row."""
    mine([pairs], tmp_path / "out", encoder, FREE, corpus=[corpus], scores=True)
    (file,) = (tmp_path / "out").glob("*.jsonl")
    examples = list(read_examples(Source(file), negatives=True, scores=True))
    assert examples
    for example in examples:
        texts = [*example.positives, *example.negatives]
        query = encoder.encode_query([example.query], instruction=example.instruction)
        wanted = encoder.encode_document(texts) @ query[0]
        np.testing.assert_allclose(example.scores, wanted, atol=1e-5)
    with pytest.raises(ValueError, match="scores=True needs an encoder"):
        mine([pairs], tmp_path / "lexical", None, FREE, corpus=[corpus], scores=True)
