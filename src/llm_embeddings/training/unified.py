"""One backbone for vectors and for the language model, in memory and on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from ..files import Source, find, read_json, resolve
from .encoding import Encoding
from .losses import head_nll_sum, next_tokens
from .models import Trainable, save_result
from .options import StageOptions


def save_unified(
    options: StageOptions, trained: Trainable, head: torch.nn.Linear, directory: Path
) -> None:
    """Write what both `Encoder` and transformers' `AutoModelForCausalLM` load.

    An embedder's direction and window lie in its config, where a language model would find them
    and look both ways; `Encoder` sets them anew from the recipe whenever it loads.
    """
    save_result(options, trained, directory, head=head)
    root = resolve(find(options.model, Source()), (), Source()).root
    before, path = read_json(root / "config.json"), directory / "config.json"
    own = ("is_causal", "sliding_window", "use_cache")
    config = {name: value for name, value in read_json(path).items() if name not in own}
    config |= {name: before[name] for name in own[1:] if name in before}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def learnt(labels: Sequence[int]) -> list[int]:
    """The labels of a row that some state before them predicts."""
    return next_tokens([labels])[1]


class UnifiedModel(torch.nn.Module):
    """Backbone and head; each call says which way attention goes."""

    def __init__(self, encoding: Encoding, head: torch.nn.Linear) -> None:
        """Put them together."""
        super().__init__()
        self.encoding, self.head = encoding, head

    def forward(
        self,
        rows: Sequence[list[int]],
        starts: Sequence[int] | None = None,
        labels: Sequence[list[int]] = (),
        weights: Sequence[float] = (),
    ) -> torch.Tensor:
        """Vectors `[rows, dim]` or, without starts, the sum of the labels' weighted losses.

        Args:
            rows: Token ids.
            starts: First pooled position of each row.
            labels: As long as the rows.
            weights: What each label of a row counts.
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
