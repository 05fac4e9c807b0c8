"""What holds the weights, apart from everything that is copied, pickled or written."""

from __future__ import annotations

import threading
from typing import Any

from llm_embeddings import Encoder


class Handle:
    """The loaded encoder: shared by copies, left behind by pickles."""

    def __init__(self, encoder: Encoder | None = None, fingerprint: str = "") -> None:
        self.encoder = encoder
        self.lock = threading.Lock()
        self._fingerprint = fingerprint

    def __reduce__(self) -> tuple[type[Handle], tuple[None, str]]:
        return Handle, (None, self.fingerprint)

    def __deepcopy__(self, memo: dict[int, Any]) -> Handle:
        return self

    @property
    def fingerprint(self) -> str:
        """Of the model as it is, without instructions; known before the model is loaded."""
        if self.encoder is None:
            return self._fingerprint
        return self.encoder.fingerprint("document", "")
