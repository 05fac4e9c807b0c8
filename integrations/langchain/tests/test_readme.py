"""The options table of the README and the class say the same."""

from __future__ import annotations

import re
from pathlib import Path

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_options_table_is_complete() -> None:
    from langchain_llm_embeddings import LLMEmbeddings

    listed = re.findall(r"^\| `(\w+)`", README, re.M)
    assert listed == list(LLMEmbeddings.model_fields)
