"""Weights that are stored in another dtype than is computed in: kept, or converted while read.

transformers maps a file, converts a tensor at once and leaves the mapped pages in memory until all
are done: twice the bytes. Here a tensor is read in pieces that stay in the processor's cache.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from transformers import MODEL_MAPPING, AutoModel

from ..arithmetic.dtype import resolve_dtype
from ..arithmetic.stored import HALF, MODEL_TYPES
from .files import weight_files

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from .options import LoadOptions

_BLOCK = 2**18  # values that are read at once
_PIECE = 2**15  # values that torch leaves to the thread that asks: several read at once
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a safetensors file, which transformers takes for the slice of an opened one.

    Attributes:
        path: The file.
        start: Where its values start, in bytes.
        shape: Its shape.
        dtype: Its dtype in the file.
        mapped: The same as safetensors gives it.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    mapped: Any

    def __getitem__(self, everything: Any) -> StoredTensor:
        """Itself: transformers asks for all of a slice before it names the dtype."""
        if everything is not ...:
            raise TypeError(f"only a whole tensor can be read, not [{everything!r}]")
        return self

    def to(self, *, device: Any = None, dtype: torch.dtype | None = None) -> torch.Tensor:
        """All values in a dtype, bit by bit those of `torch.Tensor.to` (NaNs may differ in bits).

        In their own dtype they stay mapped.

        Raises:
            ValueError: the file ends before they do.
        """
        if dtype is None or dtype == self.dtype:
            return self.mapped[...].to(device=device)  # type: ignore[no-any-return]
        return self._converted(dtype).to(device=device)

    def _converted(self, dtype: torch.dtype) -> torch.Tensor:
        found = torch.empty(math.prod(self.shape), dtype=dtype)
        memory = bytearray(max(1, min(_BLOCK, len(found))) * self.dtype.itemsize)
        read = torch.frombuffer(memory, dtype=self.dtype)
        # Half to half goes through float32 in torch, too, but one value at a time.
        wide = torch.empty(_PIECE) if dtype.itemsize == self.dtype.itemsize == 2 else None
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            for block in found.split(_BLOCK):
                wanted = memoryview(memory)[: len(block) * self.dtype.itemsize]
                if file.readinto(wanted) != len(wanted):
                    raise ValueError(f"{self.path} ends before its tensors do: fetch it again")
                values = read[: len(block)].split(_PIECE)
                for part, piece in zip(block.split(_PIECE), values, strict=True):
                    part.copy_(piece if wide is None else wide[: len(part)].copy_(piece))
        return found.view(self.shape)


_FEWEST = 2**26  # bytes of weights


def to_convert(directory: Path, dtype: torch.dtype) -> dict[str, Any] | None:
    """The tensors of a checkpoint by name, if some are stored in another dtype than wanted.

    Returns:
        What `from_pretrained(state_dict=...)` takes; None where there is nothing to convert, or so
        little that its memory does not matter.
    """
    paths = weight_files(directory)
    if sum(path.stat().st_size for path in set(paths.values())) < _FEWEST:
        return None
    tensors: dict[str, Any] = {}
    for path in sorted(set(paths.values())):
        tensors |= _tensors(path)
    stored = {tensor.dtype for tensor in tensors.values() if isinstance(tensor, StoredTensor)}
    return tensors if stored - {dtype} and sys.byteorder == "little" else None


def dtypes(
    directory: Path,
    config: PretrainedConfig,
    options: LoadOptions,
    device: torch.device,
    *,
    keep: bool,
) -> tuple[torch.dtype | None, torch.dtype]:
    """The dtype that weights keep, None where they are converted, and the one computed in.

    Args:
        directory: Holds the weights.
        config: Theirs.
        options: How they are loaded.
        device: What computes.
        keep: Whether weights may keep the dtype of their files.

    Raises:
        ValueError: as `resolve_dtype`.
    """
    kept = None
    plain = options.device_map is None and options.quantization in (None, "int8")
    if keep and device.type == "cpu" and plain:
        kept = _kept(directory, config)
    computed = resolve_dtype(options.dtype, config, directory, device, kept=kept is not None)
    return kept, computed


def _kept(directory: Path, config: PretrainedConfig) -> torch.dtype | None:
    """The half-precision dtype that all weights of a checkpoint have and may keep in memory.

    None where they are to be converted: by the architecture (`stored.MODEL_TYPES`), or because they
    are so few that it does not matter.
    """
    special = getattr(config, "quantization_config", None) or hasattr(config, "auto_map")
    paths = weight_files(directory)
    size = sum(path.stat().st_size for path in set(paths.values()))
    if special or config.model_type not in MODEL_TYPES or size < _FEWEST:
        return None
    names = {entry["dtype"] for path in set(paths.values()) for entry in _entries(path)}
    found = _DTYPES.get(names.pop()) if len(names) == 1 else None
    return found if found in HALF else None


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """What the header of a safetensors file says of each tensor."""
    header, _ = _header(path)
    return (entry for name, entry in header.items() if name != "__metadata__")


def stock_class(found: Any, config: PretrainedConfig) -> Any:
    """The class that takes tensors in place of files; None where more than one class is at work.

    Args:
        found: AutoModel, which cannot, or a class.
        config: Decides what AutoModel is.
    """
    more = ("quantization_config", "auto_map")
    if type(config).sub_configs or any(hasattr(config, name) for name in more):
        return None
    chosen = MODEL_MAPPING.get(type(config), None) if found is AutoModel else found
    return chosen if isinstance(chosen, type) else None


def _tensors(path: Path) -> dict[str, Any]:
    """Tensors of floats, and slices of others as safetensors gives them."""
    opened: Any = safe_open(path, framework="pt")
    header, start = _header(path)
    found: dict[str, Any] = {}
    for name in opened.keys():
        entry, mapped = header[name], opened.get_slice(name)
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            found[name] = mapped
        else:
            first = start + entry["data_offsets"][0]
            found[name] = StoredTensor(path, first, tuple(entry["shape"]), dtype, mapped)
    return found


def _header(path: Path) -> tuple[Mapping[str, Any], int]:
    """The header of a safetensors file, and where its values start.

    Eight bytes give the length of the header, little-endian; offsets count from its end.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    return header, 8 + length
