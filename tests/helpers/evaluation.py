"""Small sets of every kind, and an encoder that counts letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def encode(texts: list[str], role: str) -> Any:
    """Counts of letters: equal texts are equal, whatever their role."""
    return np.array([[text.count(letter) for letter in "abcdef"] for text in texts], np.float32)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_beir(folder: Path) -> Path:
    """Two queries that can be found, one without relevant documents; q2 is a document, too."""
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


WORDS = {
    "sea": "ship wave tide harbour sail anchor reef coral whale storm".split(),
    "bread": "flour oven dough yeast crust baker loaf butter wheat salt".split(),
    "law": "court judge jury verdict appeal statute clause witness oath trial".split(),
}


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts with their labels: words of one subject, and one of any."""
    rng = np.random.default_rng(seed)
    found = []
    for place in range(count):
        label = list(WORDS)[place % len(WORDS)]
        anything = rng.choice([word for words in WORDS.values() for word in words])
        found.append((" ".join([*rng.choice(WORDS[label], 3, replace=False), anything]), label))
    return found


def write_labelled(path: Path, count: int, seed: int) -> Path:
    rows = [{"text": text, "label": label} for text, label in sentences(count, seed)]
    return write(path, rows)


def write_retrieval(folder: Path) -> Path:
    """Thirty documents; queries are two words of one, and judged by what they share."""
    texts = [text for text, _ in sentences(30, 1)]
    write(
        folder / "corpus.jsonl",
        [
            {"_id": str(number), "title": "a note", "text": f"{text} {number}"}
            for number, text in enumerate(texts)
        ],
    )
    queries, qrels = [], ["query-id\tcorpus-id\tscore"]
    for number in range(0, 30, 3):
        words = texts[number].split()[:2]
        queries.append({"_id": str(number), "text": " ".join(words)})
        for place, text in enumerate(texts):
            shared = len(set(words) & set(text.split()))
            qrels += [f"{number}\t{place}\t{shared}"] if shared else []
    write(folder / "queries.jsonl", queries)
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n")
    return folder


def write_pairs(path: Path, count: int = 30) -> Path:
    """Texts of letters, each beside an earlier one."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdef"), 6)) for _ in range(count)]
    rows = [
        {"a": text, "b": texts[place // 2], "score": place % 5} for place, text in enumerate(texts)
    ]
    return write(path, rows)
