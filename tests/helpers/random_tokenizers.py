"""Small tokenizers of every kind, as files hold them: model, normaliser, special tokens."""

from __future__ import annotations

import json
import random
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = "the cat sat on a mat while rain fell over quiet hills and nobody spoke of it query"
_LETTERS = string.ascii_letters + string.digits + ":."
_BERT_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>", "[MASK]"]
_LLAMA_MARKS = ["<unk>", "<s>", "</s>", "<pad>", "<mask>"]
_ROBERTA_MARKS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
# Class names that files name for each kind; "" leaves the neutral one that was saved.
_CLASSES = {
    "wordpiece": ("", "", "PreTrainedTokenizerFast", "BertTokenizer"),
    "byte-level": ("", "", "PreTrainedTokenizerFast", "Qwen2TokenizerFast", "GPT2TokenizerFast"),
    "metaspace": ("", "", "PreTrainedTokenizerFast", "LlamaTokenizerFast"),
    "unigram": ("", "", "PreTrainedTokenizerFast", "XLMRobertaTokenizerFast"),
}
_FLAGS: tuple[dict[str, bool], ...] = (
    *([{}] * 9),
    {"add_bos_token": True, "add_eos_token": False},
    {"add_bos_token": True, "add_eos_token": True},
    {"add_bos_token": False, "add_eos_token": True},
    {"add_bos_token": True},
    {"add_eos_token": True},
)
ENDS = ("both", "both", "EOS", "BOS", "nothing", "processing")


@dataclass(frozen=True)
class TokenizerPlan:
    """What a tokenizer is like.

    Attributes:
        kind: A key of `_CLASSES`.
        ends: What its post-processor puts around a text.
        lower: Whether its normaliser lower-cases.
        side: Which side it pads.
        limit: `model_max_length`; None is not stated.
        added: Whether entries were added to the vocabulary: "no", "resized" or "no rows".
        named: The class its files name.
        flags: What its files say of BOS and EOS beside the post-processor.
        pad_is_eos: Whether one token is both.
        chat: Whether it has a chat template.
        used: Whether it was saved after use, truncation and padding in its file.
        cuts_left: Whether it cuts texts at their beginning.
    """

    kind: str
    ends: str
    lower: bool
    side: str
    limit: int | None
    added: str
    named: str
    flags: dict[str, bool]
    pad_is_eos: bool = False
    chat: bool = False
    used: bool = False
    cuts_left: bool = False

    def __str__(self) -> str:
        extras = [f"named {self.named}"] if self.named else []
        extras += [name for name in ("chat", "used", "cuts_left") if getattr(self, name)]
        extras += [f"added {self.added}"] if self.added != "no" else []
        extras += [str(self.flags)] if self.flags else []
        extras += ["lower"] if self.lower else []
        limit = f"limit {self.limit:.0e}" if self.limit else "no limit"
        return " ".join([self.kind, self.ends, self.side, limit, *extras])


def plan_tokenizer(draw: random.Random, *, decoder: bool) -> TokenizerPlan:
    """Draw one that suits a decoder or an encoder."""
    kinds = ("metaspace", "byte-level", "unigram", "wordpiece")
    kind = draw.choices(kinds, (4, 4, 1, 2) if decoder else (0, 2, 3, 5))[0]
    return TokenizerPlan(
        kind=kind,
        ends=draw.choice(ENDS) if draw.random() < 0.985 else "two",
        lower=draw.random() < 0.3,
        side=draw.choice(["left", "right"]),
        limit=draw.choice([64, 128, int(1e30), None]),
        added=draw.choices(["no", "resized", "no rows"], (12, 3, 0.2))[0],
        named=draw.choice(_CLASSES[kind]),
        flags=draw.choice(_FLAGS) if decoder else {},
        pad_is_eos=decoder and draw.random() < 0.2,
        chat=decoder and draw.random() < 0.06,
        used=draw.random() < 0.3,
        cuts_left=draw.random() < 0.015,
    )


