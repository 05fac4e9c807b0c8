"""What several test files share: where the golden cases are, and a comparison."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

BUNDLED = Path(__file__).parent / "golden"
GOLDEN = Path(os.environ.get("LLM_EMBEDDINGS_GOLDEN") or BUNDLED)


def golden_cases(family: str) -> list[Path]:
    """Case directories of a family in the golden directory."""
    paths = sorted(path.parent for path in GOLDEN.glob("*/case.json"))
    return [path for path in paths if read_case(path).get("family") == family]


def read_case(path: Path) -> dict[str, Any]:
    return json.loads((path / "case.json").read_text(encoding="utf-8"))


def assert_close(a: Any, b: Any, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0)
