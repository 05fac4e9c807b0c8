"""Retrieval and answers with one model: an index of documents, and a reader that answers.

The reader keeps the states of documents, so that it need not read a document twice.
"""

from ..ranking.fusion import SearchMode
from .documents import Document
from .finding import Hit
from .late import late_vectors, spans_of
from .modes import MODES, Mode, Rule
from .reader import Cost, Reader
from .states import StateStore
from .store import DocumentIndex

__all__ = [
    "MODES",
    "Cost",
    "Document",
    "DocumentIndex",
    "Hit",
    "Mode",
    "Reader",
    "Rule",
    "SearchMode",
    "StateStore",
    "late_vectors",
    "spans_of",
]
