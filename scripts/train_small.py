"""Train the small model that comes with the package, on two CPU cores in under an hour.

    python scripts/train_small.py --data DATA --output src/llm_embeddings/data/small

1. Read documents and triplets; mine pairs from them (small_data.py).
2. Train a tokenizer, count co-occurrences, and start the model as a bag of words (small_init.py).
3. Warm the word vectors alone, for a few minutes.
4. Train all weights contrastively, with sentence-transformers' trainer.
5. Save the encoder; store its weights in float16.

Every step leaves its result in the work folder: a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import small_data as mine
import small_init as init
import torch
from datasets import Dataset, DatasetDict
from safetensors.torch import load_file, save_file
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from llm_embeddings import Encoder, Recipe, Template

RECIPE = Recipe(
    name="llm-embeddings-small",
    causal=False,
    pooling="mean",
    pool_span="all",
    query=Template(mine.QUERY),
    bos=True,
    eos=False,
    normalize=True,
    max_length=512,
    source="scripts/train_small.py",
)


@dataclass(frozen=True)
class Options:
    """Everything that decides the result, besides the clock."""

    data: Path
    output: Path
    work: Path
    minutes: float = 34.0
    warm_minutes: float = 8.0
    threads: int = 2
    seed: int = 13
    vocab_size: int = 16_384
    hidden_size: int = 384
    layers: int = 2
    window: int = 6  # tokens on either side that count as context of a token
    smooth: float = 5e-4  # tokens rarer than this share keep most of their weight
    words: int = 48  # longest document in training
    batch_size: int = 128
    warm_batch_size: int = 256
    scale: float = 20.0
    warm_rate: float = 2e-2
    embedding_rate: float = 5e-3
    layer_rate: float = 1e-3


class Clock(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Ends the run after some minutes of training, counted over all its restarts."""

    def __init__(self, path: Path, minutes: float) -> None:
        """Take up the count kept in `path`."""
        self.path, self.limit = path, minutes * 60.0
        self.before = json.loads(path.read_text())["seconds"] if path.exists() else 0.0
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Training time so far."""
        return self.before + time.monotonic() - self.started

    def rate(self, step: int) -> float:
        """Share of the peak learning rate: 50 steps up, then down to zero with the time left."""
        return min(1.0, (step + 1) / 50) * max(0.0, 1.0 - self.seconds / self.limit)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Do not count the set-up."""
        self.started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop when time is up; the last step is saved like any other."""
        if self.seconds >= self.limit:
            control.should_training_stop = control.should_save = True

    def on_save(self, *_: Any, **__: Any) -> None:
        """Keep the count beside the checkpoint."""
        self.path.write_text(json.dumps({"seconds": self.seconds}))


def make_config(options: Options, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """A small Llama: heads of 64, one key/value head for three query heads."""
    return LlamaConfig(
        vocab_size=options.vocab_size,
        hidden_size=options.hidden_size,
        intermediate_size=options.hidden_size * 4 // 3,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden_size // 64,
        num_key_value_heads=options.hidden_size // 192,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=False,
        dtype="float32",
    )


def make_counted(options: Options) -> Path:
    """Tokenizer and two models: `untrained` with random weights, `counted` with word vectors."""
    counted = options.work / "counted"
    if (counted / "llm_embeddings.json").exists():
        return counted
    texts = mine.read_texts(options.data)
    tokenizer = init.train_tokenizer(texts, options.vocab_size)
    frequency, pairs = init.token_counts(tokenizer, texts, options.window)
    vectors = init.word_vectors(pairs, options.hidden_size - 1, options.seed)
    model = init.build_model(make_config(options, tokenizer), options.seed)
    encoder = Encoder(model, tokenizer, RECIPE)
    encoder.save_pretrained(options.work / "untrained")
    init.start_as_bag_of_words(model, vectors, frequency, options.smooth)
    encoder.save_pretrained(counted)
    return counted


def make_start(options: Options) -> Path:
    """The counted model with its word vectors warmed: where training begins."""
    start = options.work / "start"
    if (start / "llm_embeddings.json").exists():
        return start
    encoder = Encoder.from_pretrained(make_counted(options), device="cpu", dtype="float32")
    assert isinstance(encoder.backbone, LlamaModel)
    tables = mine.read_tables(options.data, options.words, options.seed)
    columns = {k: init.tokenize_columns(encoder.tokenizer, rows) for k, rows in tables.items()}
    init.warm_up(
        encoder.backbone,
        columns,
        minutes=options.warm_minutes,
        batch_size=options.warm_batch_size,
        rate=options.warm_rate,
        scale=options.scale,
        seed=options.seed,
    )
    encoder.save_pretrained(start)
    return start


def make_trainer(
    options: Options, model: SentenceTransformer, tables: mine.Tables, clock: Clock
) -> SentenceTransformerTrainer:
    """sentence-transformers' trainer: one batch = one kind of pair, in-batch negatives."""
    names = ("anchor", "positive", "negative")
    data = DatasetDict(
        {
            kind: Dataset.from_dict(dict(zip(names, zip(*rows, strict=True), strict=False)))
            for kind, rows in tables.items()
        }
    )
    one_way = MultipleNegativesRankingLoss(model, scale=options.scale)
    both_ways = MultipleNegativesRankingLoss(
        model,
        scale=options.scale,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    losses: dict[str, torch.nn.Module] = dict.fromkeys(tables, one_way)
    losses |= dict.fromkeys(("neighbours", "noisy"), both_ways)
    words = [p for n, p in model.named_parameters() if "embed_tokens" in n]
    others = [p for n, p in model.named_parameters() if "embed_tokens" not in n]
    optimizer = torch.optim.AdamW(
        [
            {"params": words, "lr": options.embedding_rate},
            {"params": others, "lr": options.layer_rate},
        ],
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    return SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(options.work / "checkpoints"),
            max_steps=100_000,
            per_device_train_batch_size=options.batch_size,
            bf16=True,
            use_cpu=True,
            seed=options.seed,
            save_steps=100,
            save_total_limit=2,
            logging_steps=25,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=data,
        loss=losses,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, clock.rate)),
        callbacks=[clock],
    )


