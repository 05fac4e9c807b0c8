"""How much of a long text a tokenizer need see to make the first so many ids of all of it.

A tokenizer holds some hundred bytes per character of a text, so a text that is far over the limit
is cut before. It is cut only where what follows cannot change the ids that are kept:

- before a space between two letters, if the vocabulary has no entry across such a place. The parts
  before and after it are then tokenised independently of each other.
- where there is none, of BPE vocabularies: whole texts have the end of an entry somewhere among the
  last characters of the head, as many as the longest entry has. No merge crosses it, so what lies
  before is tokenised as if it stood alone. Where heads that end at each of these characters begin
  with the same ids, so does the whole.

Tokenizers with a part that is not known here see all of a text.
"""

from __future__ import annotations

import json
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Encoded = TypeVar("Encoded", bound=Sequence[Any])
FIRST_CHARACTERS, CHARACTERS_PER_ID = 4096, 8  # of a head that is tried; four times as many next
MARGIN = 512  # ids behind those that are kept, which the end of a head may change
_SEARCHED = 4096  # characters at the end of a head in which a space is looked for
_MOST_WORK = 2**23  # characters of all heads that are tokenised to find that they agree
_LONGEST_ENTRY = 256
_PLACE = re.compile(r"[A-Za-z0-9](?= [A-Za-z0-9])")

_NORMALIZERS = frozenset(
    "BertNormalizer Lowercase NFC NFD NFKC NFKD Prepend Precompiled Replace Sequence Strip "
    "StripAccents".split()
)
# Of those, which change no character because of one that is far behind it.
_NEAR = _NORMALIZERS - {"BertNormalizer", "Precompiled", "Strip"}
_PRE_TOKENIZERS = frozenset(
    "BertPreTokenizer ByteLevel Digits Metaspace Punctuation Sequence Split Whitespace "
    "WhitespaceSplit".split()
)
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Patterns that decide where a piece ends by the piece itself and one character behind it.
_PATTERNS = frozenset(
    [
        *(f"{_CONTRACTIONS}{_WORDS}{digits}{_REST}" for digits in (r"\p{N}", r"\p{N}{1,3}")),
        r"\p{L}+|\p{N}{1,4}|[^\p{L}\p{N}]",
        r"\s+",
        r" {2,}",
    ]
)


class Cuts:
    """Where texts may be cut for one tokenizer; found out when the first long text comes."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Look at nothing yet."""
        self._tokenizer, self._lock = tokenizer, threading.Lock()
        self._known: tuple[int, bool, int] | None = None

    def encoded(self, text: str, most: int, encode: Callable[[str], Encoded]) -> Encoded:
        """What `encode` makes of a text, the first `most` items as of the whole.

        Of a text that has more, at least one more is given.

        Args:
            text: The text.
            most: How many items count.
            encode: The tokenizer; one item per token.
        """
        size = FIRST_CHARACTERS + CHARACTERS_PER_ID * most
        while 2 * size < len(text):
            spaces, longest = self._bounds()
            head = self._before_a_space(text, size) if spaces else None
            if head is not None:
                found = encode(head)
                if len(found) >= most + MARGIN:
                    return found
            elif longest and longest * size <= _MOST_WORK and _starts(text[size - longest : size]):
                agreed = self._agreed(text, size, longest, most, encode)
                if agreed is not None:
                    return agreed
            size *= 4
        return encode(text)

    def _before_a_space(self, text: str, size: int) -> str | None:
        places = [match.end() for match in _PLACE.finditer(text, size - _SEARCHED, size)]
        return text[: places[-1]] if places else None

    def _agreed(
        self, text: str, size: int, longest: int, most: int, encode: Callable[[str], Encoded]
    ) -> Encoded | None:
        """What is made of one of the heads, if the first ids of all are the same."""
        found = encode(text[:size])
        first = list(found[:most])
        for end in range(size - longest, size):
            if len(found) < most + MARGIN or list(found[:most]) != first:
                return None
            found = encode(text[:end])
        return found

    def _bounds(self) -> tuple[bool, int]:
        """Whether texts may be cut before spaces, and the length of the longest entry; 0 = none."""
        with self._lock:
            size = len(self._tokenizer)
            if self._known is None or self._known[0] != size:
                self._known = size, *_bounds_of(self._tokenizer)
            return self._known[1:]


def _bounds_of(tokenizer: PreTrainedTokenizerFast) -> tuple[bool, int]:
    backend = tokenizer.backend_tokenizer
    whole = json.loads(backend.to_str())
    model, added = whole["model"], [token["content"] for token in whole["added_tokens"]]
    parts = list(_parts(whole["normalizer"]))
    pieces = list(_parts(whole["pre_tokenizer"]))
    known = (
        {part["type"] for part in parts} <= _NORMALIZERS
        and {piece["type"] for piece in pieces} <= _PRE_TOKENIZERS
        and all(_is_known(part) for part in [*parts, *pieces])
        and model["type"] in ("BPE", "Unigram", "WordPiece", "WordLevel")
        and not model.get("dropout")
        and not any(" " in content for content in added)
    )
    entries = backend.get_vocab(with_added_tokens=False)
    if not known or any(re.search("[A-Za-z0-9][\u2581\u0120 ]", entry) for entry in entries):
        return False, 0
    near = {part["type"] for part in parts} <= _NEAR and model["type"] == "BPE"
    longest = max(map(len, [*entries, *added]), default=0)
    return True, longest if near and longest <= _LONGEST_ENTRY else 0


def _parts(part: Any) -> Iterator[dict[str, Any]]:
    """A part of a tokenizer, or those of a sequence of parts."""
    if part is None:
        return
    inner = part.get("normalizers") or part.get("pretokenizers")
    if part["type"] != "Sequence":
        yield part
    for one in inner or ():
        yield from _parts(one)


def _is_known(part: dict[str, Any]) -> bool:
    """Whether the pattern of a part, if it has one, is a plain string or a known expression."""
    pattern = part.get("pattern")
    return not isinstance(pattern, dict) or (
        len(pattern.get("String", "xx")) == 1 or pattern.get("Regex") in _PATTERNS
    )


def _starts(text: str) -> bool:
    """Whether no character joins the one before it in any normal form."""
    return unicodedata.is_normalized("NFC", text) and not any(map(unicodedata.combining, text))
