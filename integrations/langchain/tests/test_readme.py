"""The README's tables and the classes say the same; what needs a model that generates runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from langchain_llm_embeddings import GritLMChat, LLMEmbeddings
from langchain_llm_embeddings.loading import ModelFields

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
TABLES = re.findall(r"^\| option.*\n\|-.*\n((?:\|.*\n)+)", README, re.M)


def listed(table: str) -> list[str]:
    cells = [row.split("|")[1] for row in table.splitlines()]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell) if name != "model_name"]


def test_options_table_is_complete() -> None:
    assert listed(TABLES[0]) == list(LLMEmbeddings.model_fields)


def test_options_table_of_the_chat_model_is_complete() -> None:
    own = GritLMChat.__annotations__.keys() - {"model_config", "_reader"}
    assert not own & ModelFields.model_fields.keys()
    assert sorted(listed(TABLES[1])) == sorted(own)


@pytest.mark.parametrize("block", re.findall(r"^```py\n(.*?)^```", README, re.M | re.S))
def test_block_runs_on_a_tiny_checkpoint(
    block: str, golden: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """tests/test_readme.py runs the other blocks, on the bundled model, which cannot generate."""
    checkpoint = str(golden / "gritlm-7b/model")
    assert "GritLM/GritLM-7B" in block
    exec(block.replace("GritLM/GritLM-7B", checkpoint), {"__name__": "__main__"})
    assert capsys.readouterr().out
