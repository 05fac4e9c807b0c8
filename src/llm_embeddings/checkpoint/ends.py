"""BOS and EOS as a tokenizer's files ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .files import read_json


def stated_ends(directory: Path) -> tuple[bool | str, bool | str]:
    """BOS and EOS as the tokenizer's files ask for them: a flag, else the post-processor."""
    flags = read_json(directory / "tokenizer_config.json")
    processor = read_json(directory / "tokenizer.json").get("post_processor") or {}
    first, last = _post_processor(processor)
    return _end(flags.get("add_bos_token"), first), _end(flags.get("add_eos_token"), last)


def _end(flag: bool | None, token: str | None) -> bool | str:
    """The post-processor's token, unless a flag overrules it."""
    if flag is None:
        return token or False
    return (token or True) if flag else False


def _post_processor(processor: dict[str, Any]) -> tuple[str | None, str | None]:
    """The special tokens that a tokenizer puts before and after a single text.

    Raises:
        ValueError: it puts more than one on a side, or is of a kind not known here.
    """
    kind = processor.get("type")
    if kind == "Sequence":
        found = [_post_processor(inner) for inner in processor.get("processors", ())]
        return next((ends for ends in found if any(ends)), (None, None))
    if kind in ("BertProcessing", "RobertaProcessing"):
        return str(processor["cls"][0]), str(processor["sep"][0])
    if kind != "TemplateProcessing":
        if kind in (None, "ByteLevel"):
            return None, None
        raise ValueError(f"tokenizer.json: the post-processor {kind!r} is not known: pass a Recipe")
    ends: tuple[list[str], list[str]] = [], []
    seen = False
    for piece in processor.get("single", ()):
        if "Sequence" in piece:
            seen = True
        else:
            ends[seen].append(str(piece["SpecialToken"]["id"]))
    if max(map(len, ends)) > 1:
        raise ValueError(
            f"tokenizer.json: the post-processor puts {ends[0]} before and {ends[1]} behind a "
            "text; one token on a side is what can be done here: pass a Recipe"
        )
    return (*ends[0], None)[0], (*ends[1], None)[0]
