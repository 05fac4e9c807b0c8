"""Keys and values of first tokens that come back: the instruction before every query.

Only causal backbones have them: there, states depend on nothing that follows.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from ..arithmetic.prepacking import PrepackedLinear
from .pack import Cached

if TYPE_CHECKING:
    from torch import nn

_MAX_BYTES = 2**28


class PrefixStore:
    """The prefixes used last, within a limit of bytes. Threads may share it."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        """Start empty."""
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[int, ...], Cached] = OrderedDict()
        self._version: int | None = None
        self._lock = threading.Lock()

    def check(self, backbone: nn.Module) -> bool:
        """Forget everything if a weight has changed since; say whether prefixes can be kept."""
        version = weights_version(backbone)
        with self._lock:
            if version is None or version != self._version:
                self._entries.clear()
                self._version = version
        return version is not None

    def get(self, ids: tuple[int, ...]) -> Cached | None:
        """What is kept of exactly these tokens."""
        with self._lock:
            if ids in self._entries:
                self._entries.move_to_end(ids)
            return self._entries.get(ids)

    def put(self, ids: tuple[int, ...], states: Cached) -> None:
        """Keep states, and forget those not used for longest."""
        with self._lock:
            self._entries[ids] = states
            while sum(map(_size, self._entries.values())) > self._max_bytes:
                self._entries.popitem(last=False)


def weights_version(backbone: nn.Module) -> int | None:
    """A number that changes when a weight does; None where that cannot be known.

    Counts torch's in-place changes and looks at addresses: training, adapters and `.to()` show.
    Changes through `.data`, as PEFT's when it merges, show in prepacked layers.
    """
    modules: list[nn.Module] = [backbone]
    seen: list[object] = []
    while modules:
        module = modules.pop()
        modules.extend(child for child in module._modules.values() if child is not None)
        if isinstance(module, PrepackedLinear):
            seen.append(module.sample())
        for weight in module._parameters.values():
            if weight is None:
                continue
            if weight.is_inference():
                return None  # torch does not count changes of these
            seen.append((weight._version, weight.data_ptr()))
    return hash(tuple(seen))


def _size(states: Cached) -> int:
    return sum(key.nbytes + value.nbytes for key, value in states.layers.values())
