"""Names that a sub-package exports, imported when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, homes: Mapping[str, str], *, extra: str) -> Callable[[str], Any]:
    """A module's `__getattr__` (PEP 562): importing the package alone stays cheap.

    Args:
        package: `__name__` of the package.
        homes: In which of its modules each name is defined.
        extra: The extra of this distribution that the modules need.

    Returns:
        What to assign to `__getattr__`. It raises `AttributeError` for other names, and
        `ImportError` with the line to install the extra where a dependency is missing.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"{package} needs {error.name}: pip install 'llm-embeddings[{extra}]'"
            ) from error

    return load
