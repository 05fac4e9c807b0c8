"""Optional parts: names imported at first use, and packages that only some extra installs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def require(module: str, need: str, *, extra: str) -> Any:
    """Import a module of an optional dependency.

    Args:
        module: Its dotted name, such as "matplotlib.pyplot".
        need: Who needs it, as the error says it: "plots need matplotlib".
        extra: The extra of this distribution that installs it.

    Returns:
        The module.

    Raises:
        ImportError: it cannot be imported; the message is `need` and the line to install the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{need}: pip install 'llm-embeddings[{extra}]'") from error


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
