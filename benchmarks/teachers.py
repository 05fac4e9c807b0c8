"""What a language model adds to a small embedder, and a teacher to a language model.

    python -m benchmarks.teachers rerank LLM SET ... [--queries 50] [--method yes-no]
    python -m benchmarks.teachers distill LLM OUTPUT TEXTS SET ... [--steps 100]

`rerank` has a generative model order the ten documents that the bundled model ranks first, and
compares the rankings. `distill` has the language model learn the vectors that the bundled model
gives to texts, a line each, and scores it on sets before and after.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from llm_embeddings import Encoder
from llm_embeddings.encoder import BUNDLED_MODEL
from llm_embeddings.evaluation import evaluate
from llm_embeddings.evaluation.scores import Bootstrap, Score, ndcg
from llm_embeddings.evaluation.sets import Retrieval, read_retrieval
from llm_embeddings.generation import Generator, Reranker
from llm_embeddings.ranking.nearest import best
from llm_embeddings.training.distill import Distill, train_distill
from llm_embeddings.training.options import LoraOptions

_DEPTH = 10


def reranked(data: Retrieval, encoder: Encoder, reranker: Reranker, count: int) -> dict[str, Score]:
    """nDCG@10 before and after, and the gain query by query, of some queries drawn at random."""
    names, documents = list(data.documents), list(data.documents.values())
    chosen = random.Random(0).sample(sorted(data.queries), min(count, len(data.queries)))
    vectors = encoder.encode_document(documents, normalize=True)
    queries = encoder.encode_query([data.queries[name] for name in chosen], normalize=True)
    before, after = [], []
    for name, places in zip(chosen, best(queries @ vectors.T, _DEPTH), strict=True):
        gains = data.relevant[name]
        found = [gains.get(names[place], 0.0) for place in places]
        order = reranker.rerank(data.queries[name], [documents[place] for place in places])
        before.append(ndcg(found, list(gains.values())))
        after.append(ndcg([found[each.index] for each in order], list(gains.values())))
    mean = Bootstrap().mean
    gain = [b - a for a, b in zip(before, after, strict=True)]
    return {"before": mean(before), "after": mean(after), "gain": mean(gain)}


def rerank(given: argparse.Namespace) -> None:
    """A line per set."""
    encoder = Encoder.from_pretrained()
    writer = Encoder.from_pretrained(given.llm, recipe="last-token")
    reranker = Reranker(Generator(writer), method=given.method)
    for path in given.sets:
        scores = reranked(read_retrieval(path), encoder, reranker, given.queries)
        print(path.name, *(f"{name} {score}" for name, score in scores.items()), flush=True)


def distill(given: argparse.Namespace) -> None:
    """Scores before and after."""

    def say(when: str, encoder: Encoder) -> None:
        found = evaluate(encoder, given.sets, cuts=[("ndcg", _DEPTH)])
        print(when, *(f"{name} {score}" for name, score in found.items()), sep="\n  ", flush=True)

    say("before", Encoder.from_pretrained(given.llm, recipe="mean"))
    options = Distill(
        model=given.llm,
        recipe="mean",
        teacher=str(BUNDLED_MODEL),
        linear_map=True,
        data=(given.texts,),
        output=given.output,
        max_steps=given.steps,
        batch_size=32,
        batch_tokens=512,
        learning_rate=given.rate,
        warmup=0.1,
        lora=LoraOptions(),
        resume=given.output.exists(),
    )
    say("after", Encoder.from_pretrained(train_distill(options)))


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(required=True)
    one = parts.add_parser("rerank", help="order what was found by a generative model")
    one.add_argument("llm")
    one.add_argument("sets", nargs="+", type=Path, help="directories in BEIR's form")
    one.add_argument("--queries", type=int, default=50, help="of each set, drawn at random")
    one.add_argument("--method", choices=["yes-no", "permutation"], default="yes-no")
    one.set_defaults(run=rerank)
    two = parts.add_parser("distill", help="learn the bundled model's vectors")
    two.add_argument("llm")
    two.add_argument("output", type=Path, help="folder of the run; what is there is gone on with")
    two.add_argument("texts", help="file of texts, a line each")
    two.add_argument("sets", nargs="+", type=Path)
    two.add_argument("--steps", type=int, default=100)
    two.add_argument("--rate", type=float, default=5e-4)
    two.set_defaults(run=distill)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
