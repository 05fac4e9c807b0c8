"""A tiny language model and data on disk, for the tests of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, MistralConfig

from helpers import BUNDLED, SMALL
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.training.run.checkpoints import METRICS

WORDS = "the cat a dog sat ran on mat and then home again red blue house tree saw".split()


def write_language_model(path: Path) -> Path:
    """Random weights in the published layout of a Mistral language model."""
    torch.manual_seed(0)
    config = MistralConfig(**SMALL | {"hidden_size": 32, "num_key_value_heads": 1})
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    load_tokenizer(BUNDLED / "e5-mistral/model").save_pretrained(path)
    return path


def sentence(number: int, length: int) -> str:
    return " ".join(WORDS[(number * 7 + place * place) % len(WORDS)] for place in range(length))


def write_texts(path: Path, count: int = 60) -> Path:
    texts = [sentence(number, 4 + number % 9) for number in range(count)]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def write_pairs(path: Path, count: int = 40) -> Path:
    rows = [
        {
            "query": sentence(number, 4),
            "pos": [sentence(number, 9)],
            "neg": [sentence(number + 3, 7)],
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_metrics(output: Path) -> list[dict[str, Any]]:
    lines = (output / METRICS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
