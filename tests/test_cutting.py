"""Long texts are cut before they are tokenised, and no id that is kept is another one by that."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import BUNDLED
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llm_embeddings import Recipe, cutting, get_recipe
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.cutting import Cuts
from llm_embeddings.encoder import BUNDLED_MODEL
from llm_embeddings.tokens import tokenize

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORDS = (
    "the river Seine, in Paris; don't stop! 12345 67 8 [x] (y) naïve Zoë 量子计算机 как дела שלום "
    "a\u0301 e\u0301\u0323 한국어 \u1112\u1161\u11ab 👩‍🚀 == -- ... \t \n \r\n  \u00a0 </s> <s> x"
).split(" ")


def trained(model: Any, trainer: Any, normalizer: Any, pieces: Any) -> PreTrainedTokenizerFast:
    """A small tokenizer with parts of its own."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pieces
    lines = [" ".join(random.Random(n).choices(WORDS, k=40)) for n in range(150)]
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="</s>")


def byte_level(normalizer: Any = None) -> PreTrainedTokenizerFast:
    pieces = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=["</s>", "[UNK]"]
    )
    return trained(models.BPE(), trainer, normalizer, pieces)


def word_piece() -> PreTrainedTokenizerFast:
    """Drops white space, and takes a word with an unknown character for unknown as a whole."""
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", "</s>"])
    return trained(
        models.WordPiece(unk_token="[UNK]"),
        trainer,
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )


def unigram() -> PreTrainedTokenizerFast:
    """Collapses white space."""
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["[UNK]", "</s>"], unk_token="[UNK]"
    )
    collapsing = normalizers.Replace(Regex(" {2,}"), " ")
    return trained(
        models.Unigram(),
        trainer,
        normalizers.Sequence([normalizers.NFKC(), collapsing]),
        pre_tokenizers.Metaspace(),
    )


def across_spaces() -> PreTrainedTokenizerFast:
    """Has entries of several words."""
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["</s>", "[UNK]"])
    return trained(models.BPE(unk_token="[UNK]"), trainer, None, None)


TOKENIZERS = {
    "mistral": lambda: load_tokenizer(BUNDLED / "e5-mistral/model"),
    "small": lambda: load_tokenizer(BUNDLED_MODEL),
    "byte level": byte_level,
    "byte level, NFC": lambda: byte_level(normalizers.NFC()),
    "word piece": word_piece,
    "unigram": unigram,
    "across spaces": across_spaces,
}


@pytest.fixture(autouse=True)
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of some hundred characters count as long."""
    monkeypatch.setattr(cutting, "FIRST_CHARACTERS", 60)
    monkeypatch.setattr(cutting, "CHARACTERS_PER_ID", 2)
    monkeypatch.setattr(cutting, "_SEARCHED", 50)


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]()  # type: ignore[no-any-return]


def texts(seed: int, count: int) -> Iterator[str]:
    """Words, one character many times, scripts without spaces, marks, runs of white space."""
    chosen = random.Random(seed)
    for _ in range(count):
        size = chosen.randrange(800, 6000)
        kinds = [
            " ".join(chosen.choices(WORDS, k=size // 4)),
            "".join(chosen.choices(WORDS, k=size // 3)),
            chosen.choice("a量 \n=\u0301ab") * size,
            "".join(chosen.choices("abc", k=size)),
            "".join(chosen.choices("量子计算机如何", k=size)),
            "".join(chosen.choices(" \n\ta", weights=(9, 1, 1, 1), k=size)),
            "e" + "".join(chosen.choices("\u0301\u0323", k=size)),
            chosen.choice(("ab", "the ", "</s>", "👩‍🚀", "12")) * (size // 3),
        ]
        yield "".join(chosen.sample(kinds, 2))


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_ids_that_are_kept_are_those_of_the_whole(
    tokenizer: PreTrainedTokenizerFast, count: int
) -> None:
    backend, cuts, cut = tokenizer.backend_tokenizer, Cuts(tokenizer), 0

    def encode(text: str) -> list[int]:
        return backend.encode(text, add_special_tokens=False).ids  # type: ignore[no-any-return]

    for text in texts(3, count):
        whole = encode(text)
        for most in (1, 20, 60):
            found = cuts.encoded(text, most, encode)
            assert found[:most] == whole[:most], (text[:50], most)
            assert (len(found) > most) == (len(whole) > most)
            cut += len(found) < len(whole)
    assert (cut > 0) == cuts._bounds()[0]


def test_entries_across_words_forbid_cuts() -> None:
    assert Cuts(across_spaces())._bounds() == (False, 0)
    assert Cuts(byte_level())._bounds()[0]
    other = byte_level()
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("a.*b"), "isolated")
    assert Cuts(other)._bounds() == (False, 0), "nobody knows how far such a pattern looks"


@pytest.mark.parametrize(
    "recipe",
    [
        "intfloat/e5-mistral-7b-instruct",
        "BAAI/bge-en-icl",
        "BAAI/LLARA-beir",
        "McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp",
    ],
)
def test_rows_are_the_same_with_and_without_cuts(recipe: str) -> None:
    """Whatever the recipe does to a text that is too long: suffixes, words, separators."""
    tokenizer = load_tokenizer(BUNDLED / "e5-mistral/model")
    names = [f"<s{i}>" for i in range(1, 17)] + ["<instruct>", "<query>", "<response>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    chosen: Recipe = get_recipe(recipe)
    cuts, given = Cuts(tokenizer), list(texts(5, 2))
    for role in ("query", "document"):
        for offsets in (False, True):
            arguments: Any = (tokenizer, chosen, given, role, None, 90)
            whole = tokenize(*arguments, with_offsets=offsets)
            for row, other in zip(
                tokenize(*arguments, with_offsets=offsets, cuts=cuts), whole, strict=True
            ):
                assert (row.ids, row.start, row.offsets) == (other.ids, other.start, other.offsets)
                assert (row.cut > 0) == (other.cut > 0)


def test_new_entries_are_seen(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    other = load_tokenizer(tmp_path)
    cuts = Cuts(other)
    cuts._bounds()
    other.add_tokens(["of two words"])
    assert cuts._bounds() == (False, 0)