def store_half(directory: Path) -> None:
    """Rewrite the weights in float16; config.json goes on asking for float32 arithmetic."""
    path = directory / "model.safetensors"
    weights = {name: tensor.half() for name, tensor in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def train(options: Options) -> None:
    """From data to a model directory."""
    from sentence_transformers_llm_embeddings import as_sentence_transformer

    torch.set_num_threads(options.threads)
    encoder = Encoder.from_pretrained(make_start(options), device="cpu", dtype="float32")
    tables = mine.read_tables(options.data, options.words, options.seed + 1)  # other draws
    print({kind: len(rows) for kind, rows in tables.items()}, flush=True)
    model = as_sentence_transformer(encoder)
    clock = Clock(options.work / "clock.json", options.minutes)
    trainer = make_trainer(options, model, tables, clock)
    checkpoints = options.work / "checkpoints"
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.exists() else None
    trainer.train(resume_from_checkpoint=last)
    encoder.save_pretrained(options.output)
    store_half(options.output)
    print(f"{trainer.state.global_step} steps, {clock.seconds / 60:.1f} minutes: {options.output}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, default=Path("src/llm_embeddings/data/small"))
    parser.add_argument("--work", type=Path, default=Path("build/small"), help="checkpoints")
    parser.add_argument("--minutes", type=float, default=Options.minutes)
    parser.add_argument("--warm-minutes", type=float, default=Options.warm_minutes)
    parser.add_argument("--threads", type=int, default=Options.threads)
    parser.add_argument("--seed", type=int, default=Options.seed)
    options = Options(**vars(parser.parse_args()))
    options.work.mkdir(parents=True, exist_ok=True)
    train(options)


if __name__ == "__main__":
    main()
