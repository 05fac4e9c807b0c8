"""GRIT's forward pass: one backbone for vectors and for the language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from ..losses import balance_factors, head_nll_sum, next_tokens
from .encoding import Encoding

if TYPE_CHECKING:
    from accelerate import Accelerator


def learnt(labels: Sequence[int]) -> list[int]:
    """The labels of a row that count: not `IGNORED`, and with a state before them."""
    return next_tokens([labels])[1]


class UnifiedModel(torch.nn.Module):
    """Backbone and language-model head: bidirectional for vectors, causal to predict tokens."""

    def __init__(self, encoding: Encoding, head: torch.nn.Linear) -> None:
        """Keep both; their parameters are this module's."""
        super().__init__()
        self.encoding, self.head = encoding, head

    @property
    def routers(self) -> list[tuple[torch.nn.Module, int]]:
        """The routers of a mixture of experts, and which of their outputs are the logits."""
        backbone: Any = self.encoding.backbone
        recorded = (getattr(backbone, "_can_record_outputs", None) or {}).get("router_logits")
        if recorded is None:
            return []
        kind, place = getattr(recorded, "target_class", recorded), getattr(recorded, "index", 0)
        return [(module, place) for module in backbone.modules() if isinstance(module, kind)]

    def forward(
        self,
        rows: Sequence[list[int]],
        starts: Sequence[int] | None = None,
        labels: Sequence[list[int]] | None = None,
        weights: Sequence[float] = (),
        balance: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Vectors `[rows, dim]`, a weighted sum of losses, or how often experts are chosen.

        Args:
            rows: Token ids.
            starts: First pooled position of each row; None = no vectors are wanted.
            labels: For each row as many labels as ids, `IGNORED` where nothing is learnt; None =
                experts are to be counted.
            weights: For each row, the factor of its labels' negative log-likelihoods.
            balance: `[experts]`: for each, the factor of its routing probabilities, summed over
                tokens and layers, in the loss; None = 0.

        Returns:
            With `starts` vectors; with `labels` a scalar; else `[experts]`, float32, over all
            tokens and layers.
        """
        if starts is not None:
            return self.encoding.vectors(rows, starts)
        with self._routing(balance is not None or labels is None) as routed:
            hidden = torch.cat(self.encoding.hidden(rows, causal=True))
        if labels is None:
            return self._chosen(routed)
        places, wanted = next_tokens(labels)
        each = [w for row, w in zip(labels, weights, strict=True) for _ in learnt(row)]
        place, label = (
            torch.tensor(x, dtype=torch.int64, device=hidden.device) for x in (places, wanted)
        )
        weight = torch.tensor(each, device=hidden.device)
        loss = head_nll_sum(self.head, hidden.index_select(0, place), label, weight)[0]
        if self.encoding.head is not None:  # DDP waits for gradients of all that is trained
            loss = loss + sum(weight[:0].sum() for weight in self.encoding.head.parameters())
        if balance is None:
            return loss
        return loss + sum((logits.float().softmax(-1) * balance).sum() for logits in routed)

    def balance(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        chunks: Sequence[Sequence[list[int]]],
        weight: float,
    ) -> torch.Tensor | None:
        """`balance` of `forward` for a whole batch, of which this process has some chunks.

        Which experts the batch chooses has to be known before its loss, so it takes a pass of its
        own. None = the model has no experts, or their loss no weight.
        """
        layers = len(self.routers)
        if not weight or not layers:
            return None
        with torch.no_grad():
            counts = torch.stack([model(chunk) for chunk in chunks]).sum(0)
        chosen: torch.Tensor = accelerator.reduce(counts, "sum")
        config: Any = self.encoding.backbone.config
        rows = int(chosen.sum()) // config.num_experts_per_tok
        return balance_factors(chosen, rows, weight)

    def _chosen(self, routed: Sequence[torch.Tensor]) -> torch.Tensor:
        """How often each expert is chosen, `[experts]`, by the logits of all layers."""
        config: Any = self.encoding.backbone.config
        chosen = torch.cat([logits.topk(config.num_experts_per_tok).indices for logits in routed])
        return chosen.flatten().bincount(minlength=routed[0].shape[-1]).float()

    @contextmanager
    def _routing(self, wanted: bool) -> Iterator[list[torch.Tensor]]:
        """Lists the logits of all routers, `[tokens, experts]`, that are computed in its block."""
        found: list[torch.Tensor] = []

        def hook(place: int) -> Any:
            def keep(_module: torch.nn.Module, _given: Any, output: Any) -> None:
                logits = output[place] if isinstance(output, tuple) else output
                found.append(logits.flatten(0, -2))

            return keep

        hooks = [
            module.register_forward_hook(hook(place))
            for module, place in (self.routers if wanted else [])
        ]
        try:
            yield found
        finally:
            for each in hooks:
                each.remove()
