"""A saved model that other engines serve, and what each of them would compute differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..faces import lazy

if TYPE_CHECKING:
    from .client import Row, rows
    from .engines import Difference, Engine, fidelity
    from .modules import export_for, export_sentence_transformers

__all__ = [
    "Difference",
    "Engine",
    "Row",
    "export_for",
    "export_sentence_transformers",
    "fidelity",
    "rows",
]

_HOMES = {
    "Row": "client",
    "rows": "client",
    "Difference": "engines",
    "Engine": "engines",
    "fidelity": "engines",
    "export_for": "modules",
    "export_sentence_transformers": "modules",
}
__getattr__ = lazy(__name__, _HOMES, extra="quant")
