"""Copies of an earlier version's files, and who is asked to embed anything."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.compatibility import VERSIONS, Older, fingerprint_of_0_1_0

from llm_embeddings import Encoder


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def older(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Older:
    """The copy is the current directory; names in the files are relative to it."""
    folder = tmp_path.resolve() / "files"
    shutil.copytree(request.param, folder)
    monkeypatch.chdir(folder)
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    with np.load(folder / "vectors.npz") as vectors:
        return Older(folder, expected, dict(vectors))


@pytest.fixture
def encoder(older: Older) -> Iterator[Encoder]:
    found = Encoder.from_pretrained(older.folder / "model", dtype="float32", device="cpu")
    yield found
    found.close()


@pytest.fixture
def names_of_then(older: Older, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models have the names that the version gave them: what else is in its files is looked at."""
    if older.expected["version"] == "0.1.0":
        monkeypatch.setattr(Encoder, "fingerprint", fingerprint_of_0_1_0)


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by the texts that an encoder is asked for, whole or token by token."""
    texts: list[str] = []
    for name in ("encode", "encode_tokens", "prepare"):
        monkeypatch.setattr(Encoder, name, noting(getattr(Encoder, name), texts))
    return texts


def noting(method: Any, texts: list[str]) -> Any:
    """A method of `Encoder` that writes down the texts that it is given."""

    @functools.wraps(method)
    def encode(self: Encoder, given: Any, *arguments: Any, **options: Any) -> Any:
        texts.extend([given] if isinstance(given, str) else given)
        return method(self, given, *arguments, **options)

    return encode
