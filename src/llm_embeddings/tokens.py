"""Text -> token ids and the position from which they are pooled. Knows no tensor.

BOS and EOS are put here, never by the tokenizer's post-processor: transformers 5 drops some of them
silently. The tokenizer is only asked for the ids of plain strings and is never reconfigured, so
threads may share it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .recipe import Recipe, Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as the backbone is fed it.

    Attributes:
        ids: All token ids, BOS and EOS included.
        start: First pooled position; pooling runs to the end.
        cut: How many tokens the length limit took away.
        template: How many of the first tokens the template alone decides: BOS and prefix. Where a
            tokenizer merges across the seam it is fewer than these have on their own.
        text_start: First position of the text itself (with offsets only).
        offsets: Character range in the text of each of its tokens (with offsets only).
    """

    ids: list[int]
    start: int
    cut: int = 0
    template: int = 0
    text_start: int = 0
    offsets: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Frame:
    """What is the same for all texts of a call: what stands around them, and the limit."""

    tokenizer: PreTrainedTokenizerFast
    prefix: str
    prefix_ids: list[int]
    suffix: str
    bos: list[int]
    eos: list[int]
    limit: int
    with_offsets: bool

    def encode(self, strings: list[str]) -> list[list[int]]:
        """Ids of plain strings, without special tokens and without truncation."""
        return _ids(self.tokenizer, strings)

    def encode_one(self, string: str) -> list[int]:
        return self.encode([string])[0]

    def encode_with_ranges(
        self, strings: list[str]
    ) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        """Ids and character ranges."""
        backend: Any = self.tokenizer.backend_tokenizer
        encoded = backend.encode_batch(strings, add_special_tokens=False)
        return [row.ids for row in encoded], [row.offsets for row in encoded]

    def encode_located(
        self, strings: list[str]
    ) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        """Ids, and character ranges if they are wanted."""
        if self.with_offsets:
            return self.encode_with_ranges(strings)
        return self.encode(strings), [[] for _ in strings]


def tokenize(
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    texts: Sequence[str],
    role: Role,
    instruction: str | None = None,
    max_length: int | None = None,
    *,
    with_offsets: bool = False,
) -> list[Tokens]:
    """Token ids of `texts`, exactly as the backbone is fed them.

    Args:
        tokenizer: The checkpoint's tokenizer.
        recipe: The checkpoint's recipe.
        texts: Strings; a lone surrogate counts as U+FFFD.
        role: "query" or "document".
        instruction: None = the recipe's default for the role, "" = none.
        max_length: Limit in tokens in the recipe's own meaning; None = the recipe's.
        with_offsets: Also say which tokens are the text's and where each stands in it. A text is
            then only ever cut at its end: LLM2Vec's word limit and separator play no part.

    Raises:
        ValueError: unknown role, a token that is missing, an instruction that has no place in the
            template or leaves no room for the text.
    """
    prefix = without_lone_surrogates(recipe.prefix(role, instruction))
    frame = _Frame(
        tokenizer,
        prefix,
        _ids(tokenizer, [prefix])[0],
        recipe.template(role).suffix,
        _as_list(special_id(tokenizer, recipe.bos, "bos")),
        _as_list(special_id(tokenizer, recipe.eos, "eos")),
        recipe.max_length if max_length is None else max_length,
        with_offsets,
    )
    _check_room(frame, recipe)
    clean = [without_lone_surrogates(text) for text in texts]
    if recipe.join == "segments":
        rows = _segments(frame, clean)
    elif recipe.separator and not with_offsets:
        rows = _separated(frame, recipe, clean)
    else:
        rows = _joined(frame, recipe, clean)
    cut = [row.cut for row in rows if row.cut]
    if cut:
        logger.debug("%d of %d texts lost %d tokens to the limit", len(cut), len(rows), sum(cut))
    return rows


def special_id(tokenizer: PreTrainedTokenizerFast, value: bool | str, kind: str) -> int | None:
    """Id of the recipe's BOS or EOS, None where it has none.

    `True` is the tokenizer's own token; for BOS a tokenizer without one (Qwen) is respected.

    Raises:
        ValueError: the token is not in the vocabulary.
    """
    if value is False:
        return None
    token = getattr(tokenizer, f"{kind}_token") if value is True else value
    if token is None and kind == "bos":
        return None
    token_id = None if token is None else tokenizer.backend_tokenizer.token_to_id(token)
    if token_id is None:
        raise ValueError(
            f"the recipe wants {kind}={value!r}, which the tokenizer does not have. Is this "
            f"checkpoint of the family you named? Else pass a recipe with another {kind}"
        )
    return int(token_id)


def _joined(frame: _Frame, recipe: Recipe, texts: list[str]) -> list[Tokens]:
    """Prefix, text and suffix tokenised as one string.

    The pooled text begins where the prefix ends, counted by tokenising the prefix alone, BOS
    included; without a prefix BOS is pooled too (gritlm 1.0.2 `GritLM.encode`).
    """
    encoded, ranges = frame.encode_located([frame.prefix + t + frame.suffix for t in texts])
    room = frame.limit - len(frame.bos) - len(frame.eos)
    start = 0
    if recipe.pool_span == "text" and frame.prefix:
        start = len(frame.bos) + len(frame.prefix_ids)
    rows = []
    for text, ids, char_ranges in zip(texts, encoded, ranges, strict=True):
        kept, cut = ids[:room], max(len(ids) - room, 0)
        if cut and recipe.truncate == "text" and frame.suffix:
            kept, char_ranges = _cut_text(frame, text, room)
        text_start, offsets = _locate(frame, text, char_ranges[: len(kept)])
        rows.append(_row(frame, [*frame.bos, *kept, *frame.eos], start, cut, text_start, offsets))
    return rows


