"""What the tests of files of earlier versions share."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from llm_embeddings import Encoder
from llm_embeddings.cli import app
from llm_embeddings.recipe import Role

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


def fingerprint_of_0_1_0(
    encoder: Encoder, role: Role = "document", instruction: str | None = None
) -> str:
    """The name that version 0.1.0 gave a model: 256 values of each weight, and no config."""
    facts = {key: value for key, value in encoder.recipe.to_dict().items() if key in _FIELDS_0_1_0}
    facts |= {"name": "", "source": "", "base": None, "instruction": ""}
    digest = hashlib.sha256(encoder.tokenizer.backend_tokenizer.to_str().encode())
    for name, weight in encoder.backbone.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 256)][:256]
        digest.update(sample.contiguous().view(torch.uint8).numpy().tobytes())
    recipe = encoder.recipe
    ends = [recipe.prefix(role, instruction), recipe.template(role).suffix]
    whole = json.dumps([facts, *ends, digest.hexdigest()], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


_FIELDS_0_1_0 = (
    "family causal pooling last_k pool_span bos eos normalize max_length max_text_length join "
    "truncate separator required_tokens"
).split()
