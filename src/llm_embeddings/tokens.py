"""Text -> token ids and the position from which they are pooled. Knows no tensor.

BOS and EOS are put here, never by the tokenizer's post-processor: transformers 5 drops some of them
silently. The tokenizer is only asked for the ids of plain strings and is never reconfigured, so
threads may share it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from .cutting import CHARACTERS_PER_ID, FIRST_CHARACTERS, Cuts
from .joins import NO_OFFSETS, Offsets, Ranges, cut_text, locate, segments, separated
from .recipe import SENTENCE_TRANSFORMERS, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as the backbone is fed it.

    Attributes:
        ids: All token ids, BOS and EOS included.
        start: First pooled position; pooling runs to the end.
        cut: How many tokens the length limit took away; of a text that is far over it, at least
            how many.
        template: How many first tokens come from BOS and prefix alone, whatever the text.
        text_start: First position of the text itself (with offsets only).
        offsets: Character range in the text of each of its tokens (with offsets only).
    """

    ids: list[int]
    start: int
    cut: int = 0
    template: int = 0
    text_start: int = 0
    offsets: Offsets = NO_OFFSETS


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
    cuts: Cuts | None = None

    def encode(self, strings: list[str], most: int | None = None) -> list[list[int]]:
        """Ids of plain strings, without special tokens and without truncation.

        With `most`, those behind the first so many may be fewer or others.
        """
        return self._within(strings, most, lambda some: _ids(self.tokenizer, some))

    def encode_one(self, string: str) -> list[int]:
        return self.encode([string])[0]

    def encode_with_ranges(
        self, strings: list[str], most: int | None = None
    ) -> tuple[list[list[int]], list[Ranges]]:
        """Ids and character ranges; `most` as for `encode`."""
        backend: Any = self.tokenizer.backend_tokenizer

        def located(some: list[str]) -> list[list[tuple[int, tuple[int, int]]]]:
            encoded = backend.encode_batch(some, add_special_tokens=False)
            return [list(zip(row.ids, row.offsets, strict=True)) for row in encoded]

        rows = self._within(strings, most, located)
        return [[token for token, _ in row] for row in rows], [
            [at for _, at in row] for row in rows
        ]

    def encode_located(
        self, strings: list[str], most: int | None = None
    ) -> tuple[list[list[int]], list[Ranges]]:
        """Ids, and character ranges if they are wanted; `most` as for `encode`."""
        if self.with_offsets:
            return self.encode_with_ranges(strings, most)
        return self.encode(strings, most), [[] for _ in strings]

    def _within(
        self, strings: list[str], most: int | None, encode: Callable[[list[str]], list[list[Item]]]
    ) -> list[list[Item]]:
        """What `encode` makes of strings; long ones one by one, and no more of them than needed."""
        cuts, kept = self.cuts, most or 0
        # Twice the head that is tried first: less is not worth a cut.
        short = 2 * (FIRST_CHARACTERS + CHARACTERS_PER_ID * kept)
        if cuts is None or most is None or max(map(len, strings), default=0) <= short:
            return encode(strings)
        made = iter(encode([one for one in strings if len(one) <= short]))
        return [
            next(made)
            if len(one) <= short
            else cuts.encoded(one, kept, lambda head: encode([head])[0])
            for one in strings
        ]


