"""What the experiment trains and is measured on: small cuts of the data, kept apart."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from experiment_sizes import Size

SETS = ("dbpedia_5k", "cranfield", "xquad_en_sent")  # none of whose texts is trained on
SOURCES = {"medquad": 4000, "openstax-glossary": 4000, "snli": 4000}
SENTENCES, DOCUMENTS = 10_000, 600
LANGUAGE = {"wikitext2": "lm_eval/wikitext2_test.txt", "held_out": "train/valid.txt.gz"}
CHARACTERS = 60_000


def prepare(data: Path, work: Path, size: Size) -> None:
    """Write all cuts into `work/train` and `work/evaluation`, unless they are there."""
    if (work / "ready").exists():
        return
    train, evaluation = work / "train", work / "evaluation"
    for folder in (train, evaluation):
        folder.mkdir(parents=True, exist_ok=True)
    for name in size.sets:
        cut_set(data / "retrieval" / name, evaluation / name, size)
    known = evaluation_texts(data)
    sentences = lines(data / "train/sentences.txt.gz")
    write(train / "sentences.txt", unknown(sentences, known, SENTENCES))
    documents = lines(data / "train/train.txt.gz")
    write(train / "documents.txt", unknown(documents, known, DOCUMENTS))
    rows = [json.loads(line) for line in lines(data / "train/triplets_en.jsonl.gz")]
    random.Random(13).shuffle(rows)
    for source, count in SOURCES.items():
        kept = [
            {name: row[name] for name in ("query", "pos", "neg")}
            for row in rows
            if row["source"] == source
            and known.isdisjoint(map(plain, (row["query"], *row["pos"], *row["neg"])))
        ]
        write(train / f"{source}.jsonl", map(json.dumps, kept[:count]))
    (work / "ready").touch()


def cut_set(source: Path, target: Path, size: Size) -> None:
    """A retrieval set with fewer documents and queries, drawn; judgements of what is left."""
    target.mkdir(exist_ok=True)
    rng = random.Random(13)
    corpus = read_jsonl(source / "corpus.jsonl")
    corpus = rng.sample(corpus, min(size.corpus, len(corpus)))
    kept = {row["_id"] for row in corpus}
    head, *judged = (source / "qrels.tsv").read_text(encoding="utf-8").splitlines()
    judged = [line for line in judged if line.split("\t")[1] in kept]
    asked = {line.split("\t")[0] for line in judged}
    queries = [row for row in read_jsonl(source / "queries.jsonl") if row["_id"] in asked]
    queries = rng.sample(queries, min(size.queries, len(queries)))
    write(target / "corpus.jsonl", map(json.dumps, corpus))
    write(target / "queries.jsonl", map(json.dumps, queries))
    write(target / "qrels.tsv", [head, *judged])


def evaluation_texts(data: Path) -> set[str]:
    """Every text of an evaluation set, as `plain` has it, so that none is trained on."""
    found = set()
    for row in read_jsonl(data / "sts/stsb_en_dev.jsonl"):
        found |= {plain(row["a"]), plain(row["b"])}
    for name in SETS:
        for file in ("corpus.jsonl", "queries.jsonl"):
            found |= {plain(row["text"]) for row in read_jsonl(data / "retrieval" / name / file)}
    return found


def plain(text: str) -> str:
    """Lower-case words alone: what two spellings of one text have in common."""
    return " ".join(re.findall(r"\w+", text.lower()))


def unknown(texts: Iterable[str], known: set[str], count: int) -> Iterator[str]:
    """The first `count` texts that are not known."""
    kept = (text for text in texts if plain(text) not in known)
    return (text for _, text in zip(range(count), kept, strict=False))


def lines(path: Path) -> Iterator[str]:
    """Lines of a gzipped UTF-8 file that are not empty."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from (line.strip() for line in stream if line.strip())


def language_text(data: Path, name: str) -> str:
    """The first `CHARACTERS` of a text for the language model."""
    path = data / LANGUAGE[name]
    text = "\n".join(lines(path)) if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return text[:CHARACTERS]


def read_jsonl(path: Path) -> list[Any]:
    """All rows."""
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def write(path: Path, rows: Iterable[str]) -> None:
    """A line for each row."""
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
