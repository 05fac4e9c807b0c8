"""How many of torch's threads a pass computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Cores:
    """The threads of this process, as its callers have set them with `torch.set_num_threads`."""

    _count = 1

    def count(self) -> int:
        """Read the setting, in a caller's thread."""
        import torch

        self._count = torch.get_num_threads()
        return self._count

    @contextmanager
    def half(self) -> Iterator[None]:
        """Let the calling thread, and it alone, compute with half of them."""
        import torch

        # torch keeps the number per thread, and hands the last one set to threads that begin.
        torch.set_num_threads(max(1, self._count // 2))
        try:
            yield
        finally:
            torch.set_num_threads(self._count)
