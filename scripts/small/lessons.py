"""What the student copies from the teacher: groups of texts that are to be told apart.

A group is a query with its passage and perhaps a wrong one, or a single text. Columns and rules
of the mined pairs are those of pairs.py.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pairs as mine
from transformers import PreTrainedTokenizerFast

Floats = npt.NDArray[np.float32]
Group = tuple[str, ...]
SHARD = 8192  # groups whose vectors the teacher computes and stores at once


def word_sampler(
    tokenizer: PreTrainedTokenizerFast, share: npt.NDArray[np.float64]
) -> tuple[list[str], list[float]]:
    """Whole words of the vocabulary and running weights that favour rare ones."""
    entries = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    known = [(entry[1:], share[i]) for entry, i in entries if re.fullmatch("Ġ[a-z]{3,}", entry)]
    weights = np.cumsum([(part + 1e-7) ** 0.3 for _, part in known])
    return [word for word, _ in known], weights.tolist()


def salads(
    words: Sequence[str], weights: Sequence[float], count: int, rng: random.Random
) -> Iterator[Group]:
    """One to eight words that have nothing to do with each other."""
    for _ in range(count):
        yield (" ".join(rng.choices(words, cum_weights=weights, k=rng.randint(1, 8))),)


def altered(
    sentences: Iterable[str], words: Sequence[str], weights: Sequence[float], rng: random.Random
) -> Iterator[Group]:
    """Sentences with a quarter of their longer words replaced by any others."""
    for sentence in sentences:
        parts = sentence.split()
        for i, part in enumerate(parts):
            if len(part) > 3 and rng.random() < 0.25:
                parts[i] = rng.choices(words, cum_weights=weights)[0]
        yield (" ".join(parts),)


def read_groups(
    data: Path, tokenizer: PreTrainedTokenizerFast, share: npt.NDArray[np.float64], seed: int
) -> list[Group]:
    """All groups, shuffled, so that any first part of them is a fair sample."""
    rng = random.Random(seed)
    words, weights = word_sampler(tokenizer, share)
    sentences = mine.read_lines(data / "train/sentences.txt.gz")
    tables = mine.read_tables(data, rng)
    groups = [group for table in tables.values() for group in table]
    groups += [(sentence,) for sentence in sentences]
    groups += salads(words, weights, 120_000, rng)
    groups += altered(sentences[:60_000], words, weights, rng)
    rng.shuffle(groups)
    return groups


def bare(text: str) -> str:
    """The text as the teacher reads it: without our query prefix."""
    return text.removeprefix(mine.QUERY)


@dataclass(frozen=True)
class Lessons:
    """Texts and the teacher's vectors for them; `bounds[i]:bounds[i + 1]` is group i."""

    texts: list[str]
    bounds: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float16]


def write_lessons(
    groups: Sequence[Group], encode: Callable[[Sequence[str]], Floats], folder: Path
) -> None:
    """Compute the teacher's vectors shard by shard; shards that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(groups), SHARD)):
        target = folder / f"{number:03d}.npy"
        if target.exists():
            continue
        chosen = groups[start : start + SHARD]
        texts = [bare(text) for group in chosen for text in group]
        vectors = encode(texts).astype(np.float16)
        lines = "".join(json.dumps(group, ensure_ascii=False) + "\n" for group in chosen)
        target.with_suffix(".jsonl").write_text(lines, encoding="utf-8")
        partial = folder / "partial.npy"
        np.save(partial, vectors)
        partial.replace(target)
        print(f"teacher: shard {number + 1} of {-(-len(groups) // SHARD)}", flush=True)
    (folder / "done").touch()


def read_lessons(folder: Path) -> Lessons:
    """All shards that are there."""
    shards = sorted(folder.glob("[0-9]*.npy"))
    lines = [shard.with_suffix(".jsonl").read_text(encoding="utf-8") for shard in shards]
    groups = [json.loads(line) for part in lines for line in part.splitlines()]
    sizes = [len(group) for group in groups]
    return Lessons(
        [text for group in groups for text in group],
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([np.load(shard) for shard in shards]),
    )
