"""A store for keys and values of texts between questions: on a device, in memory, or on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..checkpoint.files import read_json
from ..generation.kv import KeyValues
from ..inputs import names_checked

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["causal", "embedding"]

logger = logging.getLogger(__name__)

_VERSION = 1
_MANIFEST, _SUFFIX, _UNFINISHED = "states.json", ".safetensors", ".part"


class StateStore:
    """Keeps keys and values of token sequences, up to a number of bytes.

    Beyond it, those not used for longest are dropped. Threads may share a store, processes a
    folder. A damaged file is logged and removed, as if its states had not been kept.

    Attributes:
        folder: Directory of the files; None = states are kept in memory.
        device: Device of the memory.
        max_bytes: Most bytes of all states together.
    """

    @names_checked
    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        device: str | torch.device = "cpu",
        max_bytes: int = 2**30,
    ) -> None:
        """Open a folder, or start with nothing in memory.

        Args:
            folder: A directory for one safetensors file per text, memory-mapped when used; None =
                keep states in memory.
            device: Device of the memory, without a folder; "cuda" saves a copy before each answer.
            max_bytes: Most bytes of all states together.

        Raises:
            ValueError: `max_bytes` is not positive, or a folder together with a device.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes={max_bytes} must be 1 or more")
        self.device, self.max_bytes = torch.device(device), max_bytes
        if folder is not None and self.device.type != "cpu":
            raise ValueError(f"states lie in folder={folder!r} or on device={device!r}, not both")
        self.folder = None if folder is None else Path(folder).expanduser()
        self._lock = threading.RLock()
        self._fingerprint: str | None = None
        self._memory: dict[str, KeyValues] = {}
        self._checked: set[str] = set()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            files = [(path, path.stat()) for path in self.folder.glob(f"*{_SUFFIX}")]
            for path, stat in sorted(files, key=lambda item: item[1].st_mtime_ns):
                self._sizes[path.stem] = stat.st_size
            self._shrink()

    def __len__(self) -> int:
        """How many token sequences have their states kept."""
        return len(self._sizes)

    @property
    def nbytes(self) -> int:
        """Bytes that all states take."""
        return sum(self._sizes.values())

    def bind(self, fingerprint: str) -> None:
        """Tie the store to a model, so that states of another one are never returned.

        Args:
            fingerprint: `Encoder.fingerprint`: weights, dtype, tokenizer and templates.

        Raises:
            ValueError: the store holds states of another model or of another version of its format.
        """
        with self._lock:
            known, version = self._fingerprint, _VERSION
            if self.folder is not None:
                manifest = read_json(self.folder / _MANIFEST)
                known, version = manifest.get("fingerprint"), manifest.get("version", _VERSION)
            if (known or fingerprint, version) != (fingerprint, _VERSION):
                raise ValueError(
                    f"the states in {self.folder or 'this store'} were made by the model {known} "
                    f"(format {version}), and this is the model {fingerprint} (format {_VERSION}): "
                    "weights, dtype or templates differ, or version 0.1, which named every model "
                    "otherwise, made them. Use another folder, or delete this one"
                )
            if self.folder is not None and known is None:
                text = json.dumps({"version": _VERSION, "fingerprint": fingerprint})
                _replace(self.folder / _MANIFEST, lambda path: path.write_text(text, "utf-8"))
            self._fingerprint = fingerprint

    def check(self, nbytes: int) -> None:
        """Check that so many bytes of states can be kept at all.

        Raises:
            ValueError: they are more than `max_bytes`.
        """
        if nbytes > self.max_bytes:
            raise ValueError(
                f"the states of these texts take {nbytes:,} bytes and max_bytes={self.max_bytes:,}:"
                " raise it, keep fewer texts, or keep them on disk (StateStore(folder))"
            )

    def has(self, kind: Kind, ids: Sequence[int]) -> bool:
        """Whether the states of exactly these tokens are kept and readable."""
        return self.get(kind, ids) is not None

    def get(self, kind: Kind, ids: Sequence[int]) -> KeyValues | None:
        """The states of exactly these tokens; None = they are not kept.

        Args:
            kind: "causal", or "embedding" for the pass that embeds.
            ids: The token ids.

        Returns:
            States on the store's device; with a folder, mapped from the file, on the CPU.
        """
        key = _key(kind, ids)
        with self._lock:
            if key not in self._sizes:
                return None
            self._sizes.move_to_end(key)
            return self._memory[key] if self.folder is None else self._read(self.folder, key)

    def put(self, kind: Kind, ids: Sequence[int], states: KeyValues) -> None:
        """Keep states, dropping those not used for longest; not if they exceed `max_bytes`.

        Where the disk forbids it, warn and go on: they are made again when they are needed.
        """
        if states.nbytes > self.max_bytes:
            logger.debug("states of %d tokens are over max_bytes and not kept", len(ids))
            return
        key = _key(kind, ids)
        with self._lock:
            if self.folder is None:
                self._memory[key] = states.to(self.device)
                self._sizes[key] = states.nbytes
            else:
                try:
                    self._sizes[key] = self._write(self.folder, key, states)
                except (OSError, SafetensorError) as error:
                    words = (
                        f"the states of {len(ids)} tokens are not kept in {self.folder}: {error}"
                    )
                    warnings.warn(words, RuntimeWarning, stacklevel=2)
                    return
            self._sizes.move_to_end(key)
            self._shrink()

    def delete(self, kind: Kind, ids: Sequence[int]) -> None:
        """Drop the states of these tokens, if they are kept."""
        with self._lock:
            self._drop(_key(kind, ids))

    def clear(self) -> None:
        """Drop all states."""
        with self._lock:
            for key in list(self._sizes):
                self._drop(key)

    def _shrink(self) -> None:
        """Drop the states not used for longest until the rest fits `max_bytes`."""
        while self.nbytes > self.max_bytes:
            self._drop(next(iter(self._sizes)))

    def _drop(self, key: str) -> None:
        self._sizes.pop(key, None)
        self._memory.pop(key, None)
        self._checked.discard(key)
        if self.folder is not None:
            _path(self.folder, key).unlink(missing_ok=True)

    def _write(self, folder: Path, key: str, states: KeyValues) -> int:
        """Write states to a file; returns its size in bytes."""
        tensors = _named(states)
        facts = {"fingerprint": str(self._fingerprint), "checksum": _checksum(tensors, key)}
        path = _path(folder, key)
        _replace(path, lambda part: save_file(tensors, part, metadata=facts))
        self._checked.add(key)
        return path.stat().st_size

    def _read(self, folder: Path, key: str) -> KeyValues | None:
        """The states in a file, mapped; the first time its checksum is compared.

        A file that cannot be used is removed, and None returned.
        """
        path = _path(folder, key)
        try:
            with safe_open(path, framework="pt") as opened:
                facts = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}
            if facts.get("fingerprint") != self._fingerprint:
                raise ValueError("it is of another model")
            if key not in self._checked and not _unchanged(facts, tensors, key):
                raise ValueError("its checksum is wrong")
        except (OSError, SafetensorError, ValueError) as error:
            logger.warning("%s cannot be used and is made again: %s", path, error)
            self._drop(key)
            return None
        self._checked.add(key)
        with contextlib.suppress(OSError):  # of a folder that may only be read
            os.utime(path)
        return _unnamed(tensors)


