"""What many test files share: where things lie, the golden cases, tiny models, a comparison."""

from __future__ import annotations

import json
import os
import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
BUNDLED = TESTS / "golden"
GOLDEN = Path(os.environ.get("LLM_EMBEDDINGS_GOLDEN") or BUNDLED)

_COMPILER = shutil.which(os.environ.get("CXX", "g++")) is not None
_HEADERS = Path(sysconfig.get_path("include"), "Python.h").is_file()
compiles = pytest.mark.skipif(
    not (_COMPILER and _HEADERS), reason="needs a C++ compiler and the headers of Python"
)


def golden_cases(family: str) -> list[Path]:
    """Case directories of a family in the golden directory."""
    paths = sorted(path.parent for path in GOLDEN.glob("*/case.json"))
    return [path for path in paths if read_case(path).get("family") == family]


def read_case(path: Path) -> dict[str, Any]:
    return json.loads((path / "case.json").read_text(encoding="utf-8"))


def assert_close(a: Any, b: Any, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0)


def child_environment() -> dict[str, str]:
    """Variables for a new interpreter that can import `helpers`."""
    path = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


SMALL = {
    "vocab_size": 32100,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def write_model(path: Path, config: PretrainedConfig, tokens: tuple[str, ...] = ()) -> Path:
    """A tiny full model with the Mistral tokenizer and more special tokens."""
    from transformers import AutoModel

    from llm_embeddings.checkpoint.loading import load_tokenizer

    AutoModel.from_config(config).save_pretrained(path)
    tokenizer = load_tokenizer(BUNDLED / "e5-mistral/model")
    if tokens:
        tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    tokenizer.save_pretrained(path)
    return path
