"""The small model's tokenizer, and a vector for each of its entries before any training."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

Floats = npt.NDArray[np.float32]
PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def known_words(vocabulary: Path) -> list[str]:
    """Whole English-looking words of the teacher's word list."""
    lines = vocabulary.read_text(encoding="utf-8").split("\n")
    return [word for word in lines if re.fullmatch(r"[a-z]{2,}", word)]


def train_tokenizer(
    texts: Sequence[str], words: Sequence[str], *, size: int, floor: int
) -> PreTrainedTokenizerFast:
    """Byte-level BPE over lower-cased words without accents; any text has tokens, none unknown.

    Words are split from punctuation first and every piece gets the same leading space, so that a
    word is the same tokens after a quote, at the start of a text and in the middle of one. Each of
    `words` counts `floor` times more than it occurs, so that names the texts lack get entries.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
            pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}{1,4}|[^\p{L}\p{N}]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=3,
        show_progress=False,
    )
    repeated = (" ".join([word] * floor) for word in words)
    tokenizer.train_from_iterator((*texts, *repeated), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def token_ids(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    """Ids without special tokens, a few thousand texts at a time."""
    backend = tokenizer.backend_tokenizer
    return [
        encoding.ids
        for start in range(0, len(texts), 4096)
        for encoding in backend.encode_batch_fast(list(texts[start : start + 4096]))
    ]


def token_vectors(
    tokenizer: PreTrainedTokenizerFast, encode: Callable[[Sequence[str]], Floats], seed: int
) -> Floats:
    """Unit rows: what the teacher says of each entry as a text of its own.

    Half a character has no text, and special tokens no meaning: they get random directions.
    """
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    texts = [text.strip() for text in texts]
    vectors = encode([text or "." for text in texts])
    random = np.random.default_rng(seed).standard_normal(vectors.shape).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    special = set(tokenizer.all_special_ids)
    mute = [i for i, text in enumerate(texts) if not text or "\ufffd" in text or i in special]
    vectors[mute] = random[mute]
    return vectors
