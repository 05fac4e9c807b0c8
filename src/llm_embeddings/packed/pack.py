"""Pack: many texts in one row of tokens, without padding. Layout only: it computes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

_WASTE, _ENOUGH = 1.15, 256  # padded / real tokens; from 256 a group takes one length
_STEPS = ((64, 4), (512, 16), (math.inf, 32))  # up to so many tokens, a row is a multiple of this


@dataclass(frozen=True, slots=True)
class Cached:
    """Keys and values of some first tokens, `[length, heads, dim]` each, per layer."""

    length: int
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Padding:
    """How texts that lie one after the other in a row look padded to the longest, and back.

    Attributes:
        place: Their tokens in the row.
        fill: `[texts x length]`, int64: which of these tokens padded rows hold; None = in order.
        real: Which rows of the padded ones are tokens; None = all.
    """

    place: slice
    fill: torch.Tensor | None
    real: torch.Tensor | None

    @classmethod
    def of(cls, first: int, lengths: torch.Tensor, device: torch.device) -> Padding:
        """For texts that begin at `first` of the row and have `lengths` tokens, `[texts]`."""
        place = slice(first, first + int(lengths.sum()))
        column = torch.arange(int(lengths.max()))
        last = lengths[:, None] - 1
        inside = column <= last
        if bool(inside.all()):
            return cls(place, None, None)
        # Padding repeats the text's own last token: whatever it holds, no other text sees it.
        starts = (lengths.cumsum(0) - lengths)[:, None]
        fill = (starts + torch.minimum(column, last)).flatten().to(device)
        return cls(place, fill, inside.flatten().nonzero().flatten().to(device))

    def put(self, states: torch.Tensor, texts: int) -> torch.Tensor:
        """States `[tokens, ...]` of the whole row as `[texts, length, ...]`."""
        part = states[self.place]
        if self.fill is not None:
            part = part[self.fill.to(part.device)]
        padded: torch.Tensor = part.unflatten(0, (texts, -1))
        return padded

    def take_off(self, padded: torch.Tensor) -> torch.Tensor:
        """The inverse of `put`: the part of the row that these texts are."""
        rows = padded.flatten(0, 1)
        return rows if self.real is None else rows[self.real.to(rows.device)]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Texts of like length in a pack, which attention sees padded to the longest.

    Attributes:
        texts: Which texts of the pack.
        lengths: `[texts]`, int64, on the CPU: their queries.
        seen: `[texts]`, int64, on the CPU: keys before the first query of each.
        length: Queries of the text that has most.
        keys: Keys of the text that has most.
        queries: Padding of the queries.
        own: Padding of the keys, without shared ones.
        source: What they continue: nothing (None), one of the pack's `cached`, or the indices
            `[texts x keys]` of their keys in the pack.
        masks: Attention masks by sliding window, filled by the kernel that needs them.
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

    def keys_of(
        self, own: torch.Tensor, cached: Sequence[torch.Tensor], whole: torch.Tensor
    ) -> torch.Tensor:
        """Keys or values `[texts, keys, ...]`, shared ones first.

        `own` are the row's, `[tokens, ...]`, `cached` the pack's, `whole` both joined.
        """
        if isinstance(self.source, torch.Tensor):
            taken = whole[self.source.to(own.device)]
            found: torch.Tensor = taken.unflatten(0, (len(self.texts), self.keys))
            return found
        padded = self.own.put(own, len(self.texts))
        if self.source is None:
            return padded
        before = cached[self.source].expand(len(padded), *([-1] * own.ndim))
        return torch.cat([before, padded], 1)


class Pack:
    """Where each text lies in the row, and whose keys it sees.

    Attributes:
        order: Texts in the order of their tokens in the row.
        positions: `[tokens]`, int64: position of each token in its own text.
        buckets: The texts, grouped by length.
        kept: Keys and values of the texts that were to be kept, filled by the pass.
        starts: First token of each text in the row.
        key_starts: First shared key of each text.
        offset: Keys that stand before the row: those of `cached`.
        made: What a kernel has made of the layout, kept for the layers that follow.
        tokens: Tokens in the row.
        rounded: Whether the row is filled up, for products of few shapes.
        filler: Rows after the last token, which no text sees.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        parents: Sequence[int | None],
        cached: Sequence[Cached] = (),
        *,
        causal: bool,
        device: torch.device,
        keep: Sequence[int] = (),
        rounded: bool = False,
    ) -> None:
        """Lay out texts.

        Args:
            lengths: Tokens of each text, without those it shares.
            parents: What each text continues: `i` is `cached[i]`, `len(cached) + i` is text i of
                this pack, None is nothing. Only causal texts may continue something.
            cached: Keys and values from earlier passes.
            causal: Attention direction.
            device: Where the row is.
            keep: Texts whose keys and values are wanted afterwards.
            rounded: Fill the row up. oneDNN makes and keeps a kernel for each number of rows it
                multiplies: half a gigabyte and more where texts are of all lengths.
        """
        sizes = [*[part.length for part in cached], *lengths]
        seen = [0 if parent is None else sizes[parent] for parent in parents]
        groups = group(lengths, [a + b for a, b in zip(seen, lengths, strict=True)])
        self.lengths, self.causal, self.cached, self.device = lengths, causal, cached, device
        self.order = [text for texts in groups for text in texts]
        firsts = cumulated([lengths[text] for text in self.order])
        self.starts = dict(zip(self.order, firsts, strict=False))
        firsts = cumulated([part.length for part in cached])
        self.offset = firsts.pop()
        firsts += [self.offset + self.starts[text] for text in range(len(lengths))]
        self.key_starts = [0 if parent is None else firsts[parent] for parent in parents]
        self.kept = {text: Cached(lengths[text], {}) for text in keep}
        self.made: dict[str, Any] = {}
        self.buckets = [self._bucket(texts, seen, parents) for texts in groups]
        positions = [torch.arange(seen[text], seen[text] + lengths[text]) for text in self.order]
        self.positions = torch.cat(positions).to(device)
        self.tokens, self.rounded = len(self.positions), rounded
        self.filler = missing(self.tokens) if rounded else 0

    def _bucket(
        self, texts: list[int], all_seen: Sequence[int], parents: Sequence[int | None]
    ) -> Bucket:
        lengths = torch.tensor([self.lengths[text] for text in texts])
        seen = torch.tensor([all_seen[text] for text in texts])
        keys = int((lengths + seen).max())
        own = Padding.of(self.starts[texts[0]], lengths, self.device)
        origins = {parents[text] for text in texts}
        source: int | torch.Tensor | None = origins.pop() if len(origins) == 1 else -1
        if source is not None and not 0 <= source < len(self.cached):
            column = torch.arange(keys)
            shared = torch.tensor([self.key_starts[text] for text in texts])[:, None] + column
            starts = torch.tensor([self.offset + self.starts[text] for text in texts])[:, None]
            after = starts + torch.minimum(column - seen[:, None], lengths[:, None] - 1)
            source = torch.where(column < seen[:, None], shared, after).flatten().to(self.device)
        return Bucket(texts, lengths, seen, int(lengths.max()), keys, own, own, source)

    def states(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cached: Sequence[tuple[torch.Tensor, torch.Tensor]],
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Queries `[texts, length, ...]`, keys and values `[texts, keys, ...]` of each bucket.

        The arguments are those of the row, `[tokens, ...]`, and those that are cached.
        """
        keys, values = [part[0] for part in cached], [part[1] for part in cached]
        all_keys, all_values = key, value
        if cached and any([isinstance(bucket.source, torch.Tensor) for bucket in self.buckets]):
            all_keys, all_values = torch.cat([*keys, key]), torch.cat([*values, value])
        return [
            (
                bucket.queries.put(query, len(bucket.texts)),
                bucket.keys_of(key, keys, all_keys),
                bucket.keys_of(value, values, all_values),
            )
            for bucket in self.buckets
        ]

    def padded(self, states: torch.Tensor) -> list[torch.Tensor]:
        """States `[tokens, ...]` of the row as `[texts, length, ...]` per bucket."""
        return [bucket.queries.put(states, len(bucket.texts)) for bucket in self.buckets]

    def joined(self, padded: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inverse of `padded`."""
        pairs = zip(self.buckets, padded, strict=True)
        parts = [bucket.queries.take_off(part) for bucket, part in pairs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def apart(self, states: torch.Tensor) -> list[torch.Tensor]:
        """States `[tokens, ...]` of the row as `[length, ...]` per text."""
        return [
            states[self.starts[text] : self.starts[text] + length]
            for text, length in enumerate(self.lengths)
        ]


def missing(tokens: int) -> int:
    """Rows by which a rounded row is longer than its tokens."""
    step = next(step for most, step in _STEPS if tokens <= most)
    return -tokens % step


def group(lengths: Sequence[int], keys: Sequence[int]) -> list[list[int]]:
    """Sequences, by tokens and by keys they attend to, in groups that can be padded to the longest.

    Returns indices per group, most keys first; padding adds at most 15 % to either number, and
    nothing where enough sequences are of one length.
    """
    groups: list[list[int]] = []
    sizes = [0, 0]
    longest = 0
    order = [(-key, -length) for key, length in zip(keys, lengths, strict=True)]
    for index in sorted(range(len(lengths)), key=order.__getitem__):
        key, length = keys[index], lengths[index]
        if groups:
            first, count = groups[-1][0], len(groups[-1]) + 1
            longest = max(length, longest)
            queries, seen = sizes[0] + length, sizes[1] + key
            little = count * longest <= _WASTE * queries and count * keys[first] <= _WASTE * seen
            alike = (length, key) == (lengths[first], keys[first])
            if little and (alike or sizes[0] < _ENOUGH):
                groups[-1].append(index)
                sizes = [queries, seen]
                continue
        groups.append([index])
        sizes, longest = [length, key], length
    return groups


def cumulated(sizes: Sequence[int]) -> list[int]:
    """Where each part starts, and where the last ends."""
    return [0, *torch.tensor(sizes, dtype=torch.int64).cumsum(0).tolist()]
