"""The last layer for pooled tokens only: of all others only keys and values are needed.

The last layer runs twice. The first time it sees all tokens, and ends when it has come to its
attention: that gives keys and values. The second time it sees the wanted tokens alone, and attends
to the keys and values of the first. What else an architecture does in a layer stays its own affair.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch.nn.functional import pad

from . import attention
from .attention import Kernel
from .pack import Pack, Padding, missing
from .twin import shared_copy

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Wanted:
    """The tokens whose states are wanted, of a pack.

    Attributes:
        pack: The same texts and keys, with queries of these tokens only.
        rows: `[queries and filler]`, int64: where these tokens lie in the whole row.
        kernel: What computes their attention.
    """

    pack: Pack
    rows: torch.Tensor
    kernel: Kernel


class _Reached(Exception):  # it ends a layer early and is no error
    """A layer has come to its attention; holds its keys and values."""


def wanted_of(pack: Pack, last: Sequence[int], kernel: Kernel) -> Wanted:
    """The last `last[text]` tokens of each text of a pack."""
    ends = [(pack.starts[text] + pack.lengths[text], last[text]) for text in pack.order]
    rows = torch.cat([torch.arange(end - n, end) for end, n in ends]).to(pack.device)
    smaller, first = copy.copy(pack), 0
    smaller.tokens, smaller.filler = len(rows), missing(len(rows)) if pack.rounded else 0
    smaller.buckets, smaller.made = [], {}
    for bucket in pack.buckets:
        lengths = torch.tensor([last[text] for text in bucket.texts])
        smaller.buckets.append(
            replace(
                bucket,
                lengths=lengths,
                seen=bucket.seen + bucket.lengths - lengths,
                length=int(lengths.max()),
                queries=Padding.of(first, lengths, pack.device),
                masks={},
            )
        )
        first += int(lengths.sum())
    return Wanted(smaller, pad(rows, (0, smaller.filler)), kernel)


def trimmed(backbone: PreTrainedModel) -> PreTrainedModel:
    """A copy around the same weights whose last layer runs for `Wanted` tokens only.

    Raises:
        AttributeError: the backbone has no `layers`.
    """
    twin: Any = shared_copy(backbone, backbone.config)
    layer = twin.layers[backbone.config.num_hidden_layers - 1]
    layer.forward = partial(_last, layer)
    found: PreTrainedModel = twin
    return found


def forward(
    backbone: PreTrainedModel, texts: Sequence[Sequence[int]], pack: Pack, wanted: Wanted
) -> torch.Tensor:
    """Hidden states `[queries, dim]` after the final norm of the wanted tokens alone."""
    hidden = attention.forward(backbone, texts, pack, wanted.kernel, wanted=wanted)
    return hidden[: wanted.pack.tokens]


def _last(layer: nn.Module, hidden: torch.Tensor, *args: Any, wanted: Wanted, **kwargs: Any) -> Any:
    run: Any = partial(type(layer).forward, layer)
    cos, sin = kwargs["position_embeddings"]
    try:
        run(hidden, *args, **{**kwargs, "attend": _reach})
    except _Reached as reached:
        key, value = reached.args
    else:
        raise ValueError(f"{type(layer).__name__} does not attend through transformers' registry")

    def attend(
        number: int,
        query: torch.Tensor,
        _key: torch.Tensor,
        _value: torch.Tensor,
        scaling: float | None,
        window: int | None,
    ) -> torch.Tensor:
        return attention.attend(
            wanted.pack, wanted.kernel, number, query, key, value, scaling, window
        )

    rows = wanted.rows
    changed = {
        "attend": attend,
        "position_embeddings": (cos[:, rows], sin[:, rows]),
        "position_ids": kwargs["position_ids"][:, rows],
    }
    return run(hidden[:, rows], *args, **{**kwargs, **changed})


def _reach(_layer: int, _query: Any, key: Any, value: Any, *_: Any) -> NoReturn:
    raise _Reached(key, value)
