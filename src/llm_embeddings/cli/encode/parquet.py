"""What reading and writing parquet share."""

from __future__ import annotations

import hashlib
import os
from typing import Any, BinaryIO


def import_pyarrow() -> Any:
    """Import pyarrow with its parquet half.

    Raises:
        ImportError: it is not installed; the message says how.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "parquet files need pyarrow: pip install 'llm-embeddings[parquet]'"
        ) from error
    return pyarrow


def footer_digest(file: BinaryIO) -> str:
    """Hash of the part of a parquet file that says where everything lies: other rows change it."""
    file.seek(-8, os.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    file.seek(-8 - length, os.SEEK_END)
    return hashlib.sha256(file.read(length)).hexdigest()
