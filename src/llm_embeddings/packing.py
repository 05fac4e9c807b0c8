"""Many texts in one row of tokens, without padding: where each lies, and whose keys it sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from .batching import group


@dataclass(frozen=True, slots=True)
class Cached:
    """Keys and values of some first tokens, `[length, heads, dim]` each, per layer."""

    length: int
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Texts of like length in a pack, which attention sees padded to the longest.

    Attributes:
        texts: Which texts.
        lengths: `[texts]`, int64, on the CPU: their tokens.
        seen: `[texts]`, int64, on the CPU: shared tokens before each.
        length: Tokens of the longest.
        keys: Keys of the one that has most.
        place: Their tokens in the row.
        fill: `[texts x length]`, int64: which of these tokens padded rows hold; None = in order.
        real: Which rows of the padded ones are tokens; None = all.
        source: What they continue: nothing, one of the pack's `cached`, or, by `[texts x keys]`,
            keys of the pack.
        masks: What `Pack.mask` gives, by sliding window, made when the first layer asks.
    """

    texts: list[int]
    lengths: torch.Tensor
    seen: torch.Tensor
    length: int
    keys: int
    place: slice
    fill: torch.Tensor | None
    real: torch.Tensor | None
    source: int | torch.Tensor | None
    masks: dict[int | None, tuple[torch.Tensor | None, bool]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ragged:
    """A pack as variable-length kernels take it: texts one after the other.

    Attributes:
        queries: `[texts + 1]`, int32: where the queries of each text begin.
        keys: `[texts + 1]`, int32: where the keys of each text begin.
        most_queries: Tokens of the longest text.
        most_keys: Keys of the text that has most.
        index: Which of the pack's keys; None = all in order.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    most_queries: int
    most_keys: int
    index: torch.Tensor | None

    def take(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Keys or values, cached ones first, in the order of `keys`."""
        states = parts[0] if len(parts) == 1 else torch.cat(parts)
        return states if self.index is None else states[self.index.to(states.device)]


class Pack:
    """Many texts in one row of tokens.

    Attributes:
        order: Texts in the order of their tokens in the row.
        positions: `[tokens]`, int64: position of each token in its own text.
        buckets: The texts, grouped by length.
        kept: Keys and values of the texts that were to be kept, filled by the pass.
        causal: Attention direction.
        cached: Keys and values from earlier passes; they stand before those of the row.
        starts: First token of each text in the row.
        key_starts: First shared key of each text.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        parents: Sequence[int | None],
        cached: Sequence[Cached] = (),
        *,
        causal: bool,
        kernel: Kernel,
        device: torch.device,
        keep: Sequence[int] = (),
    ) -> None:
        """Lay out texts.

        Args:
            lengths: Tokens of each text, without those it shares.
            parents: What each text continues: `i` is `cached[i]`, `len(cached) + i` is text i of
                this pack, None is nothing. Only causal texts may continue something.
            cached: Keys and values from earlier passes.
            causal: Attention direction.
            kernel: One of `kernels`.
            device: Where the row is.
            keep: Texts whose keys and values are wanted afterwards.
        """
        sizes = [*(part.length for part in cached), *lengths]
        seen = [0 if parent is None else sizes[parent] for parent in parents]
        groups = group(lengths, [a + b for a, b in zip(seen, lengths, strict=True)])
        self.causal, self.cached, self._kernel, self._device = causal, cached, kernel, device
        self.order = [text for texts in groups for text in texts]
        firsts = _cumulated([lengths[text] for text in self.order])
        self.starts = dict(zip(self.order, firsts, strict=False))
        firsts = _cumulated([part.length for part in cached])
        self.offset = firsts.pop()
        firsts += [self.offset + self.starts[text] for text in range(len(lengths))]
        self.key_starts = [0 if parent is None else firsts[parent] for parent in parents]
        self._firsts = [self.starts[text] for text in range(len(lengths))]
        self._lengths = lengths
        self.kept = {text: Cached(lengths[text], {}) for text in keep}
        self.buckets = [self._bucket(texts, lengths, seen, parents) for texts in groups]
        positions = [torch.arange(seen[text], seen[text] + lengths[text]) for text in self.order]
        self.positions = torch.cat(positions).to(device)

    def _bucket(
        self,
        texts: list[int],
        all_lengths: Sequence[int],
        all_seen: Sequence[int],
        parents: Sequence[int | None],
    ) -> Bucket:
        lengths = torch.tensor([all_lengths[text] for text in texts])
        seen = torch.tensor([all_seen[text] for text in texts])
        first = self.starts[texts[0]]
        starts = torch.tensor([self.starts[text] - first for text in texts])[:, None]
        last = lengths[:, None] - 1
        length, keys = int(lengths.max()), int((lengths + seen).max())
        column = torch.arange(length)
        inside = column <= last
        fill = real = None
        if not bool(inside.all()):
            # Padding repeats the text's own last token: whatever it holds, no other text sees it.
            fill = (starts + torch.minimum(column, last)).flatten().to(self._device)
            real = inside.flatten().nonzero().flatten().to(self._device)
        place = slice(first, first + int(lengths.sum()))
        origins = {parents[text] for text in texts}
        source: int | torch.Tensor | None = origins.pop() if len(origins) == 1 else -1
        if source is not None and not 0 <= source < len(self.cached):
            column = torch.arange(keys)
            shared = torch.tensor([self.key_starts[text] for text in texts])[:, None] + column
            own = self.offset + first + starts + torch.minimum(column - seen[:, None], last)
            source = torch.where(column < seen[:, None], shared, own).flatten().to(self._device)
        return Bucket(texts, lengths, seen, length, keys, place, fill, real, source)

    @cached_property
    def ragged(self) -> Ragged:
        """The pack without buckets."""
        lengths = [int(n) for bucket in self.buckets for n in bucket.lengths]
        seen = [int(n) for bucket in self.buckets for n in bucket.seen]
        index = []
        for text, length, before in zip(self.order, lengths, seen, strict=True):
            first = self.offset + self.starts[text]
            index.append(torch.arange(before) + self.key_starts[text])
            index.append(torch.arange(first, first + length))
        taken = torch.cat(index)
        in_order = torch.equal(taken, torch.arange(self.offset + sum(lengths)))
        keys = [a + b for a, b in zip(lengths, seen, strict=True)]
        return Ragged(
            torch.tensor(_cumulated(lengths), dtype=torch.int32, device=self._device),
            torch.tensor(_cumulated(keys), dtype=torch.int32, device=self._device),
            max(lengths),
            max(keys),
            None if in_order else taken.to(self._device),
        )

    def padded(self, states: torch.Tensor) -> list[torch.Tensor]:
        """States `[tokens, ...]` of the row as `[texts, length, ...]` per bucket."""
        return [_padded(bucket, states) for bucket in self.buckets]

    def padded_keys(self, states: torch.Tensor, cached: list[torch.Tensor]) -> list[torch.Tensor]:
        """Keys or values `[tokens, ...]`, behind the shared ones: `[texts, keys, ...]` each."""
        whole = None
        found = []
        for bucket in self.buckets:
            if isinstance(bucket.source, torch.Tensor):
                whole = torch.cat([*cached, states]) if whole is None else whole
                taken = whole[bucket.source.to(states.device)]
                found.append(taken.unflatten(0, (len(bucket.texts), bucket.keys)))
                continue
            own = _padded(bucket, states)
            if bucket.source is not None:
                before = cached[bucket.source].expand(len(own), *([-1] * states.ndim))
                own = torch.cat([before, own], 1)
            found.append(own)
        return found

    def joined(self, padded: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse of `padded`."""
        parts = []
        for bucket, part in zip(self.buckets, padded, strict=True):
            rows = part.flatten(0, 1)
            parts.append(rows if bucket.real is None else rows[bucket.real.to(rows.device)])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def apart(self, states: torch.Tensor) -> list[torch.Tensor]:
        """States `[tokens, ...]` of the row as `[length, ...]` per text."""
        return [states[at : at + n] for at, n in zip(self._firsts, self._lengths, strict=True)]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """One layer's attention: `[1, heads, tokens, dim]` each -> `[1, tokens, heads, dim]`."""
        query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
        for text, kept in self.kept.items():
            place = slice(self.starts[text], self.starts[text] + kept.length)
            kept.layers[layer] = key[place].clone(), value[place].clone()
        cached = [part.layers[layer] for part in self.cached]
        return self._kernel(self, query, key, value, cached, scaling, window)[None]

    def mask(
        self, bucket: Bucket, window: int | None, like: torch.Tensor
    ) -> tuple[torch.Tensor | None, bool]:
        """Additive mask that broadcasts to `[texts, 1, length, keys]`, and `is_causal`."""
        if window not in bucket.masks:
            short = window is None or bucket.keys <= window
            if self.causal and short and not bool(bucket.seen.any()):
                # What is padded stands on the right, where no token looks.
                bucket.masks[window] = (None, True)
            else:
                visible = _visible(bucket, None if short else window, causal=self.causal)
                if visible is not None:
                    blank = torch.zeros(visible.shape, dtype=like.dtype)
                    visible = blank.masked_fill_(~visible, float("-inf")).to(like.device)
                bucket.masks[window] = (visible, False)
        mask, is_causal = bucket.masks[window]
        return None if mask is None else mask.to(like.device), is_causal


KeysAndValues = Sequence[tuple[torch.Tensor, torch.Tensor]]
Kernel = Callable[
    [Pack, torch.Tensor, torch.Tensor, torch.Tensor, KeysAndValues, float | None, int | None],
    torch.Tensor,
]


def _visible(bucket: Bucket, window: int | None, *, causal: bool) -> torch.Tensor | None:
    """Which keys each token sees, `[texts or 1, 1, length or 1, keys]`; None = all."""
    key = torch.arange(bucket.keys)
    if not causal:
        whole = bool((bucket.lengths == bucket.length).all())
        return None if whole else (key < bucket.lengths[:, None])[:, None, None]
    same = bool((bucket.seen == bucket.seen[0]).all())
    seen = bucket.seen[:1] if same else bucket.seen
    position = (seen[:, None] + torch.arange(bucket.length))[..., None]
    visible = key <= position
    if window is not None:
        visible &= key > position - window
    return visible[:, None]


def _padded(bucket: Bucket, states: torch.Tensor) -> torch.Tensor:
    part = states[bucket.place]
    if bucket.fill is not None:
        part = part[bucket.fill.to(part.device)]
    found: torch.Tensor = part.unflatten(0, (len(bucket.texts), bucket.length))
    return found


def _cumulated(sizes: Sequence[int]) -> list[int]:
    """Where each part starts, and where the last ends."""
    return [0, *torch.tensor(sizes, dtype=torch.int64).cumsum(0).tolist()]
