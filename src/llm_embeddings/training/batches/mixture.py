"""Batches from several data files: in proportion, shuffled, the same again after a restart."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any, Generic, TypeVar

from ...records.sources import Source
from .survey import WHOLE, known_surveys, survey_all

Item = TypeVar("Item")
_WAITING = 64  # batches' worth of items that may wait for others of their `source`


class Mixture(Generic[Item]):
    """Data files mixed into batches.

    An epoch has every item of a source of weight 1 once, up to the last incomplete batch, which is
    dropped. The order depends on the seed alone. No file is held in memory; making a mixture reads
    each once, so that a row that does not fit is an error before training starts. Of large files
    the first rows are read, the others counted; how many items they give is then an estimate, and
    a pass that has too few goes on with the first. A run that goes on has counted its files: then
    they are only compared with those of its beginning.

    Attributes:
        surveys: What each source holds.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        read: Callable[[Source], Iterable[Item]],
        *,
        seed: int = 42,
        keep: Callable[[Item], bool] | None = None,
        same_source: bool = True,
        buffer: int = 10_000,
        known: Sequence[Mapping[str, Any]] = (),
        whole: int = WHOLE,
    ) -> None:
        """Read all sources once.

        Args:
            sources: Which files, with their weights.
            read: The items of a source, such as `llm_embeddings.records.examples.read_examples`.
            seed: Seed of the order.
            keep: Whether an item is kept, such as `batches.lengths.within(...)` tells.
            same_source: Whether a batch holds items of one file only, and of one value of their
                `source`; what is left of several is put together at the end of a pass over a file,
                and where so much of it waits that it would fill the memory.
            buffer: How many items of a source are held to be shuffled. A file with more should not
                be sorted.
            known: `fingerprint` of the same sources, read and kept alike before; () = none is.
            whole: How many bytes of data are read row by row before training starts; of more, the
                first rows of each file.

        Raises:
            OSError: a file cannot be read.
            ValueError: a row that does not fit, a source of which nothing is kept, or one that is
                not what was known.
        """
        if buffer < 1:
            raise ValueError(f"buffer={buffer} must be 1 or more")
        self._read, self._keep, self._seed = read, keep, seed
        self._same_source, self._buffer = same_source, buffer
        self.surveys = (
            known_surveys(sources, known) if known else survey_all(sources, read, keep, whole=whole)
        )

    def fingerprint(self) -> list[dict[str, Any]]:
        """Name, size, hash and weight of each file, as JSON-ready values; equal for equal data."""
        return [
            {
                "name": found.source.path.name,
                "items": found.items,
                "filtered": found.filtered,
                "bytes": found.size,
                "sha256": found.sha256,
                "weight": found.source.weight,
                "instruction": found.source.instruction,
                "symmetric": found.source.symmetric,
                "sampled": found.sampled,
            }
            for found in self.surveys
        ]

    def updates(self, batch_size: int, epochs: int | None) -> int | None:
        """How many batches of this size `epochs` epochs have; None if `epochs` is None.

        Raises:
            ValueError: a source has fewer items than a batch.
        """
        per_epoch = self.batches_per_epoch(batch_size)
        return None if epochs is None else epochs * per_epoch

    def batches_per_epoch(self, batch_size: int) -> int:
        """How many batches of this size an epoch has.

        Raises:
            ValueError: a source has fewer items than a batch.
        """
        total = sum(self._quotas(batch_size))
        return total if self._same_source else total // batch_size

    def batches(
        self, batch_size: int, start: int = 0, *, epochs: int | None = None
    ) -> Iterator[list[Item]]:
        """Batches from number `start` on, as a run from the beginning would give them.

        Args:
            batch_size: Items per batch.
            start: Number of the first batch, from 0; those before are not made again.
            epochs: Passes over the mixture; None = endless.

        Yields:
            `batch_size` items each.

        Raises:
            ValueError: a source has fewer items than a batch, or a file has changed.
        """
        first, skip = divmod(start, self.batches_per_epoch(batch_size))
        for epoch in count(first) if epochs is None else range(first, epochs):
            yield from self._epoch(epoch, batch_size, skip)
            skip = 0

    def _quotas(self, size: int) -> list[int]:
        """What each source gives to an epoch, in batches; in items if batches mix sources."""
        if size < 1:
            raise ValueError(f"batch_size={size} must be 1 or more")
        unit = size if self._same_source else 1
        for found in self.surveys:
            if found.items < unit:
                raise ValueError(
                    f"{found.source.path} has {found.items:,} items, fewer than a batch of {size}: "
                    "lower batch_size, or let batches mix sources"
                )
        quotas = [
            max(1, round(found.source.weight * (found.items // unit))) for found in self.surveys
        ]
        if not self._same_source and sum(quotas) < size:
            raise ValueError(
                f"all data together has {sum(quotas):,} items, fewer than a batch of {size}: "
                "lower batch_size"
            )
        return quotas

    def _epoch(self, epoch: int, size: int, skip: int) -> Iterator[list[Item]]:
        """The batches of epoch number `epoch` without its first `skip`."""
        quotas = self._quotas(size)
        unit, parts = (size, 1) if self._same_source else (1, size)
        order = _draw(quotas, random.Random(f"order {self._seed} {epoch}"))
        before = Counter(islice(order, skip * parts))
        streams = [
            self._stream(index, unit, epoch * quota + before[index])
            for index, quota in enumerate(quotas)
        ]
        while len(drawn := list(islice(order, parts))) == parts:
            yield [item for index in drawn for item in next(streams[index])]

    def _stream(self, index: int, size: int, first: int) -> Iterator[list[Item]]:
        """Batches of one source without end, from number `first` on."""
        found = self.surveys[index]
        number, skip = divmod(first, found.items // size)
        while True:
            batches = self._group(self._pass(index, number), size)
            made = 0
            for made, batch in enumerate(islice(batches, found.items // size), 1):
                if made > skip:
                    yield batch
            if made < found.items // size:
                raise ValueError(f"{found.source.path} has lost rows since training started")
            number, skip = number + 1, 0

    def _pass(self, index: int, number: int) -> Iterator[Item]:
        """The items of one source in the order of its pass `number`; without end if estimated.

        Raises:
            ValueError: the file has changed.
        """
        found = self.surveys[index]
        rng = random.Random(f"pass {self._seed} {index} {number}")
        while True:
            items = iter(self._read(found.source))
            kept = items if self._keep is None else filter(self._keep, items)
            yield from shuffled(kept, rng, self._buffer)
            if not found.sampled:
                return
            if found.source.path.stat().st_size != found.size:
                raise ValueError(f"{found.source.path} has changed since training started")

    def _group(self, items: Iterable[Item], size: int) -> Iterator[list[Item]]:
        """Batches whose items share one `source` each; those left over make batches together."""
        held: dict[str, list[Item]] = {}
        waiting, most = 0, max(self._buffer, _WAITING * size)
        for item in items:
            group = held.setdefault(getattr(item, "source", ""), [])
            group.append(item)
            waiting += 1
            if len(group) == size:
                yield group.copy()
                group.clear()
                waiting -= size
            elif waiting == most:
                rare = _smallest(held, most // 2 // size * size)
                yield from _cut(rare, size)
                waiting -= len(rare)
        yield from _cut([item for group in held.values() for item in group], size)


def _smallest(held: dict[str, list[Item]], count: int) -> list[Item]:
    """Take so many items out of groups, the smallest groups first."""
    taken: list[Item] = []
    for name in sorted(held, key=lambda name: len(held[name])):
        group = held.pop(name)
        room = count - len(taken)
        taken += group[:room]
        if len(group) > room:
            held[name] = group[room:]
            break
    return taken


def _cut(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Batches of items as they come, without what does not fill one."""
    for start in range(0, len(items) - size + 1, size):
        yield list(items[start : start + size])


def shuffled(items: Iterable[Item], rng: random.Random, buffer: int) -> Iterator[Item]:
    """Items in random order, with at most `buffer` of them in memory.

    An item may come out arbitrarily late, but no more than `buffer` places early.
    """
    held: list[Item] = []
    for item in items:
        if len(held) < buffer:
            held.append(item)
            continue
        place = rng.randrange(buffer)
        yield held[place]
        held[place] = item
    rng.shuffle(held)
    yield from held


def _draw(quotas: Sequence[int], rng: random.Random) -> Iterator[int]:
    """Each index as often as its quota says, in random order."""
    left = list(quotas)
    for total in range(sum(quotas), 0, -1):
        place, index = rng.randrange(total), 0
        while place >= left[index]:
            place -= left[index]
            index += 1
        left[index] -= 1
        yield index
