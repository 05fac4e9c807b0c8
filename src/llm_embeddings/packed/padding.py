"""Texts that lie one after the other in a row of tokens, seen padded to the longest."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Padding:
    """Where the tokens of some texts lie, and what fills them up.

    Attributes:
        place: The tokens in the row.
        fill: `[texts x length]`, int64: which of these tokens padded rows hold; None = in order.
        real: Which rows of the padded ones are tokens; None = all.
    """

    place: slice
    fill: torch.Tensor | None
    real: torch.Tensor | None

    @classmethod
    def of(cls, first: int, lengths: torch.Tensor, device: torch.device) -> Padding:
        """Of texts that begin at `first` of the row and have `lengths` tokens, `[texts]`."""
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
