"""GRIT's forward pass: one backbone for vectors and for the language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..losses import head_nll_sum, next_tokens
from .encoding import Encoding


def learnt(labels: Sequence[int]) -> list[int]:
    """The labels of a row that count: not `IGNORED`, and with a state before them."""
    return next_tokens([labels])[1]


class UnifiedModel(torch.nn.Module):
    """Backbone and language-model head: bidirectional for vectors, causal to predict tokens."""

    def __init__(self, encoding: Encoding, head: torch.nn.Linear) -> None:
        """Keep both; their parameters are this module's."""
        super().__init__()
        self.encoding, self.head = encoding, head

    def forward(
        self,
        rows: Sequence[list[int]],
        starts: Sequence[int] | None = None,
        labels: Sequence[list[int]] = (),
        weights: Sequence[float] = (),
    ) -> torch.Tensor:
        """Vectors `[rows, dim]` or, without `starts`, a weighted sum of losses, a scalar.

        Args:
            rows: Token ids.
            starts: First pooled position of each row.
            labels: For each row as many labels as ids, `IGNORED` where nothing is learnt.
            weights: For each row, the factor of its labels' negative log-likelihoods.
        """
        if starts is not None:
            return self.encoding.vectors(rows, starts)
        hidden = torch.cat(self.encoding.hidden(rows, causal=True))
        places, wanted = next_tokens(labels)
        each = [w for row, w in zip(labels, weights, strict=True) for _ in learnt(row)]
        place, label = (
            torch.tensor(x, dtype=torch.int64, device=hidden.device) for x in (places, wanted)
        )
        weight = torch.tensor(each, device=hidden.device)
        return head_nll_sum(self.head, hidden.index_select(0, place), label, weight)[0]
