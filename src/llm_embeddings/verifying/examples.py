"""A checkpoint against the numbers that its authors printed (`families.printed`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ..families import llm2vec, printed
from ..recipe import Recipe, Role, Template
from .report import Check, Matrix
from .subject import Subject, dtype_of, vectors

# How far a cosine may be off in 8 bits, and in the fewer that transformers can quantise to.
_QUANTIZED = 0.02
_FEW_BITS = 0.05
_HALF = ("float16", "bfloat16")


def check_examples(subject: Subject, checkpoint: str | None) -> Iterator[Check]:
    """Compare with every printed example of a checkpoint.

    Args:
        subject: The model.
        checkpoint: Hub id of the weights; None = they are of no published checkpoint. A recipe's
            name is none: fine-tuned and random weights carry it, too.
    """
    if checkpoint is None:
        words = "the hub id is not known: name it if these weights are a published checkpoint's"
        yield Check(kind="printed", name="printed examples", status="not run", words=words)
        return
    found = printed.examples_of(checkpoint)
    if not found:
        words = f"no numbers printed for {checkpoint} are known"
        yield Check(kind="printed", name="printed examples", status="not run", words=words)
    for example in found:
        yield _check(subject, example)


def _check(subject: Subject, example: printed.Example) -> Check:
    """One example: prompts first, then cosines."""
    recipe = subject.model.recipe
    problem = prompt_problem(recipe, example)
    if problem:
        return Check(
            kind="printed",
            name=f"{example.name} ({example.source})",
            status="different",
            words=problem,
            decides=example.solid,
        )
    if example.prompt == "given":
        templates = {
            role: Template(example.side(role).prefix or "", example.side(role).suffix)
            for role in get_args(Role)
        }
        recipe = recipe.replace(**templates, instruction="")
    check = _judged(subject, example, _cosines(subject, example, recipe))
    if check.status == "equal" or example.prompt != "template":
        return check
    return _without_chat_template(subject, example, check)


def _without_chat_template(subject: Subject, example: printed.Example, check: Check) -> Check:
    """The check with what comes out where only the instruction stands before a text.

    llm2vec puts its chat template by the name of the base model, which depends on how a checkpoint
    was loaded, and the sources do not say which way the printed numbers were made.
    """
    recipe = subject.model.recipe
    plain = recipe.replace(query=llm2vec.PLAIN, document=llm2vec.PLAIN)
    if plain == recipe:
        return check
    other = _judged(subject, example, _cosines(subject, example, plain))
    verb = "MATCHES" if other.status == "equal" else "differs, too"
    words = f"without the chat template it {verb}: largest deviation {other.deviation:.2g}"
    return dataclasses.replace(check, words=f"{check.words}; {words}")


def prompt_problem(recipe: Recipe, example: printed.Example) -> str | None:
    """How a recipe's prompts differ from an example's; None = they do not."""
    if example.prompt == "given":
        return None
    for role in get_args(Role):
        side, suffix = example.side(role), recipe.template(role).suffix
        if side.prefix is None:
            continue
        rendered = _rendered(recipe, role, side)
        fits = rendered == side.prefix and suffix == side.suffix
        if example.prompt == "template":
            fits = rendered is not None and rendered.endswith(side.prefix)
        if not fits:
            ours = "takes no such instruction" if rendered is None else f"has {rendered!r}"
            return f"the authors' prompt of a {role} is {side.prefix!r}, the recipe {ours}"
    return None


def _rendered(recipe: Recipe, role: Role, side: printed.Side) -> str | None:
    """What a recipe puts before a text with an example's instruction; None = it takes none."""
    try:
        return recipe.prefix(role, _instruction(recipe, role, side))
    except ValueError:
        return None


def _instruction(recipe: Recipe, role: Role, side: printed.Side) -> str | None:
    """The instruction to pass: a fixed prompt may hold the example's already."""
    if not recipe.template(role).takes_instruction and recipe.prefix(role) == side.prefix:
        return None
    return side.instruction


def _cosines(subject: Subject, example: printed.Example, recipe: Recipe) -> NDArray[np.float64]:
    """`[queries, documents]`, the texts in the prompts of a recipe."""
    model = dataclasses.replace(subject.model, recipe=recipe)
    sides = []
    for role in get_args(Role):
        side = example.side(role)
        instruction = None if example.prompt == "given" else _instruction(recipe, role, side)
        found = vectors(subject, side.texts, role, instruction, model=model, normalize=True)
        sides.append(found.astype(np.float64))
    return sides[0] @ sides[1].T


def _judged(subject: Subject, example: printed.Example, found: NDArray[np.float64]) -> Check:
    """Compare with the run whose dtype is nearest; the largest deviation decides, not the mean."""
    dtype = dtype_of(subject)
    run = next((each for each in example.printed if _same(each.dtype, dtype)), example.printed[0])
    wanted = np.array(run.values) / run.scale
    allowed = run.same if dtype == run.dtype == "float32" else run.half
    foreign = getattr(subject.model.backbone, "hf_quantizer", None) is not None
    if subject.quantization_cosine is not None or foreign:
        allowed = max(allowed, _FEW_BITS if foreign else _QUANTIZED)
    off = np.abs(found - wanted)
    shares = off / np.abs(wanted) if run.relative else off
    ranked = bool((found.argmax(1) == wanted.argmax(1)).all())
    near = bool((shares <= allowed).all())
    words = [
        f"made by {run.by}, {run.dtype or 'dtype not known'}, {run.digits} digits",
        "" if ranked else "another document comes first",
        "deviations are shares of the printed numbers" if run.relative else "",
        example.note,
        "" if example.solid else "the source is incomplete",
        "quantised weights are reported, not judged" if foreign else "",
    ]
    return Check(
        kind="printed",
        name=f"{example.name} ({example.source})",
        status="equal" if near and ranked else "different",
        words="; ".join(filter(None, words)),
        deviation=float(shares.max()),
        tolerance=allowed,
        printed=_matrix(wanted),
        found=_matrix(found),
        decides=example.solid and not foreign,
    )


def _same(made_in: str | None, dtype: str) -> bool:
    return made_in == dtype or (made_in == "half" and dtype in _HALF)


def _matrix(values: NDArray[np.float64]) -> Matrix:
    return tuple(tuple(map(float, row)) for row in values)
