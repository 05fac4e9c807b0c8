"""Modules that share weights, and options that are not for a module."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from typing import Any

from torch import nn

from llm_embeddings.faces import ELSEWHERE

# Options of SentenceTransformer that reach a module, and what says nothing in each.
_LEFT_OUT: Mapping[str, tuple[Any, ...]] = {
    "backend": (None, "torch"),
    "processor_kwargs": (None, {}),
    "config_kwargs": (None, {}),
}


def check_kwargs(given: Mapping[str, Any]) -> None:
    """Raise `ValueError` for an option that another kind of module would obey."""
    for name, nothing in _LEFT_OUT.items():
        if given.get(name) not in nothing:
            instead = {"processor_kwargs": "max_seq_length of the model; "}.get(name, "")
            raise ValueError(
                f"{name}={given[name]!r} is not for this model: {instead}{ELSEWHERE[name][1]}"
            )


class Copies:
    """The modules that share weights because one is a copy of the other."""

    def __init__(self) -> None:
        """Begin with none."""
        self._modules: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def __reduce__(self) -> tuple[Any, ...]:
        return Copies, ()

    def add(self, *modules: nn.Module) -> None:
        """Some that share weights from now on."""
        self._modules.update(modules)

    def check(self) -> None:
        """Raise `ValueError` if there are several: training one would train the others."""
        if len(self._modules) > 1:
            gc.collect()  # a model and its card hold each other
        if len(self._modules) > 1:
            raise ValueError(
                "a copy of this model shares its weights, and would be trained with it: load the "
                "checkpoint once more in place of copy.deepcopy(model)"
            )
