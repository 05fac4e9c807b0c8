"""Many texts in one row of tokens, without padding: where each lies, and whose keys it sees."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from ..batching import group
from .padding import Padding


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
        lengths: `[texts]`, int64, on the CPU: their queries.
        seen: `[texts]`, int64, on the CPU: keys before the first query of each.
        length: Queries of the text that has most.
        keys: Keys of the text that has most.
        queries: Padding of the queries.
        own: Padding of the keys, without shared ones.
        source: What they continue: nothing, one of the pack's `cached`, or, by `[texts x keys]`,
            keys of the pack.
        masks: What `Pack.mask` gives, by sliding window, made when the first layer asks.
    """

    texts: list[int]
    lengths: torch.Tensor
    seen: torch.Tensor
    length: int
    keys: int
    queries: Padding
    own: Padding
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
        rows: `[queries]`, int64: tokens that have queries; only of a pack made by `last`.
        causal: Attention direction.
        cached: Keys and values from earlier passes; they stand before those of the row.
        starts: First token of each text in the row.
        key_starts: First shared key of each text.
    """

    rows: torch.Tensor

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
        keys = int((lengths + seen).max())
        own = Padding.of(self.starts[texts[0]], lengths, self._device)
        origins = {parents[text] for text in texts}
        source: int | torch.Tensor | None = origins.pop() if len(origins) == 1 else -1
        if source is not None and not 0 <= source < len(self.cached):
            column = torch.arange(keys)
            shared = torch.tensor([self.key_starts[text] for text in texts])[:, None] + column
            starts = torch.tensor([self.offset + self.starts[text] for text in texts])[:, None]
            after = starts + torch.minimum(column - seen[:, None], lengths[:, None] - 1)
            source = torch.where(column < seen[:, None], shared, after).flatten().to(self._device)
        return Bucket(texts, lengths, seen, int(lengths.max()), keys, own, own, source)

    def last(self, wanted: Sequence[int]) -> Pack:
        """The same texts and keys, with queries of the last `wanted` tokens of each text only."""
        pack = copy.copy(self)
        pack.__dict__.pop("ragged", None)
        ends = [(self.starts[text] + self._lengths[text], wanted[text]) for text in self.order]
        pack.rows = torch.cat([torch.arange(end - n, end) for end, n in ends]).to(self._device)
        pack.buckets, at = [], 0
        for bucket in self.buckets:
            lengths = torch.tensor([wanted[text] for text in bucket.texts])
            pack.buckets.append(
                replace(
                    bucket,
                    lengths=lengths,
                    seen=bucket.seen + bucket.lengths - lengths,
                    length=int(lengths.max()),
                    queries=Padding.of(at, lengths, self._device),
                    masks={},
                )
            )
            at += int(lengths.sum())
        return pack

    @cached_property
    def ragged(self) -> Ragged:
        """The pack without buckets."""
        lengths = [int(n) for bucket in self.buckets for n in bucket.lengths]
        keys = [int(n) for bucket in self.buckets for n in bucket.lengths + bucket.seen]
        index = []
        for text, all_keys in zip(self.order, keys, strict=True):
            first, own = self.offset + self.starts[text], self._lengths[text]
            index.append(torch.arange(all_keys - own) + self.key_starts[text])
            index.append(torch.arange(first, first + own))
        taken = torch.cat(index)
        in_order = torch.equal(taken, torch.arange(self.offset + sum(self._lengths)))
        return Ragged(
            torch.tensor(_cumulated(lengths), dtype=torch.int32, device=self._device),
            torch.tensor(_cumulated(keys), dtype=torch.int32, device=self._device),
            max(lengths),
            max(keys),
            None if in_order else taken.to(self._device),
        )

    def padded(self, states: torch.Tensor) -> list[torch.Tensor]:
        """States `[tokens, ...]` of the row as `[texts, length, ...]` per bucket."""
        return [bucket.queries.put(states, len(bucket.texts)) for bucket in self.buckets]

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
            own = bucket.own.put(states, len(bucket.texts))
            if bucket.source is not None:
                before = cached[bucket.source].expand(len(own), *([-1] * states.ndim))
                own = torch.cat([before, own], 1)
            found.append(own)
        return found

    def joined(self, padded: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse of `padded`."""
        pairs = zip(self.buckets, padded, strict=True)
        parts = [bucket.queries.take_off(part) for bucket, part in pairs]
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
        keys = bucket.seen + bucket.lengths
        whole = bool((keys == bucket.keys).all())
        return None if whole else (key < keys[:, None])[:, None, None]
    same = bool((bucket.seen == bucket.seen[0]).all())
    seen = bucket.seen[:1] if same else bucket.seen
    position = (seen[:, None] + torch.arange(bucket.length))[..., None]
    visible = key <= position
    if window is not None:
        visible &= key > position - window
    return None if bool(visible.all()) else visible[:, None]


def _cumulated(sizes: Sequence[int]) -> list[int]:
    """Where each part starts, and where the last ends."""
    return [0, *torch.tensor(sizes, dtype=torch.int64).cumsum(0).tolist()]
