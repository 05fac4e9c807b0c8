"""One forward pass: rows of ids -> vectors. Packed where the backbone can, padded where it must."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from .batching import Unit, first_used
from .checkpoint.checks import choose_kernel, last_rows_suffice
from .packed import attention
from .packed.pack import Pack
from .packed.prefix import PrefixStore
from .pooling import forward, pad, pool
from .recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NO_LIMIT = 2**31
_MIN_UNREAD = 64


class Runner:
    """A backbone with all that one pass needs. If it is `concurrent`, two threads may use it.

    Attributes:
        packing: How texts share a pass, in words.
        packed: Whether they do so without padding.
        budget: Tokens per pass that suit the device.
        alone_above: Rows with more tokens than this must run alone.
    """

    def __init__(self, backbone: PreTrainedModel, recipe: Recipe) -> None:
        """Find out what the backbone can do.

        Raises:
            ValueError: the architecture does not attend as the recipe asks.
        """
        self._backbone, self._recipe = backbone, recipe
        self._kernel, self.packing = choose_kernel(backbone, recipe)
        self.packed = self._kernel is not None
        self._trims = self._kernel is not None and last_rows_suffice(backbone, recipe, self._kernel)
        self._prefixes = PrefixStore()
        self.budget = tokens_per_pass(backbone)
        self.alone_above = _alone_above(backbone)

    def __reduce__(self) -> tuple[Any, ...]:
        return Runner, (self._backbone, self._recipe)

    @property
    def device(self) -> str:
        """Where the backbone is."""
        return str(self._backbone.device)

    @property
    def concurrent(self) -> bool:
        """Whether two passes at once pay, on a CPU, and leave each other alone.

        Rotary frequencies that depend on the longest row are written into the backbone.
        """
        return self._backbone.device.type == "cpu" and self.alone_above == _NO_LIMIT

    def forget(self) -> None:
        """Forget kept prefixes: the next pass computes them anew, with the same bits."""
        self._prefixes = PrefixStore()

    def run(self, units: Sequence[Unit], *, pooled: bool = True) -> list[torch.Tensor]:
        """Vectors of all rows of `units`, in their order; float32, on the backbone's device.

        Returns:
            `[dim]` each or, if not `pooled`, the hidden states `[tokens, dim]`.
        """
        with torch.inference_mode():
            if self._kernel is None:
                return self._run_padded(units, pooled=pooled)
            return self._run_packed(units, pooled=pooled)

    def _run_padded(self, units: Sequence[Unit], *, pooled: bool) -> list[torch.Tensor]:
        rows = [row for unit in units for row in unit.rows]
        ids, lengths = pad([row.ids for row in rows], self._backbone.device)
        hidden = forward(self._backbone, self._recipe, ids, lengths)
        if not pooled:
            return [states[: len(r.ids)].float() for states, r in zip(hidden, rows, strict=True)]
        starts = torch.tensor([row.start for row in rows], device=ids.device)
        return list(pool(hidden, starts, lengths, self._recipe))

    def _run_packed(self, units: Sequence[Unit], *, pooled: bool) -> list[torch.Tensor]:
        assert self._kernel is not None
        kept = {unit.shared for unit in units if unit.keep and unit.shared}
        keeps = bool(kept) and self._prefixes.check(self._backbone)
        found = {ids: self._prefixes.get(ids) for ids in kept} if keeps else {}
        cached = {ids: states for ids, states in found.items() if states is not None}
        shared = dict.fromkeys(unit.shared for unit in units if unit.shared not in cached)
        shared.pop((), None)
        sources = {ids: number for number, ids in enumerate([*cached, *shared])}
        texts: list[Sequence[int]] = list(shared)
        parents: list[int | None] = [None] * len(texts)
        starts, wanted = [0] * len(texts), [1] * len(texts)
        for unit in units:
            for row in unit.rows:
                texts.append(row.ids[len(unit.shared) :])
                parents.append(sources.get(unit.shared))
                starts.append(max(row.start - len(unit.shared), 0))
                wanted.append(len(row.ids) - first_used(row, self._recipe))
        pack = Pack(
            [len(text) for text in texts],
            parents,
            list(cached.values()),
            causal=self._recipe.causal,
            kernel=self._kernel,
            device=self._backbone.device,
            keep=[text for text, ids in enumerate(shared) if keeps and ids in kept],
        )
        unread = len(pack.positions) - sum(wanted)
        last = pack.last(wanted) if pooled and self._trims and unread >= _MIN_UNREAD else None
        hidden = attention.forward(self._backbone, texts, pack, last)
        for text, states in pack.kept.items():
            self._prefixes.put(tuple(texts[text]), states)
        if not pooled:
            return [states.float() for states in pack.apart(hidden)[len(shared) :]]
        if last is not None:
            starts = [0] * len(texts)
        vectors = self._pooled(last or pack, hidden, starts)
        return [vectors[text] for text in range(len(shared), len(texts))]

    def _pooled(
        self, pack: Pack, hidden: torch.Tensor, starts: Sequence[int]
    ) -> dict[int, torch.Tensor]:
        """Vector of each text in a pack."""
        vectors: dict[int, torch.Tensor] = {}
        for bucket, states in zip(pack.buckets, pack.padded(hidden), strict=True):
            first = torch.tensor([starts[text] for text in bucket.texts], device=states.device)
            rows = pool(states, first, bucket.lengths.to(states.device), self._recipe)
            vectors.update(zip(bucket.texts, rows, strict=True))
        return vectors


def tokens_per_pass(backbone: PreTrainedModel) -> int:
    """How many tokens one pass should have.

    Throughput on CPUs is flat from 512 to 4096. A GPU wants as many as half its free memory holds,
    counted as 16 hidden and 4 feed-forward activations per token, and gains nothing over 32768.
    """
    device = backbone.device
    config: Any = backbone.config
    if device.type == "cpu":
        return 2048
    if device.type != "cuda":
        return 8192
    wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    per_token = (16 * config.hidden_size + 4 * wide) * backbone.dtype.itemsize
    free, _ = torch.cuda.mem_get_info(device)
    return max(1024, min(32768, int(free) // 2 // int(per_token)))


def _alone_above(backbone: PreTrainedModel) -> int:
    """Tokens above which rotary frequencies depend on the longest row of the pass.

    transformers' "dynamic" and "longrope" positions do: such a row must not change others.
    """
    config: Any = backbone.config
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    limits: list[int] = [
        part.get("original_max_position_embeddings") or config.max_position_embeddings
        for part in [rope, *nested]
        if part.get("rope_type") in ("dynamic", "longrope")
    ]
    return min(limits, default=_NO_LIMIT)
