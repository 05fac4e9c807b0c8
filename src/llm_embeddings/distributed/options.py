"""Options of a run, checked before work starts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from ..arithmetic.kinds import Quantization
from ..arithmetic.precision import Precision
from ..recipe import Recipe, Role

OnError = Literal["raise", "skip"]
COLUMN = "embedding"


class EmbeddingOptions(TypedDict, total=False):
    """The keyword arguments of `EmbedBatch` that `embed_dataset` passes on."""

    model: str | Path | None
    recipe: Recipe | str | None
    adapters: Sequence[str | Path] | None
    device: str | None
    dtype: str
    attn_implementation: str | None
    quantization: Quantization | None
    device_map: str | Mapping[str, Any] | None
    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    trust_remote_code: bool
    role: Role
    instruction: str | None
    embedding_column: str
    normalize: bool | None
    truncate_dim: int | None
    precision: Precision
    max_length: int | None
    max_batch_tokens: int | None


@dataclass(frozen=True, slots=True)
class Share:
    """How many workers there are, and what each gets.

    Attributes:
        cpus: CPUs of each worker; a fraction of one is one thread.
        gpus: GPUs of each worker; with a half, two share one, whose memory Ray does not divide.
        least: Fewest workers.
        most: Most workers.
    """

    cpus: float
    gpus: float
    least: int
    most: int


def check_embedding(options: Mapping[str, Any]) -> None:
    """Check the names of options.

    Raises:
        TypeError: there is no such option; the nearest one is named.
    """
    known = [*EmbeddingOptions.__annotations__]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise TypeError(f"embed_dataset has no option {name!r}{hint}")


def absolute(options: EmbeddingOptions) -> EmbeddingOptions:
    """Options with absolute paths, as workers run in another directory."""
    found = options.copy()
    if found.get("model") is not None:
        found["model"] = _absolute(found["model"])
    if found.get("adapters"):
        found["adapters"] = [_absolute(adapter) for adapter in found["adapters"] or ()]
    if found.get("cache_dir") is not None:
        found["cache_dir"] = str(Path(str(found["cache_dir"])).expanduser().absolute())
    return found


def _absolute(place: Any) -> str:
    """The absolute path of a file or directory that is there; else (a hub id) `place` itself."""
    path = Path(str(place)).expanduser()
    return str(path.absolute()) if path.exists() else str(place)


def check_run(columns: Sequence[str] | None, rows_per_block: int, on_error: str) -> None:
    """Check options of `embed_dataset`.

    Raises:
        ValueError: a value that cannot be.
    """
    if rows_per_block < 1:
        raise ValueError(f"rows_per_block={rows_per_block} must be 1 or more")
    if on_error not in get_args(OnError):
        raise ValueError(f"on_error={on_error!r} is not one of {get_args(OnError)}")
    if isinstance(columns, str):
        raise ValueError(f"columns={columns!r} must be a list of names")
    if columns is not None and len(set(columns)) < len(columns):
        raise ValueError(f"columns={list(columns)} names one twice")


def check_share(
    concurrency: int | tuple[int, int] | None, cpus: float | None, gpus: float | None
) -> None:
    """Check the numbers of workers, CPUs and GPUs.

    Raises:
        ValueError: a number that cannot be.
    """
    least, most = concurrency if isinstance(concurrency, tuple) else (concurrency, concurrency)
    if (least is not None and least < 1) or (least or 1) > (most or 1):
        raise ValueError(f"concurrency={concurrency} must be 1 or more, or (least, most)")
    for name, value in (("num_cpus", cpus), ("num_gpus", gpus)):
        if value is not None and value < 0:
            raise ValueError(f"{name}={value} must not be negative")
    if cpus == 0 and not gpus:
        raise ValueError("num_cpus=0 without a GPU: Ray would start workers without end")
