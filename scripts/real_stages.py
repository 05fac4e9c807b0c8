"""Every stage of training for two updates with LoRA, from a real language model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_embeddings import Encoder
from llm_embeddings.training import (
    GRIT,
    MNTP,
    Contrastive,
    LLaRA,
    SimCSE,
    train_contrastive,
    train_grit,
    train_llara,
    train_mntp,
    train_simcse,
)
from llm_embeddings.training.options import LoraOptions

UPDATES = 2
LLM = "llm"  # what a stage starts from that starts from no other


class FailedError(Exception):
    """Something is not as it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage as it is tried.

    Attributes:
        name: Of its result.
        start: The result that it starts from.
        data: "texts" or "pairs".
        options: Its options, a class.
        train: Trains.
        converses: Whether it also learns from conversations.
        more: Options of its own.
    """

    name: str
    start: str = LLM
    data: str
    options: Callable[..., Any]
    train: Callable[[Any], Path]
    converses: bool = False
    more: dict[str, Any]


STAGES = (
    Stage(name="mntp", data="texts", options=MNTP, train=train_mntp, more={"block_length": 16}),
    Stage(name="simcse", start="mntp", data="texts", options=SimCSE, train=train_simcse, more={}),
    Stage(
        name="contrastive",
        start="simcse",
        data="pairs",
        options=Contrastive,
        train=train_contrastive,
        more={"negatives": 0},
    ),
    Stage(name="llara", data="texts", options=LLaRA, train=train_llara, more={"words": 8}),
    Stage(
        name="grit",
        data="pairs",
        options=GRIT,
        train=train_grit,
        converses=True,
        more={
            "negatives": 0,
            "generative_batch_size": 4,
            "chat_format": "tokenizer",
        },
    ),
)


def must(holds: bool, what: str) -> None:
    """Check a fact.

    Raises:
        FailedError: it does not hold.
    """
    if not holds:
        raise FailedError(what)


def opened(model: Path, recipe: Any = None) -> Encoder:
    """An encoder whose numbers can be compared."""
    return Encoder.from_pretrained(str(model), recipe=recipe, dtype="float32")


def trained(llm: Path, work: Path, questions: Sequence[str], texts: Sequence[str]) -> Iterator[str]:
    """Train every stage, and say what was seen of each.

    Args:
        llm: The language model.
        work: Where data and results are written, each result under its stage's name.
        questions: One for each text.
        texts: What answers them.

    Raises:
        FailedError: a loss or a vector is no number, or training changed no vector.
    """
    rows = list(zip(questions, texts, strict=True))
    files: dict[str, list[Any]] = {
        "texts": [{"text": text} for text in (*questions, *texts)],
        "pairs": [{"query": question, "pos": text} for question, text in rows],
        "talks": [{"text": [question, text]} for question, text in rows],
    }
    for name, lines in files.items():
        path = work / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    for stage in STAGES:
        start = llm if stage.start == LLM else work / stage.start
        talks = {"generative": (str(work / "talks.jsonl"),)} if stage.converses else {}
        options = stage.options(
            model=str(start),
            output=work / stage.name,
            data=(str(work / f"{stage.data}.jsonl"),),
            max_steps=UPDATES,
            batch_size=4,
            learning_rate=1e-3,
            warmup=0.0,
            lora=LoraOptions(),
            show_progress=False,
            **talks,
            **stage.more,
        )
        yield seen(stage, start, stage.train(options), texts)


def seen(stage: Stage, start: Path, result: Path, texts: Sequence[str]) -> str:
    """What a stage's result shows.

    Raises:
        FailedError: a loss or a vector is no number, or training changed no vector.
    """
    lines = (result / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    must(bool(losses) and all(map(math.isfinite, losses)), f"{stage.name}: losses are {losses}")
    encoder = opened(result)
    vectors = encoder.encode_document(list(texts))
    must(bool(np.isfinite(vectors).all()), f"{stage.name}: vectors hold what is no number")
    if stage.options is LLaRA:  # its tokens are new: what it started from has no such vectors
        must(len(encoder.tokenizer) > len(opened(start, "mean").tokenizer), "llara: no new tokens")
        return f"{stage.name}: loss {losses[-1]:.3f}, its eight tokens are there"
    before = opened(start, encoder.recipe).encode_document(list(texts))
    changed = float(np.abs(vectors - before).max())
    must(changed > 1e-4, f"{stage.name}: training changed no vector")
    return f"{stage.name}: loss {losses[-1]:.3f}, vectors changed by up to {changed:.3f}"
