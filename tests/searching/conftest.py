"""The folder that `llm-embeddings search` reads, and the place of its index."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.searching import write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "index"
