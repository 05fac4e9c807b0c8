"""Tests of a loaded model, for faults that would make its vectors wrong without an error."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..recipe import Role

if TYPE_CHECKING:
    from ..encoder import Encoder

# How much a number of a unit vector may differ between batches, as rounding depends on their shape:
# in half precision a few units in the last place of the largest numbers.
_TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 2e-2}
_ROUGH = 2e-2
_QUANTIZED_COSINE = 0.99


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one test.

    Attributes:
        name: Name of the test.
        passed: Whether the model passed it.
        words: What was found.
    """

    name: str
    passed: bool
    words: str


def run_checks(encoder: Encoder) -> Iterator[CheckResult]:
    """Run all tests, one after the other."""
    backbone = type(encoder.backbone).__name__
    dtype = str(encoder.backbone.dtype).removeprefix("torch.")
    copies = encoder.scheduler.runner.copied_bytes
    linears = f", linear weights prepacked ({copies / 1e6:.0f} MB more)" if copies else ""
    words = f"{backbone} in {dtype} on {encoder.device}, {encoder.packing}{linears}"
    yield CheckResult("loaded", True, words)
    tests: dict[str, Callable[[Encoder], tuple[bool, str]]] = {
        "attention": _attention,
        "finite vectors": _finite,
        "batches": _batches,
        "tokenizer": _tokenizer,
    }
    if encoder.quantization_cosine is not None:
        tests["quantization"] = _quantization
    for name, test in tests.items():
        try:
            passed, words = test(encoder)
        except (OSError, ValueError, RuntimeError) as error:
            passed, words = False, str(error)
        yield CheckResult(name, passed, words)


def _attention(encoder: Encoder) -> tuple[bool, str]:
    """Whether attention has the recipe's direction; `check_attention` raises if not."""
    from ..checkpoint.checks import check_attention

    check_attention(encoder.model)
    if encoder.recipe.causal:
        return True, "causal: earlier states stay when the last token changes"
    return True, "both ways: earlier states move when the last token changes"


def _finite(encoder: Encoder) -> tuple[bool, str]:
    """Whether vectors are finite (`encode` raises if not), not zero, and of the right length."""
    import numpy as np

    texts = _samples()
    vectors = np.concatenate([encoder.encode(texts, role) for role in get_args(Role)])
    norms = np.linalg.norm(vectors, axis=1)
    span = f"lengths {norms.min():.4f} to {norms.max():.4f}"
    passed = bool((norms > 0).all())
    if encoder.recipe.normalize:
        passed = passed and bool(np.abs(norms - 1).max() < 1e-4)
    return passed, f"{len(vectors)} of {vectors.shape[1]:,} dimensions, {span}"


def _batches(encoder: Encoder) -> tuple[bool, str]:
    """Whether a text's vector is the same alone and together with other texts."""
    import numpy as np

    texts = _samples()
    together = encoder.encode(texts, normalize=True)
    alone = np.stack([encoder.encode(text, normalize=True) for text in texts])
    difference = float(np.abs(together - alone).max())
    dtype = str(encoder.backbone.dtype).removeprefix("torch.")
    exact = encoder.quantization_cosine is None
    allowed = _TOLERANCES.get(dtype, _ROUGH) if exact else _ROUGH
    words = f"alone and together differ by {difference:.1e} at most (allowed: {allowed:.0e})"
    return difference <= allowed, words


def _tokenizer(encoder: Encoder) -> tuple[bool, str]:
    """Whether the tokenizer gives the same ids after it was saved and loaded again."""
    from ..checkpoint.loading import load_tokenizer
    from ..model import Model

    texts = _samples()
    with tempfile.TemporaryDirectory() as directory:
        encoder.tokenizer.save_pretrained(directory)
        again = load_tokenizer(Path(directory))
        rows = Model(encoder.backbone, again, encoder.recipe).rows(texts, "document")
    passed = [row.ids for row in rows] == encoder.tokenize(texts)
    return passed, f"saved and loaded again it gives {'the same' if passed else 'OTHER'} ids"


def _quantization(encoder: Encoder) -> tuple[bool, str]:
    """Whether vectors of quantised weights are near those of the plain ones, by cosine."""
    cosine = encoder.quantization_cosine or 0.0
    return cosine >= _QUANTIZED_COSINE, f"lowest cosine with the plain model {cosine:.5f}"


def _samples() -> list[str]:
    """Texts of several lengths and scripts, an empty one and a very long one among them."""
    from ..corpus import load_corpus

    passage = load_corpus()[0].passage
    return [
        "",
        "a",
        "Paris is in France.",
        "巴黎是法国的首都。",
        "Ünïcödé 👋",
        passage,
        passage * 8,
    ]
