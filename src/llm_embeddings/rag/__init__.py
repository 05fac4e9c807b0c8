"""Retrieval and answers from one model: an index, and a reader that reads no document twice."""

from .late import late_vectors, spans_of
from .modes import MODES, Mode, Rule
from .reader import Cost, Reader
from .states import StateStore
from .store import DocumentIndex, Hit
from .table import Document

__all__ = [
    "MODES",
    "Cost",
    "Document",
    "DocumentIndex",
    "Hit",
    "Mode",
    "Reader",
    "Rule",
    "StateStore",
    "late_vectors",
    "spans_of",
]
