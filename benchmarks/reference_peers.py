"""The reference loops as contenders: workers in their own environments, driven through pipes."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import measure
from .models import ROOT, WORK, checkpoint, exported
from .peers import Contender, Loader, Setting, Texts, Vectors

ENVIRONMENTS = WORK / "environments"


def loop(name: str) -> Loader:
    """Load a loop of `benchmarks/reference.py`.

    Loading raises `FileNotFoundError` if its environment does not exist.
    """

    def load(setting: Setting) -> Contender:
        python = ENVIRONMENTS / name / "bin" / "python"
        if not python.exists():
            raise FileNotFoundError(f"{python} does not exist: `make bench-reference` makes it")
        # FlagEmbedding leaves the closing EOS to the tokenizer; only the export's puts it.
        wanted = exported if name == "flagembedding" else checkpoint
        model = wanted(setting.shape, setting.layout)
        worker = Worker(python, name, model, setting.dtype or setting.layout.dtype)
        return Contender(name, worker.encode, cpu=worker.cpu)

    return load


class Worker:
    """A running `benchmarks.reference`. It ends when its standard input is closed."""

    def __init__(self, python: Path, name: str, model: Path, dtype: str) -> None:
        """Start it and wait until its model is loaded."""
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks.reference", name, str(model), dtype],
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def encode(self, texts: Texts) -> Vectors:
        """Hand over texts and read the vectors back."""
        assert self._process.stdin is not None
        path = Path(self._folder.name, "texts.json")
        path.write_text(json.dumps(texts), encoding="utf-8")
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        vectors: Vectors = np.load(self._answer())
        return vectors

    def cpu(self) -> float:
        """CPU seconds it has used."""
        return measure.process_seconds(self._process.pid)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            command: Any = self._process.args
            raise RuntimeError(
                f"{' '.join(command)} ended with status {self._process.wait()}; its own message "
                "stands above"
            )
        return line

    def __del__(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
