"""Every Python block of the READMEs runs as it stands, on the bundled model."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from helpers import ROOT

READMES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("integrations/*/README.md")),
    ROOT / "src/llm_embeddings/data/small/README.md",
]
BLOCKS = [
    pytest.param(textwrap.dedent(block), id=f"{path.parent.name}-{index}")
    for path in READMES
    for index, block in enumerate(
        re.findall(r"^ *```python\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.M | re.S)
    )
]


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.slow
def test_block(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
