"""Options of a run, checked before work starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..checkpoint.options import LoadKeywords, LoadOptions
from ..faces import check_names
from ..inputs import EncodeOptions, QuietKeywords
from ..recipe import Role

OnError = Literal["raise", "skip"]
COLUMN = "embedding"
_NOT_HERE = {
    "devices": "it computes on one device, and there may be many of them (concurrency=, or the "
    "size of map_batches' pool)",
    "show_progress": "nobody sees its standard error; embed_dataset and Ray show how far a run is",
}


class BatchKeywords(LoadKeywords, QuietKeywords, total=False):
    """What loads a model, and the options of its calls; `devices` is refused, see `_NOT_HERE`."""


class EmbeddingOptions(BatchKeywords, total=False):
    """The keyword arguments of `EmbedBatch` that `embed_dataset` passes on."""

    model: str | Path | None
    role: Role
    instruction: str | None
    embedding_column: str


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
        TypeError: there is no such option, and the nearest one is named; or one that a worker
            cannot have, and why.
    """
    for name, reason in _NOT_HERE.items():
        if name in options:
            raise TypeError(f"{name}= is not for a worker: {reason}")
    check_names(options, list(EmbeddingOptions.__annotations__))


def divided(options: BatchKeywords) -> tuple[LoadOptions, EncodeOptions]:
    """What loads the model, and what each call of it is given.

    Raises:
        TypeError: as `check_embedding`.
        ValueError: as `LoadOptions` and `EncodeOptions`.
    """
    check_embedding(options)
    values: dict[str, Any] = dict(options)
    load = {field.name for field in dataclasses.fields(LoadOptions)}
    return (
        LoadOptions(**{name: value for name, value in values.items() if name in load}),
        EncodeOptions(**{name: value for name, value in values.items() if name not in load}),
    )


def absolute(options: EmbeddingOptions) -> EmbeddingOptions:
    """Options with absolute paths, as workers run in another directory."""
    found = options.copy()
    if found.get("model") is not None:
        found["model"] = _absolute(found["model"])
    if found.get("adapters"):
        found["adapters"] = [_absolute(adapter) for adapter in found["adapters"] or ()]
    if found.get("cache_dir") is not None:
        found["cache_dir"] = _placed(found["cache_dir"])
    if isinstance(found.get("vector_cache"), str | Path):
        found["vector_cache"] = _placed(found["vector_cache"])
    return found


def _absolute(place: Any) -> str:
    """The absolute path of a file or directory that is there; else (a hub id) `place` itself."""
    path = Path(str(place)).expanduser()
    return str(path.absolute()) if path.exists() else str(place)


def _placed(path: Any) -> str:
    """The absolute path of what may not be there yet."""
    return str(Path(str(path)).expanduser().absolute())


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
