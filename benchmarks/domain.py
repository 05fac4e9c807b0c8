"""`python -m benchmarks.domain SET OUTPUT`: from documents to a model that knows their domain.

For the documents of a set in BEIR's form: queries by a scripted generator, filters, hard negatives,
contrastive training of the bundled model, and retrieval on the set's own queries before and after.
The generator is no language model: it puts words of a passage that are rare elsewhere into a row.
What it can show is that each step feeds the next, and what training on a domain's words brings.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from llm_embeddings import Encoder
from llm_embeddings.encoder import BUNDLED_MODEL
from llm_embeddings.evaluation.measures import retrieval
from llm_embeddings.evaluation.sets import read_retrieval
from llm_embeddings.synthesis.calls.generators import Prompt, Reply
from llm_embeddings.synthesis.filters.chain import Filters, apply_filters
from llm_embeddings.synthesis.filters.report import rejected_by, write_report
from llm_embeddings.synthesis.grounding import GroundingPassage, read_grounding
from llm_embeddings.synthesis.mining.mine import Mining, mine
from llm_embeddings.synthesis.placeholders import Sampler
from llm_embeddings.synthesis.rows import rows_of, write_rows
from llm_embeddings.synthesis.run import Plan, generate
from llm_embeddings.training.contrastive import Contrastive, train_contrastive

_PASSAGE = re.compile(r"<passage>\n(.*)\n</passage>", re.S)
_WORD = re.compile(r"[^\W\d_]{3,}")
_LENGTHS = {"less than 5 words": (3, 4), "5 to 15 words": (5, 10), "at least 10 words": (10, 14)}


class ScriptedGenerator:
    """Writes queries of salient words; the same prompt and seed give the same query."""

    name = "scripted:salient-words-1"

    def __init__(self, passages: Sequence[GroundingPassage]) -> None:
        """Count in how many passages each word stands."""
        self._counts = Counter(
            word for passage in passages for word in set(_WORD.findall(passage.text.lower()))
        )
        self._total = len(passages)

    async def __call__(self, prompt: Prompt) -> Reply:
        """A JSON object, as a model would give it."""
        rng = random.Random(prompt.seed)
        match = _PASSAGE.search(prompt.text)
        assert match is not None, "only queries for passages are written here"
        words = list(dict.fromkeys(_WORD.findall(match[1].lower())))
        least, most = next(span for asked, span in _LENGTHS.items() if asked in prompt.text)
        wanted = min(rng.randint(least, most), len(words))
        weights = [math.log(self._total / self._counts.get(word, 1)) + 1e-3 for word in words]
        # Efraimidis and Spirakis: draws by weight, without replacement.
        keys = {w: rng.random() ** (1 / weight) for w, weight in zip(words, weights, strict=True)}
        drawn = sorted(words, key=lambda word: -keys[word])[:wanted]
        return Reply(f'{{"user_query": "{" ".join(w for w in words if w in drawn)}"}}')


def make(corpus: Path, queries: Path, run: Path, examples: int, encoder: Encoder) -> None:
    """Generate, filter and write what is kept."""
    passages = read_grounding([corpus], output=run)
    sampler = Sampler(0, groups={"grounded": 1})
    plan = Plan(examples=examples, sampler=sampler, passages=passages.found)
    summary = generate(run, plan, ScriptedGenerator(passages.found))
    filters = Filters(against=(queries,), encoder=encoder, round_trip=20)
    filtered = apply_filters(rows_of(run), filters)
    write_rows(filtered.kept, run / "train")
    write_report(run, summary, filtered)
    print(
        f"{len(passages.found)} passages, made {summary.made}, refused {rejected_by(filtered)}, "
        f"kept {len(filtered.kept)}"
    )


def main() -> None:
    """Run all steps, with the time of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", type=Path, help="directory in BEIR's form")
    parser.add_argument("output", type=Path, help="new directory")
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=5e-5)
    given = parser.parse_args()
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {what}", flush=True)

    before = Encoder.from_pretrained()
    say(f"before: {_scores(before, given.set)}")
    make(
        given.set / "corpus.jsonl",
        given.set / "queries.jsonl",
        given.output / "run",
        given.examples,
        before,
    )
    say("generated and filtered")
    mined = mine(
        [given.output / "run" / "train"],
        given.output / "mined",
        before,
        Mining(negatives=4),
        corpus=[given.set],
    )
    say(f"mined: {mined}")
    train_contrastive(
        Contrastive(
            model=str(BUNDLED_MODEL),
            output=given.output / "model",
            data=(str(given.output / "mined"),),
            max_steps=given.steps,
            batch_size=given.batch,
            learning_rate=given.rate,
            warmup=0.1,
            negatives=1,
            passage_length=128,
            lora=None,
            show_progress=False,
        )
    )
    say("trained")
    say(f"after: {_scores(Encoder.from_pretrained(given.output / 'model'), given.set)}")


def _scores(encoder: Encoder, directory: Path) -> str:
    found = retrieval(encoder.encode, read_retrieval(directory))
    return ", ".join(f"{name} {score}" for name, score in found.items())


if __name__ == "__main__":
    main()
