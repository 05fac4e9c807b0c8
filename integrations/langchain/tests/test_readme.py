"""Every code block of the README runs as it stands; a tiny checkpoint plays the bundled model."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from llm_embeddings import Encoder

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    textwrap.dedent(code) for code in re.findall(r"^ *```python\n(.*?)^ *```", README, re.M | re.S)
]


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(
    code: str, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_pretrained(model: None = None, **options: Any) -> Encoder:
        assert model is None
        return encoder

    monkeypatch.setattr(Encoder, "from_pretrained", from_pretrained)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_options_table_is_complete() -> None:
    from langchain_llm_embeddings import LLMEmbeddings

    listed = re.findall(r"^\| `(\w+)`", README, re.M)
    assert listed == list(LLMEmbeddings.model_fields)
