"""What the README says of a model that generates, on a tiny one."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from llama_index.embeddings.llm_embeddings import LLMEmbedding
from llama_index.embeddings.llm_embeddings._options import EmbeddingKeywords
from llama_index.llms.llm_embeddings import GritLM

ROOT = Path(__file__).parents[3]
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"^```py\n(.*?)^```", README, re.M | re.S))
def test_block_runs_on_a_tiny_checkpoint(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    """tests/test_readme.py runs the other blocks, on the bundled model, which cannot generate."""
    assert "GritLM/GritLM-7B" in block
    checkpoint = str(ROOT / "tests/golden/gritlm-7b/model")
    exec(block.replace("GritLM/GritLM-7B", checkpoint), {"__name__": "__main__"})
    assert re.search(r"\S.*\{'page': \d\}", capsys.readouterr().out)


def test_options_table_is_complete() -> None:
    (table,) = re.findall(r"^\| option of `GritLM`.*\n\|-.*\n((?:\|.*\n)+)", README, re.M)
    cells = [row.split("|")[1] for row in table.splitlines()]
    listed = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    own, shared = (
        set(inspect.signature(kind.__init__).parameters) for kind in (GritLM, LLMEmbedding)
    )
    assert listed == own - shared | {"model_name", "encoder", "callback_manager"}


def test_options_table_of_the_embeddings_is_complete() -> None:
    (table,) = re.findall(r"^\| option \|.*\n\|-.*\n((?:\|.*\n)+)", README, re.M)
    cells = [row.split("|")[1] for row in table.splitlines()]
    listed = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    own = set(inspect.signature(LLMEmbedding.__init__).parameters) - {"self", "options"}
    assert listed == own | set(EmbeddingKeywords.__annotations__)