def tokenize(
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    texts: Sequence[str],
    role: str,
    instruction: str | None = None,
    max_length: int | None = None,
    *,
    with_offsets: bool = False,
    cuts: Cuts | None = None,
) -> list[Tokens]:
    """Token ids of `texts`, exactly as the backbone is fed them.

    Args:
        tokenizer: The checkpoint's tokenizer.
        recipe: The checkpoint's recipe.
        texts: Strings; a lone surrogate counts as U+FFFD.
        role: "query", "document" or the name of a prompt.
        instruction: None = the recipe's default for the role, "" = none.
        max_length: Limit in tokens in the recipe's own meaning; None = the recipe's.
        with_offsets: Also say which tokens are the text's and where each stands in it. A text is
            then only ever cut at its end: LLM2Vec's word limit and separator play no part.
        cuts: Where the tokenizer lets long texts be cut before it sees them; None = nowhere.

    Raises:
        ValueError: unknown role, a token that is missing, an instruction that has no place in the
            template or leaves no room for the text.
    """
    prefix = without_lone_surrogates(recipe.prefix(role, instruction))
    bos = special_id(tokenizer, recipe.bos, "bos")
    eos = special_id(tokenizer, recipe.eos, "eos")
    frame = _Frame(
        tokenizer,
        prefix,
        _ids(tokenizer, [prefix])[0],
        recipe.template(role).suffix,
        [] if bos is None else [bos],
        [] if eos is None else [eos],
        recipe.max_length if max_length is None else max_length,
        with_offsets,
        cuts,
    )
    _check_room(frame, recipe)
    clean = [without_lone_surrogates(text) for text in texts]
    if recipe.template(role).trims:
        clean = [text.strip() for text in clean]
    if recipe.join == "segments":
        rows = [_row(frame, *parts) for parts in segments(frame, clean)]
    elif recipe.separator and not with_offsets:
        rows = [_row(frame, *parts) for parts in separated(frame, recipe, clean)]
    else:
        rows = _joined(frame, recipe, clean)
    cut = [row.cut for row in rows if row.cut]
    if cut:
        logger.debug("%d of %d texts lost %d tokens to the limit", len(cut), len(rows), sum(cut))
    return rows


def special_id(
    tokenizer: PreTrainedTokenizerFast, value: bool | str | None, kind: str
) -> int | None:
    """Id of the recipe's BOS or EOS, None where it has none.

    `True` is the tokenizer's own token; for BOS a tokenizer without one (Qwen) is respected.

    Raises:
        ValueError: the token is not in the vocabulary, or still to be read from files.
    """
    if value is False:
        return None
    if value is None:
        raise ValueError(
            f"the recipe leaves {kind} to the checkpoint's tokenizer files, which are read by "
            "Encoder.from_pretrained: load it so, or pass a recipe that names the token"
        )
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
    room = frame.limit - len(frame.bos) - len(frame.eos)
    strings = [frame.prefix + text + frame.suffix for text in texts]
    encoded, ranges = frame.encode_located(strings, room)
    start = 0
    if recipe.pool_span != "all" and frame.prefix:
        start = len(frame.bos) + len(frame.prefix_ids)
    rows = []
    for text, ids, char_ranges in zip(texts, encoded, ranges, strict=True):
        kept, cut, text_start, offsets = ids[:room], max(len(ids) - room, 0), 0, NO_OFFSETS
        if cut and frame.suffix and recipe.truncate == "text":
            kept, char_ranges = cut_text(frame, text, room)
        elif cut and frame.suffix and recipe.truncate == "text_ids":
            tail = frame.encode_one(frame.suffix)
            kept, char_ranges = [*ids[: room - len(tail)], *tail], char_ranges[: room - len(tail)]
        if frame.with_offsets:
            text_start, offsets = locate(frame, text, char_ranges[: len(kept)])
        row = _row(frame, [*frame.bos, *kept, *frame.eos], start, cut, text_start, offsets)
        if recipe.pool_span == "behind_prompt":
            row = replace(row, start=min(start, len(row.ids)))
        elif not (frame.bos or kept or frame.eos) and _sums_to_zero(recipe):
            row = replace(row, start=len(row.ids))
        rows.append(row)
    return rows


def _sums_to_zero(recipe: Recipe) -> bool:
    """Whether no tokens are pooled to zeros, which a head builds on, and not to minus infinity."""
    return recipe.family == SENTENCE_TRANSFORMERS and "max" not in recipe.poolings


def _row(
    frame: _Frame,
    ids: list[int],
    start: int,
    cut: int,
    text_start: int = 0,
    offsets: Offsets = NO_OFFSETS,
) -> Tokens:
    """A row that is never empty, and pools over the whole where it would pool over nothing."""
    if not ids:
        fillers = (frame.tokenizer.eos_token_id, frame.tokenizer.pad_token_id, 0)
        ids = [next(filler for filler in fillers if filler is not None)]
    template = _common([*frame.bos, *frame.prefix_ids], ids)
    return Tokens(ids, start if start < len(ids) else 0, cut, template, text_start, offsets)


def _check_room(frame: _Frame, recipe: Recipe) -> None:
    if recipe.join == "segments":
        return
    taken = len(frame.bos) + len(frame.eos) + len(frame.prefix_ids)
    if recipe.truncate != "end":
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


def without_lone_surrogates(text: str) -> str:
    """A text that can be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