def write_tokenizer(
    plan: TokenizerPlan, directory: Path, *, roberta: bool
) -> tuple[PreTrainedTokenizerFast, int]:
    """Write its files.

    Args:
        plan: What it is like.
        directory: Where to.
        roberta: Whether the padding's id must be 1.

    Returns:
        The tokenizer, and how many rows of embeddings go with it.
    """
    marks = _ROBERTA_MARKS if roberta else _LLAMA_MARKS
    if plan.kind == "wordpiece":
        marks = ["<s>", "[PAD]", "</s>", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        marks = marks if roberta else _BERT_MARKS
    backend = _BACKENDS[plan.kind](marks, plan.lower)
    cls, sep = ("[CLS]", "[SEP]") if plan.kind == "wordpiece" else ("<s>", "</s>")
    processor = _post_processor(plan, backend, cls, sep)
    if processor is not None:
        backend.post_processor = processor
    pad, unk, mask = (
        next(mark for mark in marks if name in mark.lower()) for name in ("pad", "unk", "mask")
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="</s>" if plan.pad_is_eos else pad,
        unk_token=unk,
        cls_token=cls,
        sep_token=sep,
        mask_token=AddedToken(mask, lstrip=True, special=True),
        bos_token="<s>",
        eos_token="</s>",
        padding_side=plan.side,
        model_max_length=plan.limit or int(1e30),
    )
    if plan.chat:
        tokenizer.chat_template = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}"
    if plan.used:
        tokenizer.backend_tokenizer.enable_truncation(max_length=20)
        tokenizer.backend_tokenizer.enable_padding(direction=plan.side)
    rows = len(tokenizer)
    if plan.added != "no":
        tokenizer.add_tokens(["hills", AddedToken("<new>", lstrip=True, rstrip=True)])
    tokenizer.save_pretrained(directory)
    _edit(plan, directory / "tokenizer_config.json")
    return tokenizer, len(tokenizer) if plan.added == "resized" else rows


def _edit(plan: TokenizerPlan, path: Path) -> None:
    """Say in the file what other versions of transformers, or authors by hand, say."""
    values = {**json.loads(path.read_text()), **plan.flags}
    if plan.named:
        values["tokenizer_class"] = plan.named
        values.pop("backend", None)
    if plan.limit is None:
        values.pop("model_max_length", None)
    if plan.cuts_left:
        values["truncation_side"] = "left"
    path.write_text(json.dumps(values, indent=2))


def _wordpiece(marks: list[str], lower: bool) -> Tokenizer:
    pieces = dict.fromkeys([*marks, *WORDS.split(), *_LETTERS, *[f"##{c}" for c in _LETTERS]])
    numbers = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lower)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


def _byte_level(marks: list[str], lower: bool) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    numbers, merges = _merged([*marks, *alphabet], "Ġ")
    backend = Tokenizer(models.BPE(numbers, merges))
    backend.normalizer = normalizers.Lowercase() if lower else normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return backend


def _metaspace(marks: list[str], lower: bool) -> Tokenizer:
    """Llama's: every space is a mark of its own, unknown characters fall apart into bytes."""
    numbers, merges = _merged(
        [*marks, *[f"<0x{byte:02X}>" for byte in range(256)], *_LETTERS, "▁"], "▁"
    )
    backend = Tokenizer(
        models.BPE(numbers, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    if lower:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return backend


def _unigram(marks: list[str], lower: bool) -> Tokenizer:
    words = [f"▁{word}" for word in WORDS.split()]
    pieces = dict.fromkeys([*marks, *words, *WORDS.split(), *_LETTERS, "▁"])
    scores = [(piece, 0.0 if piece in marks else -12.0 / len(piece)) for piece in pieces]
    unknown = next(number for number, mark in enumerate(marks) if "unk" in mark)
    backend = Tokenizer(models.Unigram(scores, unk_id=unknown))
    chain = [normalizers.NFKC(), *([normalizers.Lowercase()] if lower else [])]
    backend.normalizer = normalizers.Sequence(chain)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    return backend


_BACKENDS = {
    "wordpiece": _wordpiece,
    "byte-level": _byte_level,
    "metaspace": _metaspace,
    "unigram": _unigram,
}


def _merged(pieces: list[str], space: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary in which words are built from their first letter on."""
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS.split():
        for form in (space + word, word):
            for end in range(1, len(form)):
                merges[form[:end], form[end]] = None
    vocabulary = dict.fromkeys([*pieces, *[first + second for first, second in merges]])
    return {piece: number for number, piece in enumerate(vocabulary)}, list(merges)


def _post_processor(plan: TokenizerPlan, backend: Tokenizer, cls: str, sep: str) -> Any:
    """What goes around a text; byte-level ones also carry a step that changes no ids."""

    def template(*marks: str) -> Any:
        used = [(mark, backend.token_to_id(mark)) for mark in marks if mark != "$A"]
        single = " ".join(marks)
        return processors.TemplateProcessing(
            single=single, pair=f"{single} $B", special_tokens=list(dict(used).items())
        )

    bytes_only = processors.ByteLevel(trim_offsets=False) if plan.kind == "byte-level" else None
    if plan.ends == "nothing":
        return bytes_only
    if plan.ends == "processing":
        ends = [(mark, int(backend.token_to_id(mark) or 0)) for mark in (sep, cls)]
        if plan.kind == "byte-level":
            return processors.RobertaProcessing(*ends, add_prefix_space=False)
        return processors.BertProcessing(*ends)
    found = {
        "both": template(cls, "$A", sep),
        "EOS": template("$A", "</s>"),
        "BOS": template("<s>", "$A"),
        "two": template(cls, "$A", sep, "</s>"),
    }[plan.ends]
    return processors.Sequence([bytes_only, found]) if bytes_only is not None else found
