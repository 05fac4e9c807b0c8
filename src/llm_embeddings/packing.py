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
        masks: By sliding window, made when the first layer asks.
    """

    texts: list[int]
    lengths: torch.Tensor
    seen: torch.Tensor
    length: int
    keys: int
    masks: dict[int | None, torch.Tensor | None] = field(default_factory=dict)


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

    def take(self, states: torch.Tensor) -> torch.Tensor:
        """Keys or values in the order of `keys`."""
        return states if self.index is None else states[self.index]


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
        self.buckets = [_bucket(texts, lengths, seen) for texts in groups]
        firsts = _cumulated([part.length for part in cached])
        self.offset = firsts.pop()
        firsts += [self.offset + self.starts[text] for text in range(len(lengths))]
        self.key_starts = [0 if parent is None else firsts[parent] for parent in parents]
        self.kept = {text: Cached(lengths[text], {}) for text in keep}
        self._index()

    def _index(self) -> None:
        """Where padded rows take their tokens from, and where tokens find their padded row."""
        queries, keys, back, positions = [], [], [], []
        slots = 0
        for bucket in self.buckets:
            own = torch.tensor([self.starts[text] for text in bucket.texts])[:, None]
            shared = torch.tensor([self.key_starts[text] for text in bucket.texts])[:, None]
            seen, last = bucket.seen[:, None], bucket.lengths[:, None] - 1
            column = torch.arange(bucket.length)[None]
            # Padding repeats the text's own last token: whatever it holds, no other text sees it.
            queries.append((own + torch.minimum(column, last)).flatten())
            real = (column <= last).flatten()
            back.append(slots + real.nonzero().flatten())
            positions.append((seen + column).flatten()[real])
            slots += len(real)
            column = torch.arange(bucket.keys)[None]
            inside = self.offset + own + torch.minimum(column - seen, last)
            keys.append(torch.where(column < seen, shared + column, inside).flatten())
        self.positions = torch.cat(positions).to(self._device)
        tokens = len(self.positions)
        self._queries = None if slots == tokens else torch.cat(queries).to(self._device)
        self._back = None if slots == tokens else torch.cat(back).to(self._device)
        taken = torch.cat(keys)
        all_in_order = torch.equal(taken, torch.arange(self.offset + tokens))
        self._keys = None if all_in_order else taken.to(self._device)

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
        return _split(states, self._queries, [(len(b.texts), b.length) for b in self.buckets])

    def padded_keys(self, states: torch.Tensor) -> list[torch.Tensor]:
        """Keys or values `[cached + tokens, ...]` as `[texts, keys, ...]` per bucket."""
        return _split(states, self._keys, [(len(b.texts), b.keys) for b in self.buckets])

    def joined(self, padded: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse of `padded`."""
        states = torch.cat([part.flatten(0, 1) for part in padded])
        return states if self._back is None else states[self._back.to(states.device)]

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
        if self.cached:
            key = torch.cat([*(part.layers[layer][0] for part in self.cached), key])
            value = torch.cat([*(part.layers[layer][1] for part in self.cached), value])
        return self._kernel(self, query, key, value, scaling, window)[None]

    def mask(
        self, bucket: Bucket, window: int | None, like: torch.Tensor
    ) -> tuple[torch.Tensor | None, bool]:
        """Additive mask that broadcasts to `[texts, 1, length, keys]`, and `is_causal`."""
        if window is not None and bucket.keys <= window:
            window = None
        if self.causal and window is None and not bool(bucket.seen.any()):
            return None, True  # what is padded stands on the right, where no token looks
        if window not in bucket.masks:
            visible = _visible(bucket, window, causal=self.causal)
            if visible is not None:
                blank = torch.zeros(visible.shape, dtype=like.dtype)
                visible = blank.masked_fill_(~visible, float("-inf")).to(like.device)
            bucket.masks[window] = visible
        return bucket.masks[window], False


Kernel = Callable[
    [Pack, torch.Tensor, torch.Tensor, torch.Tensor, float | None, int | None], torch.Tensor
]


def _bucket(texts: list[int], lengths: Sequence[int], seen: Sequence[int]) -> Bucket:
    own, before = [lengths[text] for text in texts], [seen[text] for text in texts]
    keys = max(a + b for a, b in zip(own, before, strict=True))
    return Bucket(texts, torch.tensor(own), torch.tensor(before), max(own), keys)


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


def _split(
    states: torch.Tensor, index: torch.Tensor | None, shapes: Sequence[tuple[int, int]]
) -> list[torch.Tensor]:
    if index is not None:
        states = states[index.to(states.device)]
    parts = states.split([texts * length for texts, length in shapes])
    return [part.unflatten(0, shape) for part, shape in zip(parts, shapes, strict=True)]


def _cumulated(sizes: Sequence[int]) -> list[int]:
    """Where each part starts, and where the last ends."""
    return [0, *torch.tensor(sizes, dtype=torch.int64).cumsum(0).tolist()]
