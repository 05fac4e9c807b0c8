"""Right vectors on this device, before anything is timed: golden cases and attention kernels."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from llm_embeddings import Encoder
from llm_embeddings.packed.kernels import kernels

from . import workloads
from .models import GOLDEN, LAYOUTS, SHAPES, random_backbone, write_tokenizer
from .peers import Role

MAX_DIFFERENCE = 1e-4  # float32, as in tests/test_golden.py
MEDIAN_COSINE, LOWEST_COSINE = 0.999, 0.99  # bfloat16; typical mistakes are below 0.98


@dataclass(frozen=True, slots=True)
class GoldenRun:
    """A run of a golden case that the checkpoint's own recipe covers.

    Attributes:
        case: Directory of the case.
        model: Checkpoint in it.
        adapters: Applied to it, in order.
        run: Name of the run.
        role: Queries or documents.
        instruction: "" = none.
        max_length: As the reference was run; None = the recipe's.
    """

    case: str
    model: str
    adapters: tuple[str, ...]
    run: str
    role: Role
    instruction: str
    max_length: int | None


@dataclass(frozen=True, slots=True)
class Cosines:
    """How near two sets of vectors are, row by row.

    The golden models are so small that single texts are noisy in bfloat16; most are not.
    """

    median: float
    lowest: float

    @classmethod
    def of(cls, a: NDArray[np.float32], b: NDArray[np.float32]) -> Cosines:
        """Of rows `[n, dim]` each."""
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines = (a * b).sum(1) / norms
        return cls(float(np.median(cosines)), float(cosines.min()))

    @property
    def right(self) -> bool:
        """Whether this is the noise of bfloat16 and no mistake."""
        return self.median >= MEDIAN_COSINE and self.lowest >= LOWEST_COSINE

    def __str__(self) -> str:
        return f"cosine {self.median:.6f} (lowest {self.lowest:.6f})"


def golden_runs() -> Iterator[GoldenRun]:
    """Queries and documents of three families, both directions of attention."""
    settings = _read("e5-mistral")["runs"]
    for run in ("query_web_search", "query_sts"):
        prompt = settings[run]["prompt"]
        task = prompt.removeprefix("Instruct: ").removesuffix("\nQuery: ")
        limit = settings[run]["max_length"]
        yield GoldenRun("e5-mistral", "model", (), run, "query", task, limit)
    settings = _read("gritlm-7b")["runs"]
    for run, role in (("query_mean", "query"), ("document_mean", "document")):
        prompt = settings[run]["instruction"]
        framed = prompt.startswith("<|user|>\n")
        task = prompt[len("<|user|>\n") : -len("\n<|embed|>\n")] if framed else ""
        limit = settings[run]["max_length"]
        yield GoldenRun("gritlm-7b", "model", (), run, role, task, limit)  # type: ignore[arg-type]
    settings = _read("llm2vec-mistral")["runs"]
    for run in ("supervised_mean_instr", "supervised_mean_noinstr"):
        task = settings[run]["instruction"] or ""
        role = "query"
        yield GoldenRun("llm2vec-mistral", "mntp", ("supervised",), run, "query", task, None)


def check_golden(device: str) -> list[str]:
    """Encode the golden runs in float32 and bfloat16.

    Returns:
        What was found, a line per run and dtype.

    Raises:
        AssertionError: a vector is further from the reference's than the dtype allows.
    """
    lines = []
    for golden in golden_runs():
        case = GOLDEN / golden.case
        expected: NDArray[np.float32] = np.load(case / "golden.npz")[f"{golden.run}/emb"]
        defined = np.isfinite(expected).all(1)
        texts = _read(golden.case)["texts"]
        for dtype in ("float32", "bfloat16"):
            encoder = Encoder.from_pretrained(
                case / golden.model,
                adapters=[case / adapter for adapter in golden.adapters],
                dtype=dtype,
                device=device,
            )
            found = encoder.encode(
                texts, golden.role, golden.instruction, max_length=golden.max_length
            )
            difference = float(np.abs(found[defined] - expected[defined]).max())
            cosines = Cosines.of(found[defined], expected[defined])
            right = difference <= MAX_DIFFERENCE if dtype == "float32" else cosines.right
            line = (
                f"golden {golden.case} {golden.run} {dtype}: difference {difference:.1e}, "
                f"{cosines}, {encoder.packing}"
            )
            if not right:
                raise AssertionError(f"{line}: wrong vectors on {device}")
            lines.append(line)
    return lines


def check_kernels(device: str) -> list[str]:
    """Each attention kernel that is present, alone, in bfloat16, against float32 and SDPA.

    The golden models have heads too narrow for most kernels, so this is a model with heads of 64.

    Raises:
        AssertionError: a kernel is not used, or its vectors are wrong.
    """
    import torch

    lines = []
    texts = workloads.documents(24) + workloads.queries(8)
    for name in ("e5-mistral", "gritlm"):
        expected = _small(name, "float32", device).encode(texts, "query")
        for kernel, function in kernels(torch.device(device), torch.bfloat16):
            with patch(
                "llm_embeddings.packed.choice.kernels", lambda *_, k=kernel, f=function: [(k, f)]
            ):
                encoder = _small(name, "bfloat16", device)
            cosines = Cosines.of(encoder.encode(texts, "query"), expected)
            line = f"kernel {kernel}, {name}: {cosines}, {encoder.packing}"
            if kernel not in encoder.packing or not cosines.right:
                raise AssertionError(f"{line}: not used, or wrong vectors on {device}")
            lines.append(line)
    return lines


def _small(name: str, dtype: str, device: str) -> Encoder:
    from transformers import PreTrainedTokenizerFast

    layout = LAYOUTS[name]
    backbone = random_backbone(SHAPES["small"], layout, dtype=dtype, device=device)
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(layout, Path(folder))
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    return Encoder(backbone, tokenizer, layout.recipe)


def _read(case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / case / "case.json").read_text(encoding="utf-8"))
    return found
