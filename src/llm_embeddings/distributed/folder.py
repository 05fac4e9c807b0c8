"""Folders on a disk or in an object store, whose files are whole or not there.

On a disk a file is written under another name, synced and renamed. An object store shows an object
once its upload is complete, so a file is written in one upload of bytes that are all ready.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ..storage.blocks import changed_values, seal_values
from ..storage.files import sync, sync_directory
from .tables import import_arrow

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

MANIFEST, SUCCESS = "_llm_embeddings.json", "_SUCCESS"
STAGED, UNFINISHED = "_input", "_unfinished"
_PART = re.compile(r"part-(\d{5,})\.parquet")


def part_name(number: int) -> str:
    """The name of the output file (a "part") of block `number`."""
    return f"part-{number:05d}.parquet"


def locate(place: str | Path) -> tuple[FileSystem, str]:
    """The file system of a path or URI, and the path in it.

    Raises:
        ValueError: the URI is of an unknown kind or contains a key, or its store cannot be opened.
    """
    fs = import_fs()
    if "://" not in str(place):
        return fs.LocalFileSystem(), str(Path(place).expanduser().absolute())
    if urlsplit(str(place)).password:
        raise ValueError(
            "a key in a URI ends up in files and logs: leave it to the environment or the "
            "machine's role, where the store's client finds it"
        )
    try:
        system, path = fs.FileSystem.from_uri(str(place))
    except Exception as error:  # of whatever kind the store's client raises
        raise ValueError(f"{place} cannot be opened: {error}") from error
    return system, path.rstrip("/")


def below(place: str | Path, name: str) -> str:
    """Path or URI of a file in a folder."""
    if "://" not in str(place):
        return f"{locate(place)[1]}/{name}"
    head, mark, query = str(place).partition("?")
    return f"{head.rstrip('/')}/{quote(name)}{mark}{query}"


def import_fs() -> Any:
    """The module `pyarrow.fs`.

    Raises:
        ImportError: pyarrow is not installed.
    """
    import_arrow()
    import pyarrow.fs

    return pyarrow.fs


class Folder:
    """A folder that several machines write into.

    Attributes:
        place: Its URI, or its absolute path, as workers run in another directory.
        path: Its path in the file system.
        filesystem: The file system that it lies in.
    """

    def __init__(self, place: str | Path) -> None:
        """Open a folder; nothing is made yet.

        Raises:
            ValueError: the place cannot be opened, or would show files before they are whole.
        """
        self.filesystem, self.path = locate(place)
        self.place = str(place) if "://" in str(place) else self.path
        self._local = self.filesystem.type_name == "local"
        if self.filesystem.type_name == "hdfs":
            raise ValueError(
                f"{place}: a half-written file would be seen in HDFS. Mount it, or write to an "
                "object store"
            )

    def names(self, below: str = "") -> list[str]:
        """Sorted names of files and folders in it or in its folder `below`; [] if there is none."""
        selector = import_fs().FileSelector(self._at(below), allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def parts(self) -> set[int]:
        """The numbers of blocks whose output files are there."""
        found = map(_PART.fullmatch, self.names())
        return {int(match[1]) for match in found if match}

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        (info,) = self.filesystem.get_file_info([self._at(name)])
        return bool(info.is_file)

    def path_of(self, name: str) -> str:
        """The path of a file in the file system."""
        return self._at(name)

    def put(self, name: str, data: Any) -> None:
        """Write a file so that it is whole or not there, and stays through a power failure.

        Args:
            name: Name in this folder; "a/b" makes the folder "a".
            data: Bytes or an Arrow buffer.
        """
        if not self._local:
            with self.filesystem.open_output_stream(self._at(name)) as stream:
                stream.write(data)
            return
        target = Path(self._at(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(self._at(UNFINISHED)) / f"{target.name}.{uuid.uuid4().hex}"
        unfinished.parent.mkdir(exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(data)
            sync(file)
        unfinished.replace(target)
        sync_directory(target.parent)

    def put_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write values with their checksum into a file of JSON, as `put` does."""
        sealed = seal_values(values)
        self.put(name, json.dumps(sealed, indent=1, ensure_ascii=False).encode() + b"\n")

    def get_json(self, name: str) -> dict[str, Any] | None:
        """The values in a file of JSON; None = there is no such file.

        Raises:
            ValueError: the file is damaged.
        """
        if not self.has(name):
            return None
        with self.filesystem.open_input_stream(self._at(name)) as stream:
            data = stream.read()
        try:
            found = json.loads(data)
        except ValueError as error:
            raise ValueError(f"{self.place}/{name} is damaged: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{self.place}/{name} is not what this package writes")
        if changed_values(found):
            raise ValueError(
                f"{self.place}/{name} is damaged: name another folder, and begin again"
            )
        found.pop("seal", None)
        return found

    def remove(self, name: str) -> None:
        """Remove a folder in this one, if it is there."""
        (info,) = self.filesystem.get_file_info([self._at(name)])
        fs = import_fs()
        if info.type == fs.FileType.Directory:
            self.filesystem.delete_dir(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path
