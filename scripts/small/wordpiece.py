"""The student's tokenizer: the teacher's, without the entries that no text needs."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

UNKNOWN, PAD, BOS, EOS = "[UNK]", "[PAD]", "[CLS]", "[SEP]"


def needed(entry: str) -> bool:
    """Whether an entry is more than a place held free or a piece in other scripts."""
    piece = entry.removeprefix("##")
    return not entry.startswith("[unused") and (len(piece) == 1 or piece.isascii())


def pruned(teacher: Path) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """The tokenizer, and which of the teacher's entries each of its own is.

    It puts no special tokens in: the recipe does.
    """
    stored = json.loads((teacher / "tokenizer.json").read_text(encoding="utf-8"))
    old: dict[str, int] = stored["model"]["vocab"]
    kept = sorted((number, entry) for entry, number in old.items() if needed(entry))
    new = {entry: place for place, (_, entry) in enumerate(kept)}
    stored["model"]["vocab"] = new
    stored["added_tokens"] = [
        token | {"id": new[token["content"]]} for token in stored["added_tokens"]
    ]
    stored |= {"post_processor": None, "truncation": None, "padding": None}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(stored)),
        unk_token=UNKNOWN,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    return tokenizer, [number for number, _ in kept]
