"""Queries that are held out: which, how they are scored, what a run tells of them."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.training import WORDS, quick, triplets, write_rows
from helpers.training_files import read_metrics

from llm_embeddings import Encoder
from llm_embeddings.evaluation import evaluate
from llm_embeddings.records.examples import read_examples
from llm_embeddings.records.sources import sources_of
from llm_embeddings.training import contrastive
from llm_embeddings.training.contrastive import Contrastive, train_contrastive
from llm_embeddings.training.held_out import HeldOut, summary


def held_out(share: float, data: str, **more: Any) -> HeldOut:
    options: dict[str, Any] = {"seed": 1, "instruction": "Find"} | more
    return HeldOut(share, sources_of([data]), read_examples, **options)


@pytest.mark.slow
def test_a_query_is_either_trained_or_held_out(tmp_path: Path) -> None:
    rows = [{"query": f"q {n % 60}", "pos": f"p {n}", "neg": f"n {n}"} for n in range(240)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    stage = contrastive._Stage(Contrastive(**quick(tmp_path, data, held_out=0.3, seed=1)))
    trained = {pair.query for batch in islice(stage.batches(0), 60) for pair in batch}
    kept = {example.query for example in held_out(0.3, data).examples}
    assert trained | kept == {f"q {n}" for n in range(60)}
    assert not trained & kept
    assert 8 <= len(kept) <= 28
    other = {example.query for example in held_out(0.3, data, seed=2).examples}
    assert other != kept
    assert held_out(0.0, data).examples == ()
    with pytest.raises(ValueError, match="held_out=1e-09 of this data"):
        held_out(1e-9, data)


def test_scores_are_those_of_an_evaluation_set(tmp_path: Path) -> None:
    """The same rows in BEIR's form; the vectors are those of letters, not of meaning."""
    lines = Path(triplets(tmp_path / "stones.jsonl", 40)).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows[::2]:
        row["instruction"] = "Name"
    data = write_rows(tmp_path / "mixed.jsonl", rows)
    held = held_out(0.5, data)

    def encode(texts: list[str], role: str, instruction: str | None = None) -> Any:
        assert instruction in {"query": ("Find", "Name", None), "document": ("", None)}[role]
        return np.array([[text.count(x) + 0.1 for x in "abcdegilrtw0123456789"] for text in texts])

    corpus: dict[str, int] = {}
    queries, lines = [], ["query-id\tcorpus-id\tscore"]
    for number, row in enumerate(held.examples):
        queries.append({"_id": f"q{number}", "text": row.query})
        for text in (*row.positives, *row.negatives):
            corpus.setdefault(text, len(corpus))
        lines += [f"q{number}\td{corpus[text]}\t1" for text in row.positives]
    folder = tmp_path / "beir"
    folder.mkdir()
    write_rows(folder / "queries.jsonl", queries)
    write_rows(folder / "corpus.jsonl", [{"_id": f"d{n}", "text": t} for t, n in corpus.items()])
    (folder / "qrels.tsv").write_text("\n".join(lines) + "\n")
    wanted = evaluate(encode, [folder], cuts=[("ndcg", 10)], resamples=0)["beir/ndcg@10"]
    assert 0 < wanted.value < 1
    assert np.mean(held.scores(encode)) == pytest.approx(wanted.value)


@pytest.mark.slow
def test_a_run_tells_what_it_brought_also_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"query": f"{WORDS[n % 10]} {n}", "pos": f"{n} and {WORDS[n % 10]}", "neg": f"none {n}"}
        for n in range(40)
    ]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    more: dict[str, Any] = {"held_out": 0.4, "save_every": 1, "max_steps": 3, "learning_rate": 0.01}
    options = quick(tmp_path, data, **more)
    whole = train_contrastive(Contrastive(**options))
    values = json.loads((whole / "held_out.json").read_text())
    last = read_metrics(whole)[-1]
    assert last["held_out/before"] == pytest.approx(np.mean(values["before"]))
    gain = np.mean(values["after"]) - np.mean(values["before"])
    assert last["held_out/gain"] == pytest.approx(gain)
    assert last["held_out/gain_low"] <= gain <= last["held_out/gain_high"]
    assert gain != 0
    count = len(values["before"])
    assert summary(whole).startswith(
        f"{count} held-out queries: nDCG@10 {last['held_out/before']:.3f} ["
    )

    real, calls = contrastive._Stage.update, []

    def stopped(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    options["output"] = tmp_path / "again"
    with monkeypatch.context() as patch:
        patch.setattr(contrastive._Stage, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            train_contrastive(Contrastive(**options))
    assert summary(tmp_path / "again") == ""
    resumed = train_contrastive(Contrastive(**options, resume=True))
    assert summary(resumed) == summary(whole)

    # What comes out scores as the run said of it.
    encoder = Encoder.from_pretrained(resumed, dtype="float32")
    held = HeldOut(0.4, sources_of([data]), read_examples, seed=42, instruction=None)
    found = held.scores(lambda texts, role, asked: encoder.encode(texts, role, asked))
    assert np.mean(found) == pytest.approx(np.mean(values["after"]), abs=0.02)
