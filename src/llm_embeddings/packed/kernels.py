"""Kernels for packs: which a device has, and those that take texts of any length at once."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from .attention import Kernel, KeysAndValues, bucketed
from .pack import Pack, cumulated

_VARLEN_DTYPES = (torch.bfloat16, torch.float16)
_LAYOUT = "ragged"  # key in `Pack.made` of a pack's `_Ragged`, made once for all layers


def kernels(device: torch.device, dtype: torch.dtype) -> list[tuple[str, Kernel]]:
    """Names and kernels that may serve, the fastest first."""
    found: list[tuple[str, Kernel]] = []
    if device.type == "cuda" and dtype in _VARLEN_DTYPES:
        for module in ("flash_attn_interface", "flash_attn"):  # version 3, version 2
            if importlib.util.find_spec(module) is not None:
                function = importlib.import_module(module).flash_attn_varlen_func
                found.append((module, partial(flash_attention, function=function)))
        if importlib.util.find_spec("torch.nn.attention.varlen") is not None:
            varlen = importlib.import_module("torch.nn.attention.varlen").varlen_attn
            found.append(("torch varlen_attn", partial(torch_varlen, function=varlen)))
    return [*found, ("SDPA", bucketed)]


def flash_attention(
    pack: Pack,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cached: KeysAndValues,
    scaling: float | None,
    window: int | None,
    *,
    function: Callable[..., Any],
) -> torch.Tensor:
    """`flash_attn_varlen_func` of flash-attn 2.1 or later, or of flash-attn 3.

    Causal queries are aligned with the last keys, as a text that continues shared tokens needs.
    """
    states, layout = _ragged(pack, query, key, value, cached)
    out = function(
        *states,
        *layout,
        softmax_scale=scaling,
        causal=pack.causal,
        window_size=(-1, -1) if window is None else (window - 1, 0),
    )
    found: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return found


def torch_varlen(
    pack: Pack,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cached: KeysAndValues,
    scaling: float | None,
    window: int | None,
    *,
    function: Callable[..., Any],
) -> torch.Tensor:
    """`torch.nn.attention.varlen.varlen_attn`; one split, so a batch does not change a vector."""
    states, layout = _ragged(pack, query, key, value, cached)
    sizes = (-1, -1) if not pack.causal else (-1 if window is None else window - 1, 0)
    found: torch.Tensor = function(
        *[part.contiguous() for part in states],
        *layout,
        scale=scaling,
        window_size=sizes,
        enable_gqa=query.shape[1] != key.shape[1],
        num_splits=1,
    )
    return found


@dataclass(frozen=True, slots=True)
class _Ragged:
    """A pack without buckets: texts one after the other.

    Attributes:
        queries: `[texts + 1]`, int32: where the queries of each text begin.
        keys: `[texts + 1]`, int32: where the keys of each text begin.
        most_queries: Tokens of the longest text.
        most_keys: Keys of the text that has most.
        index: Which of the pack's keys, cached ones first; None = all in order.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    most_queries: int
    most_keys: int
    index: torch.Tensor | None

    @classmethod
    def of(cls, pack: Pack) -> _Ragged:
        lengths = [int(n) for bucket in pack.buckets for n in bucket.lengths]
        keys = [int(n) for bucket in pack.buckets for n in bucket.lengths + bucket.seen]
        index = []
        for text, all_keys in zip(pack.order, keys, strict=True):
            first, own = pack.offset + pack.starts[text], pack.lengths[text]
            index.append(torch.arange(all_keys - own) + pack.key_starts[text])
            index.append(torch.arange(first, first + own))
        taken = torch.cat(index)
        in_order = torch.equal(taken, torch.arange(pack.offset + sum(pack.lengths)))
        return cls(
            torch.tensor(cumulated(lengths), dtype=torch.int32, device=pack.device),
            torch.tensor(cumulated(keys), dtype=torch.int32, device=pack.device),
            max(lengths),
            max(keys),
            None if in_order else taken.to(pack.device),
        )

    def take(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Keys or values, cached ones first, in the order of `keys`."""
        states = parts[0] if len(parts) == 1 else torch.cat(parts)
        return states if self.index is None else states[self.index.to(states.device)]


def _ragged(
    pack: Pack,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cached: KeysAndValues,
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor | int, ...]]:
    """Queries, keys and values, and how they are laid out, in the order both kernels take them."""
    if _LAYOUT not in pack.made:
        pack.made[_LAYOUT] = _Ragged.of(pack)
    ragged: _Ragged = pack.made[_LAYOUT]
    keys = ragged.take([*[part for part, _ in cached], key])
    values = ragged.take([*[part for _, part in cached], value])
    starts = ragged.queries.to(query.device), ragged.keys.to(query.device)
    return (query, keys, values), (*starts, ragged.most_queries, ragged.most_keys)
