"""What the tests of files of earlier versions share."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llm_embeddings.cli import app

ROOT = Path(__file__).parents[2]
VERSIONS = sorted(path.parent for path in ROOT.glob("tests/compatibility/files/*/expected.json"))
PLACE = "/made/here"  # where all files were made; some keep it


@dataclass(frozen=True)
class Older:
    """A copy of an earlier version's files, and what was found in them then."""

    folder: Path
    expected: dict[str, Any]
    vectors: dict[str, Any]

    @property
    def passages(self) -> list[str]:
        return self.expected["passages"]

    @property
    def queries(self) -> list[str]:
        return self.expected["queries"]


def run(*arguments: str, exit_code: int = 0) -> Result:
    done = CliRunner(env={"COLUMNS": "500", "NO_COLOR": "1"}).invoke(app, arguments)
    assert done.exit_code == exit_code, done.output
    return done


def scripts_module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module in scripts/, which finds its neighbours there."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module