def _key(kind: Kind, ids: Sequence[int]) -> str:
    """A hash of kind and tokens, which names the file."""
    return hashlib.sha256(json.dumps([kind, list(ids)]).encode()).hexdigest()[:32]


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}{_SUFFIX}"


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is whole or not there at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}{_UNFINISHED}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _named(states: KeyValues) -> dict[str, Tensor]:
    """Keys and values by names, which sort in the order of the layers."""
    found = {}
    for layer, (key, value) in enumerate(states.layers):
        found[f"{layer:04d}.key"] = key.cpu().contiguous()
        found[f"{layer:04d}.value"] = value.cpu().contiguous()
    return found


def _unnamed(tensors: dict[str, Tensor]) -> KeyValues:
    """The states that `_named` gave names."""
    names = sorted(tensors)
    pairs = zip(names[::2], names[1::2], strict=True)
    return KeyValues(tuple((tensors[key], tensors[value]) for key, value in pairs))


def _unchanged(facts: dict[str, str], tensors: dict[str, Tensor], key: str) -> bool:
    """Whether tensors are those that were written under a key."""
    if "checksum" in facts:
        return facts["checksum"] == _checksum(tensors, key)
    found = 0
    for name in sorted(tensors):  # files of version 0.1.0
        found = zlib.crc32(_bytes_of(tensors[name]), found)
    return facts.get("crc32") == str(found)


def _checksum(tensors: dict[str, Tensor], key: str) -> str:
    """Of the key and of names, types, shapes and values."""
    found = zlib.crc32(key.encode())
    for name in sorted(tensors):
        one = tensors[name]
        found = zlib.crc32(f"{name} {one.dtype} {tuple(one.shape)}".encode(), found)
        found = zlib.crc32(_bytes_of(one), found)
    return str(found)


def _bytes_of(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy()
