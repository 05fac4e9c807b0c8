"""A model against itself, for faults that would make its vectors wrong without an error."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np

from ..recipe import Role
from ..tokens import special_id
from .report import Check
from .subject import Subject, distance, dtype_of, samples, tolerance, vectors

_QUANTIZED_COSINE = 0.99
_APART = 1e-3  # between unit vectors of unlike texts; the nearest of real models are 0.1 apart


def check_model(subject: Subject) -> Iterator[Check]:
    """Run all tests, one after the other."""
    runner = subject.scheduler.runner
    copies = runner.copied_bytes
    linears = f", linear weights prepacked ({copies / 1e6:.0f} MB more)" if copies else ""
    backbone = type(subject.model.backbone).__name__
    words = f"{backbone} in {dtype_of(subject)} on {subject.model.device}, {runner.packing}"
    yield Check(kind="model", name="loaded", status="equal", words=words + linears)
    tests: dict[str, Callable[[Subject], tuple[bool, str]]] = {
        "attention": _attention,
        "special tokens": _ends,
        "finite vectors": _finite,
        "unlike texts": _unlike,
        "batches": _batches,
        "tokenizer": _tokenizer,
    }
    if subject.quantization_cosine is not None:
        tests["quantization"] = _quantization
    for name, test in tests.items():
        try:
            passed, words = test(subject)
        except (OSError, ValueError, RuntimeError) as error:
            passed, words = False, str(error)
        yield Check(kind="model", name=name, status="equal" if passed else "different", words=words)


def _attention(subject: Subject) -> tuple[bool, str]:
    """Whether attention has the recipe's direction; `check_attention` raises if not."""
    from ..checkpoint.checks import check_attention

    check_attention(subject.model)
    if subject.model.recipe.causal:
        return True, "causal: earlier states stay when the last token changes"
    return True, "both ways: earlier states move when the last token changes"


def _ends(subject: Subject) -> tuple[bool, str]:
    """Whether every sequence begins and ends with the tokens that the recipe names."""
    model = subject.model
    recipe, tokenizer = model.recipe, model.tokenizer
    bos = special_id(tokenizer, recipe.bos, "bos")
    eos = special_id(tokenizer, recipe.eos, "eos")
    for role in get_args(Role):
        for row in model.rows(samples(), role):
            if bos not in (None, row.ids[0]) or eos not in (None, row.ids[-1]):
                ends = tokenizer.convert_ids_to_tokens([row.ids[0], row.ids[-1]])
                return False, f"a {role} begins and ends with {ends}, not {recipe.bos, recipe.eos}"
    known = [("first", bos), ("last", eos)]
    words = [f"{tokenizer.convert_ids_to_tokens(i)!r} {at}" for at, i in known if i is not None]
    return True, f"{' and '.join(words) or 'none'}, in all {2 * len(samples())} sequences"


def _finite(subject: Subject) -> tuple[bool, str]:
    """Whether vectors are finite (a call raises if not), not zero, and of the right length."""
    found = np.concatenate([vectors(subject, samples(), role) for role in get_args(Role)])
    norms = np.linalg.norm(found, axis=1)
    span = f"lengths {norms.min():.4f} to {norms.max():.4f}"
    passed = bool((norms > 0).all())
    if subject.model.recipe.normalize:
        passed = passed and bool(np.abs(norms - 1).max() < 1e-4)
    return passed, f"{len(found)} of {found.shape[1]:,} dimensions, {span}"


def _unlike(subject: Subject) -> tuple[bool, str]:
    """Whether unlike texts have unlike vectors."""
    found = vectors(subject, samples(), normalize=True)
    apart = np.linalg.norm(found[:, None] - found[None], axis=2)
    farthest = float(apart.max())
    return farthest > _APART, f"vectors of unlike texts are up to {farthest:.2g} apart"


def _batches(subject: Subject) -> tuple[bool, str]:
    """Whether a text's vector is the same alone and together with other texts."""
    together = vectors(subject, samples(), normalize=True)
    alone = np.concatenate([vectors(subject, [text], normalize=True) for text in samples()])
    apart, allowed = distance(together, alone), tolerance(subject)
    words = f"alone and together differ by {apart:.1e} at most (allowed: {allowed:.0e})"
    return apart <= allowed, words


def _tokenizer(subject: Subject) -> tuple[bool, str]:
    """Whether the tokenizer gives the same ids after it was saved and loaded again."""
    from ..checkpoint.loading import load_tokenizer

    model = subject.model
    with tempfile.TemporaryDirectory() as directory:
        model.tokenizer.save_pretrained(directory)
        again = dataclasses.replace(model, tokenizer=load_tokenizer(Path(directory)))
        rows = again.rows(samples(), "document")
    passed = [row.ids for row in rows] == [row.ids for row in model.rows(samples(), "document")]
    return passed, f"saved and loaded again it gives {'the same' if passed else 'OTHER'} ids"


def _quantization(subject: Subject) -> tuple[bool, str]:
    """Whether vectors of quantised weights are near those of the plain ones, by cosine."""
    cosine = subject.quantization_cosine or 0.0
    return cosine >= _QUANTIZED_COSINE, f"lowest cosine with the plain model {cosine:.5f}"
