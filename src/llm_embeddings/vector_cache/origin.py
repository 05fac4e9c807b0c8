"""The files that a model's weights were read from, as long as nobody changes them in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..storage.hashing import Stamp


@dataclass(frozen=True, slots=True)
class Origin:
    """Where weights come from.

    Attributes:
        files: All files of weights, as they were before the weights were read.
        facts: What else made the weights out of them; JSON.
    """

    files: tuple[Stamp, ...]
    facts: Mapping[str, Any]

    def but(self, **facts: Any) -> Origin:
        """The same files with more that makes weights out of them."""
        return dataclasses.replace(self, facts={**self.facts, **facts})
