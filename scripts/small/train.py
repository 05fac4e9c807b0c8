"""Make the bundled model out of its teacher, stopped and started again at will.

    python scripts/small/train.py --texts TEXTS --work WORK --data DATA

The same command goes on from the last checkpoint in WORK. TEXTS holds files of texts, one a line
(gather.py fills it); what is added while the run goes is taken up. WORK/log tells the losses, and
every half CPU hour what the mean of the last weights reaches on the visible sets. WORK/final is the
result as it is released.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import follow
import runs
import student
import teacher
import torch
import transplant
import wordpiece
from transformers import LlamaModel

from llm_embeddings import Encoder
from llm_embeddings.evaluation import evaluate

SETS = ("dbpedia_5k", "cranfield", "vaswani", "xquad_en_sent")
MLP = 1024  # neurons a layer; the teacher has 1536
SAMPLES = 200  # sentences on which the teacher's spreads are measured


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True, help="folder of *.txt.gz")
    parser.add_argument("--data", type=Path, required=True, help="evaluation sets")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure-every", type=float, default=1800.0, help="CPU seconds")
    return parser.parse_args()


def scores(folder: Path, data: Path) -> str:
    """One line with the score on every visible set."""
    encoder = Encoder.from_pretrained(folder)
    paths = [data / "sts/stsb_en_dev.jsonl", *(data / "retrieval" / name for name in SETS)]
    found = evaluate(encoder, paths, cuts=[("ndcg", 10)], resamples=0)
    wanted = ("spearman", "ndcg@10")
    return ", ".join(
        f"{name.split('/')[0]} {score.value:.4f}"
        for name, score in found.items()
        if name.split("/")[1] in wanted
    )


def main() -> None:
    """Build or take up the student, and train it."""
    args = parse()
    torch.set_num_threads(args.threads)
    (args.work / "log").parent.mkdir(parents=True, exist_ok=True)
    folder = teacher.fetch(args.work)
    master, words = teacher.load(folder)
    tokenizer, entries = wordpiece.pruned(folder)
    places = torch.full((master.config.vocab_size,), tokenizer.unk_token_id)
    places[entries] = torch.arange(len(entries))
    backend = words.backend_tokenizer
    with gzip.open(args.data / "train/sentences.txt.gz", "rt", encoding="utf-8") as stream:
        sample = [next(stream).strip() for _ in range(SAMPLES)]
    rows = [encoding.ids for encoding in backend.encode_batch_fast(sample)]
    config = transplant.config_of(master, MLP, tokenizer)
    model, norms = transplant.transplant(master, entries, rows, config)
    prefix = tokenizer(student.PREFIX, add_special_tokens=False)["input_ids"]

    def measure(mean: LlamaModel) -> str:
        student.save(mean, tokenizer, args.work / "mean")
        return scores(args.work / "mean", args.data)

    final = follow.follow(
        follow.Pupil(model, master, norms),
        follow.Follow(texts=args.texts, measure_every=args.measure_every),
        runs.Run(name="follow", folder=args.work, steps=args.steps, warmup=30, save_every=20),
        encode=lambda texts, rng: follow.batches(texts, backend, places, prefix, rng),
        measure=measure,
    )
    print(measure(final))
    student.store(args.work / "mean", args.work / "final")


if __name__ == "__main__":
    main()
