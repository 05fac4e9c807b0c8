"""Token ids of a corpus that are kept on disk: the same batches, and the work is done once."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from helpers.training import WORDS, quick

from llm_embeddings.batching import windows
from llm_embeddings.training import mntp
from llm_embeddings.training.mntp import MNTP


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MNTP:
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(mntp, "windows", partial(windows, size=7))
    texts = tmp_path / "texts.txt"
    lines = (f"stone {i} is {' '.join(WORDS[: i % 10 + 1])}" for i in range(60))
    texts.write_text("\n".join(lines), encoding="utf-8")
    more: dict[str, Any] = {"recipe": mntp.MNTP_RECIPE, "block_length": 24}
    return MNTP(**quick(tmp_path, str(texts), **more))


def batches(options: MNTP, start: int = 0) -> list[Any]:
    return list(islice(mntp._Stage(options).batches(start), 3))


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "assets").glob("*/tokens/*/*") if path.is_file()]


@pytest.mark.slow
def test_ids_are_made_once_and_batches_are_the_same(
    options: MNTP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = batches(options)
    assert not kept(tmp_path)  # a small file is not worth it
    monkeypatch.setattr(mntp, "_KEPT", 0)
    assert batches(options) == wanted
    files = kept(tmp_path)
    assert len(files) == 9  # windows of the 60 texts
    files[0].write_bytes(files[0].read_bytes()[:-8] + b"damaged!")
    assert batches(options) == wanted

    def never(*_: Any) -> Any:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(mntp, "tokenize", never)
    assert batches(options) == wanted
    assert batches(options, 1)[:2] == wanted[1:]


@pytest.mark.slow
def test_nothing_is_kept_where_nothing_can_be_written(
    options: MNTP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = batches(options)
    (tmp_path / "assets").write_text("a file in the way")
    monkeypatch.setattr(mntp, "_KEPT", 0)
    assert batches(options) == wanted