def _segments(frame: _Frame, texts: list[str]) -> list[Tokens]:
    """Prefix, text and suffix tokenised one by one; the limit is the text's alone (LLaRA)."""
    prefix = [*frame.bos, *frame.prefix_ids]
    suffix = [*frame.encode_one(frame.suffix), *frame.eos]
    encoded, ranges = frame.encode_located(texts)
    return [
        _row(
            frame,
            [*prefix, *ids[: frame.limit], *suffix],
            len(prefix),
            max(len(ids) - frame.limit, 0),
            len(prefix),
            tuple(char_ranges[: frame.limit]),
        )
        for ids, char_ranges in zip(encoded, ranges, strict=True)
    ]


def _separated(frame: _Frame, recipe: Recipe, texts: list[str]) -> list[Tokens]:
    """LLM2Vec's way (llm2vec 0.2.3 `LLM2Vec._convert_to_str`, `encode`, `tokenize`).

    A text over `max_text_length` loses whole words; behind a suffix its trailing white space goes
    (there the reference strips the templated string); marks in it are removed. The pooled span is
    as many last tokens as the text up to its first mark, suffix included, has when tokenised alone.
    """
    mark = recipe.separator or ""
    texts = _shortened(frame, recipe, texts)
    closed = [(text.rstrip() if frame.suffix else text) + frame.suffix for text in texts]
    encoded = frame.encode([frame.prefix + text.replace(mark, "") for text in closed])
    counted = frame.encode([text.split(mark)[0] for text in closed])
    room = frame.limit - len(frame.bos) - len(frame.eos)
    rows = []
    for ids, counted_ids in zip(encoded, counted, strict=True):
        row = [*frame.bos, *ids[:room], *frame.eos]
        pooled = min(len(counted_ids), frame.limit) if recipe.pool_span == "text" else len(row)
        rows.append(_row(frame, row, max(len(row) - pooled, 0), max(len(ids) - room, 0)))
    return rows


def _shortened(frame: _Frame, recipe: Recipe, texts: list[str]) -> list[str]:
    """Drop words until a text has at most `max_text_length` tokens.

    The length is measured after a cut at the sequence limit, as in the reference. Where no word
    would be left (one long word: Chinese, a URL) the reference embeds the empty string; here the
    text is cut after its last token that fits.
    """
    wanted = recipe.max_text_length
    if wanted is None:
        return texts
    shortened = []
    for text, ids in zip(texts, frame.encode(texts), strict=True):
        length = min(len(ids), frame.limit)
        while length > wanted:
            words = text.split()
            kept = int(len(words) * (wanted / length))
            if kept == 0:
                text = text[: frame.encode_with_ranges([text])[1][0][wanted - 1][1]]
                break
            text = " ".join(words[:kept])
            length = min(len(frame.encode_one(text)), frame.limit)
        shortened.append(text)
    return shortened


def _cut_text(frame: _Frame, text: str, room: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Cut the text so that prefix, text and suffix fit `room` tokens, suffix whole."""
    string = frame.prefix + text
    ranges = frame.encode_with_ranges([string])[1][0]
    keep = room - len(frame.encode_one(frame.suffix))
    while True:
        end = max(ranges[keep - 1][1], len(frame.prefix))
        ids, cut_ranges = frame.encode_with_ranges([string[:end] + frame.suffix])
        if len(ids[0]) <= room:
            return ids[0], cut_ranges[0]
        keep -= 1


def _locate(
    frame: _Frame, text: str, ranges: list[tuple[int, int]]
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """First position of the text in a row, and the range in the text of each of its tokens."""
    begin, end = len(frame.prefix), len(frame.prefix) + len(text)
    inside = [i for i, (first, last) in enumerate(ranges) if last > begin and first < end]
    if not inside:
        return 0, ()
    offsets = tuple(
        (max(ranges[i][0], begin) - begin, min(ranges[i][1], end) - begin) for i in inside
    )
    return len(frame.bos) + inside[0], offsets


def _row(
    frame: _Frame,
    ids: list[int],
    start: int,
    cut: int,
    text_start: int = 0,
    offsets: tuple[tuple[int, int], ...] = (),
) -> Tokens:
    """A row that is never empty and never pools over nothing."""
    if not ids:
        fillers = (frame.tokenizer.eos_token_id, frame.tokenizer.pad_token_id, 0)
        ids = [next(filler for filler in fillers if filler is not None)]
    template = _common([*frame.bos, *frame.prefix_ids], ids)
    return Tokens(ids, start if start < len(ids) else 0, cut, template, text_start, offsets)


def _check_room(frame: _Frame, recipe: Recipe) -> None:
    if recipe.join == "segments":
        return
    taken = len(frame.bos) + len(frame.eos) + len(frame.prefix_ids)
    if recipe.truncate == "text":
        taken += len(frame.encode_one(frame.suffix))
    if taken >= frame.limit:
        raise ValueError(
            f"the prompt takes {taken} tokens and max_length is {frame.limit}: no room is left "
            "for the text. Shorten the instruction or raise max_length"
        )


def _common(a: list[int], b: list[int]) -> int:
    """How many first items are the same."""
    if b[: len(a)] == a:
        return len(a)
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(b))


def _ids(tokenizer: PreTrainedTokenizerFast, strings: list[str]) -> list[list[int]]:
    backend: Any = tokenizer.backend_tokenizer
    return [row.ids for row in backend.encode_batch_fast(strings, add_special_tokens=False)]


def _as_list(token_id: int | None) -> list[int]:
    return [] if token_id is None else [token_id]


def without_lone_surrogates(text: str) -> str:
    """A text that can be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
