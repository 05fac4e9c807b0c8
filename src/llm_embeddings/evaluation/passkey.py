"""Personalised passkey retrieval: is the document with one given sentence found?

As in arXiv 2401.00368 (on long context) and its data set intfloat/personalized_passkey_retrieval:
a query asks for one person's pass key; each of 100 documents gives one person's key, at some place
among five sentences repeated over and over; 50 queries per length, top-1 accuracy. The sentences
are those of passkey tests for language models, with a name put in. As in LongEmbed (arXiv
2404.12096) the queries of a length share their 100 documents.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..tokens import tokenize
from .own import encode_by
from .rules import prompts_of
from .scores import Bootstrap, Score, unit

if TYPE_CHECKING:
    from ..encoder import Encoder

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_TASK = "passkey"
_QUERY = "what is the pass key for {name}?"
_NEEDLE = "The pass key for {name} is {key}. Remember it. {key} is the pass key for {name}."
_FILLER = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)
_FIRST = (
    "Ada Amir Anna Bela Bruno Chen Clara Diego Dora Elif Emil Fatima Felix Grace Hana Hugo Ines "
    "Ivan Jana Joel Kenji Lara Leo Lin Mara Milan Nadia Noah Olga Omar Paula Pedro Rosa Samir Tara "
    "Theo Uma Vera Yusuf Zoe"
).split()
_LAST = (
    "Adler Bauer Castro Dahl Evans Fischer Garcia Hansen Ito Jensen Kaya Lopez Meyer Novak Okafor "
    "Patel Quinn Rossi Silva Tanaka Ueda Vogel Weber Xu Young Zhang"
).split()

WatchPasskey = Callable[[int, int, int], None]  # length, documents embedded, of how many
_AT_ONCE = 10
_NO_LIMIT = 2**31  # tokens


@dataclass(frozen=True, slots=True)
class PasskeyTexts:
    """The documents and queries of one length.

    Attributes:
        documents: Texts, each with one person's key.
        queries: Texts, each asking for one of the keys.
        wanted: For each query, the place of its document.
    """

    documents: list[str]
    queries: list[str]
    wanted: list[int]


def passages(
    count: Callable[[str], int], length: int, *, documents: int = 100, queries: int = 50, seed: int
) -> PasskeyTexts:
    """Make the documents and queries of one length.

    Args:
        count: Text of a document -> its tokens, prompt and special tokens included.
        length: Tokens that no document exceeds and each nearly has.
        documents: How many documents, each about another person.
        queries: How many queries, each for another document.
        seed: Seed of names, keys and places.

    Raises:
        ValueError: the sentence with the key alone is longer.
    """
    rng = random.Random(f"{seed}-{length}")
    names = rng.sample([f"{first} {last}" for first in _FIRST for last in _LAST], documents)
    keys = rng.sample(range(10_000, 100_000), documents)
    rate = (count(_filler(1000)) - count(_filler(500))) / 500
    texts = [
        _document(count, length, rate, _NEEDLE.format(name=name, key=key), rng.random())
        for name, key in zip(names, keys, strict=True)
    ]
    wanted = rng.sample(range(documents), queries)
    return PasskeyTexts(texts, [_QUERY.format(name=names[place]) for place in wanted], wanted)


def passkey(
    encoder: Encoder,
    lengths: Sequence[int] | None = None,
    *,
    instruction: str | None = None,
    documents: int = 100,
    queries: int = 50,
    seed: int = 0,
    watch: WatchPasskey = lambda length, done, total: None,
) -> dict[int, Score]:
    """Measure whether an encoder finds a sentence in documents of several lengths.

    Args:
        encoder: The encoder; it embeds as for retrieval, with its limit raised to each length.
        lengths: Lengths in tokens of this model, prompt and special tokens included; None = those
            of `LENGTHS` that it reads.
        instruction: Instruction of the queries; None = the recipe's own.
        documents: Documents per length.
        queries: Queries per length.
        seed: Seed of names, keys and places; the same texts for the same tokenizer.
        watch: Told how far it is.

    Returns:
        By length the top-1 accuracy, with its 95% bootstrap interval over queries.

    Raises:
        ValueError: a length that the model does not read, or numbers that do not fit.
    """
    recipe = encoder.recipe
    if lengths is None:
        lengths = [each for each in LENGTHS if each <= _readable(encoder)]
    _check(encoder, lengths, documents, queries)
    given = recipe.instruction if instruction is None else instruction
    prompts = prompts_of(recipe, "Retrieval", _TASK, instructions={_TASK: given})

    def count(text: str) -> int:
        return len(tokenize(encoder.tokenizer, recipe, [text], "document", "", _NO_LIMIT)[0].ids)

    found = {}
    for length in lengths:
        watch(length, 0, documents)
        made = passages(count, length, documents=documents, queries=queries, seed=seed)
        encode = encode_by(encoder, prompts, max_length=length)
        vectors = []
        for start in range(0, documents, _AT_ONCE):
            vectors.append(encode(made.documents[start : start + _AT_ONCE], "document"))
            watch(length, min(start + _AT_ONCE, documents), documents)
        scores = unit(encode(made.queries, "query")) @ unit(np.concatenate(vectors)).T
        hits = scores.argmax(axis=1) == np.array(made.wanted)
        found[length] = Bootstrap(seed=seed).mean(hits.astype(np.float64))
    return found


def _readable(encoder: Encoder) -> int:
    """The most tokens of a document that the model reads."""
    return min(encoder.model.positions, encoder.recipe.max_text_length or _NO_LIMIT)


def _check(encoder: Encoder, lengths: Sequence[int], documents: int, queries: int) -> None:
    """Check that the numbers fit each other, and the lengths the model.

    Raises:
        ValueError: they do not.
    """
    names, most = len(_FIRST) * len(_LAST), _readable(encoder)
    if not 1 <= queries <= documents <= names:
        raise ValueError(
            f"{queries} queries over {documents} documents: there are {names} names, and each "
            "query asks for another document"
        )
    for length in lengths:
        if not 1 <= length <= most:
            raise ValueError(
                f"length {length}: {encoder.recipe.name} reads {most} tokens at most: leave it out"
            )


def _document(
    count: Callable[[str], int], length: int, rate: float, needle: str, place: float
) -> str:
    """A document: a sentence to be found, within as many sentences of filler as fit.

    Args:
        count: Text of a document -> its tokens.
        length: Most tokens of the document.
        rate: About how many tokens a sentence of filler has.
        needle: The sentence to be found.
        place: Where it stands, from 0 (begin) to 1 (end).
    """

    def text(sentences: int) -> str:
        before = round(place * sentences)
        parts = (_filler(before), needle, _filler(sentences - before, before))
        return " ".join(part for part in parts if part)

    if (alone := count(needle)) > length:
        raise ValueError(f"length {length}: the pass key alone takes {alone} tokens")
    fits = max(0, int((length - alone) / rate) + 1)
    while count(text(fits)) > length:
        fits -= 1
    return text(fits)


def _filler(sentences: int, first: int = 0) -> str:
    """`sentences` sentences of filler, beginning with number `first` of the five."""
    return " ".join(_FILLER[(first + place) % len(_FILLER)] for place in range(sentences))
