"""One forward pass: rows of ids -> vectors. Packed where the backbone can, padded where it must."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from .batching import Unit, first_used
from .model import Model
from .packed import attention
from .packed.pack import Cached, Pack
from .packed.padded import forward, pad
from .packed.pooling import pool

if TYPE_CHECKING:
    from .packed.served import Trees

_NO_LIMIT = 2**31
_PREFIX_BYTES = 2**28
_SHORT = 64  # tokens of a pass that largely lays weights out
_MANY = 8  # such passes, or any that convert weights, after which that is done once and for all
_MIN_UNREAD = 64  # tokens without a pooled state, from which a shorter last layer pays


class Runner:
    """A model with all that one pass needs. If it is `concurrent`, two threads may use it.

    Attributes:
        packing: How texts share a pass, in words.
        packed: Whether they share it without padding.
        budget: Tokens per pass that suit the device.
        alone_above: Rows with more tokens than this must run alone.
    """

    def __init__(self, model: Model) -> None:
        """Find out what the backbone can do.

        Raises:
            ValueError: the architecture does not attend as the recipe asks.
        """
        from .packed.served import Served, alone_above, tokens_per_pass

        self._model, self._served = model, Served(model)
        self.packing, self.packed = self._served.packing, self._served.kernel is not None
        self.budget = tokens_per_pass(model.backbone)
        self.alone_above = alone_above(model.backbone) or _NO_LIMIT
        self._prefixes, self._spared = _Prefixes(), 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Runner, (self._model,)

    @property
    def device(self) -> str:
        """Where the backbone is."""
        return str(self._model.device)

    @property
    def concurrent(self) -> bool:
        """Whether two passes at once pay, on a CPU, and leave each other alone.

        They do not where each pass writes rotary frequencies of its own into the backbone.
        """
        return self._model.device.type == "cpu" and self.alone_above == _NO_LIMIT

    @property
    def copied_bytes(self) -> int:
        """Bytes of weights held a second time, in the layout that the processor multiplies in."""
        return self._served.copied

    def forget(self) -> None:
        """Forget kept prefixes: the next pass computes them anew, with the same bits."""
        self._prefixes.clear()

    def run(self, units: Sequence[Unit], *, pooled: bool = True) -> list[torch.Tensor]:
        """Vectors of all rows of `units`, in their order; float32, on the backbone's device.

        Returns:
            `[dim]` each or, if not `pooled`, the hidden states `[tokens, dim]`.
        """
        with torch.inference_mode():
            kernel = self._served.kernel
            if kernel is None:
                return self._run_padded(units, pooled=pooled)
            return self._run_packed(units, kernel, pooled=pooled)

    def _run_padded(self, units: Sequence[Unit], *, pooled: bool) -> list[torch.Tensor]:
        rows = [row for unit in units for row in unit.rows]
        ids, lengths = pad([row.ids for row in rows], self._model.device)
        hidden = forward(self._model.backbone, self._model.recipe, ids, lengths)
        if not pooled:
            return [states[: len(r.ids)].float() for states, r in zip(hidden, rows, strict=True)]
        return list(self._vectors(hidden, [row.start for row in rows], lengths))

    def _run_packed(
        self, units: Sequence[Unit], kernel: attention.Kernel, *, pooled: bool
    ) -> list[torch.Tensor]:
        trees, recipe = self._current(), self._model.recipe
        version = trees.version
        kept = {u.shared for u in units if version is not None and u.keep and u.shared}
        cached = self._prefixes.get(version, kept) if kept else {}
        shared = dict.fromkeys([unit.shared for unit in units if unit.shared not in cached])
        shared.pop((), None)
        sources = {ids: number for number, ids in enumerate([*cached, *shared])}
        texts: list[Sequence[int]] = list(shared)
        parents: list[int | None] = [None] * len(texts)
        starts, wanted = [0] * len(texts), [1] * len(texts)
        # Starts again, counted from the first wanted token.
        later = [0] * len(texts)
        for unit in units:
            for row in unit.rows:
                texts.append(row.ids[len(unit.shared) :])
                parents.append(sources.get(unit.shared))
                starts.append(max(row.start - len(unit.shared), 0))
                first = first_used(row, recipe)
                wanted.append(len(row.ids) - first)
                later.append(max(row.start - first, 0))
        pack = Pack(
            [len(text) for text in texts],
            parents,
            list(cached.values()),
            causal=recipe.causal,
            device=self._model.device,
            keep=[text for text, ids in enumerate(shared) if ids in kept],
            rounded=self._model.device.type == "cpu",
        )
        unread = pack.tokens - sum(wanted)
        if trees.trimmed is not None and pooled and unread >= _MIN_UNREAD:
            from .packed import last_layer

            part = last_layer.wanted_of(pack, wanted, kernel)
            hidden = last_layer.forward(trees.trimmed, texts, pack, part)
            vectors = self._pooled(part.pack, hidden, later)
        else:
            hidden = attention.forward(trees.whole, texts, pack, kernel)
            vectors = self._pooled(pack, hidden, starts) if pooled else {}
        self._spared += trees.converts or pack.tokens <= _SHORT
        if self._spared == _MANY:
            self._served.lay_out()
        for text, states in pack.kept.items():
            self._prefixes.put(version, tuple(texts[text]), states)
        if not pooled:
            return [states.float() for states in pack.apart(hidden)[len(shared) :]]
        return [vectors[text] for text in range(len(shared), len(texts))]

    def _pooled(
        self, pack: Pack, hidden: torch.Tensor, starts: Sequence[int]
    ) -> dict[int, torch.Tensor]:
        """Vector of each text in a pack."""
        vectors: dict[int, torch.Tensor] = {}
        for bucket, states in zip(pack.buckets, pack.padded(hidden), strict=True):
            first = [starts[text] for text in bucket.texts]
            rows = self._vectors(states, first, bucket.lengths.to(states.device))
            vectors.update(zip(bucket.texts, rows, strict=True))
        return vectors

    def _vectors(
        self, hidden: torch.Tensor, starts: Sequence[int], lengths: torch.Tensor
    ) -> torch.Tensor:
        """Hidden states `[rows, length, dim]` pooled, and what follows: `[rows, dim]`, float32."""
        first = torch.tensor(starts, device=hidden.device)
        pooled = pool(hidden, first, lengths, self._model.recipe)
        head = self._model.head
        return pooled if head is None else head(pooled)

    def _current(self) -> Trees:
        """Modules around the present weights."""
        version, trees = self._model.version(), self._served.trees
        if version == trees.version:
            return trees
        self._prefixes.clear()
        self._spared = 0
        return self._served.renew(version)


class _Prefixes:
    """Keys and values of first tokens that many calls have in common: an instruction, say.

    Only causal backbones have them: there, states depend on nothing that follows. Those used last
    are kept, within a limit of bytes. Threads may share it.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[int | None, tuple[int, ...]], Cached] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, version: int | None, wanted: set[tuple[int, ...]]
    ) -> dict[tuple[int, ...], Cached]:
        """Those that are kept of the wanted token ids, for this version of the weights."""
        with self._lock:
            found = [ids for ids in wanted if (version, ids) in self._entries]
            for ids in found:
                self._entries.move_to_end((version, ids))
            return {ids: self._entries[version, ids] for ids in found}

    def put(self, version: int | None, ids: tuple[int, ...], states: Cached) -> None:
        with self._lock:
            self._entries[version, ids] = states
            while sum(map(_size, self._entries.values())) > _PREFIX_BYTES:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()


def _size(states: Cached) -> int:
    return sum(key.nbytes + value.nbytes for key, value in states.layers.values())
