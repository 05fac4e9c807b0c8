"""The tiny model and the scripted one that `compatibility_files.py` makes its files with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from llm_embeddings import Recipe, Template

QUERIES = ["how is bread baked", "when is the hedge cut"]
SUBJECTS = ("the oven", "fresh yeast", "a garden hedge", "red roses", "an old boat")
PASSAGES = [
    f"Passage {number} says {'a good deal ' * (number % 3)}about {SUBJECTS[number % 5]}."
    for number in range(10)
]


def backbone() -> LlamaModel:
    """Two layers whose random weights are large enough to tell texts apart."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaModel(config)


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte: no vocabulary of anybody's."""
    special = ["<pad>", "<s>", "</s>"]
    alphabet = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: number for number, token in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def recipe() -> Recipe:
    """Bidirectional with a mean, which late chunking needs, and an instruction for queries."""
    return Recipe(
        name="compatibility",
        causal=False,
        pooling="mean",
        pool_span="text",
        query=Template("Task: {instruction}\nQuery: "),
        instruction="find what answers the query",
        eos=True,
        max_length=256,
    )


class Interrupted(Exception):
    """What ends a run before its end."""


@dataclass(slots=True)
class Scripted:
    """A generator of `synthesize` that has the same answer for the same prompt.

    Attributes:
        calls: How often it answers before it interrupts the run.
        name: Of the model, for the journal.
    """

    calls: int
    name: str = "scripted"

    async def __call__(self, prompt: Any) -> Any:
        """The reply to a prompt.

        Raises:
            Interrupted: it has answered often enough.
        """
        if not self.calls:
            raise Interrupted
        self.calls -= 1
        if prompt.schema is None:
            text = json.dumps([f"Find what is known about {subject}." for subject in SUBJECTS])
        else:
            subject = SUBJECTS[prompt.seed % len(SUBJECTS)]
            keys = prompt.schema["properties"]
            text = json.dumps({key: f"In {key} it says much of {subject}." for key in keys})
        return Answer(text)


@dataclass(frozen=True, slots=True)
class Answer:
    """What `Scripted` says, with the attributes of a reply of any generator."""

    text: str
    tokens_in: int = 30
    tokens_out: int = 10
    truncated: bool = False
