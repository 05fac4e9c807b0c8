"""Which kernel gives packed texts the states that padded ones have? Looks at behaviour only."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from ..arithmetic.stored import computed_in
from ..model import embedding_rows
from ..recipe import Recipe
from . import attention, last_layer
from .attention import Kernel
from .kernels import kernels
from .pack import Pack
from .padded import forward, pad
from .twin import enable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def choose_kernel(
    backbone: PreTrainedModel, recipe: Recipe, plain: PreTrainedModel | None = None
) -> tuple[Kernel | None, str]:
    """The fastest kernel with which packed texts have the states that padded ones have.

    Args:
        backbone: Runs the packed passes, for which it is prepared.
        recipe: Says which way it attends.
        plain: Runs the padded ones, if it is another: what the backbone is a twin of.

    Returns:
        The kernel, or None where the backbone must be padded, and what to tell a user.
    """
    reasons = []
    if not recipe.causal and recipe.window == "keep" and _has_window(backbone):
        return None, "padded batches: its sliding window goes both ways"
    try:
        enable(backbone)
    except ValueError as error:
        return None, f"padded batches: {error}"
    for name, kernel in kernels(backbone.device, computed_in(backbone)):
        try:
            difference = _packed_difference(backbone, plain or backbone, recipe, kernel)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            reasons.append(f"{name}: {error}")
            continue
        if difference <= _most(backbone):
            return kernel, f"packed without padding ({name})"
        reasons.append(f"{name}: states differ by {difference:.1e}")
    return (
        None,
        f"padded batches: {type(backbone).__name__} cannot be packed ({'; '.join(reasons)})",
    )


def _has_window(backbone: PreTrainedModel) -> bool:
    kinds = getattr(backbone.config, "layer_types", None)
    if kinds:
        return any("full" not in kind for kind in kinds)
    return bool(getattr(backbone.config, "sliding_window", None))


def _packed_difference(
    backbone: PreTrainedModel, plain: PreTrainedModel, recipe: Recipe, kernel: Kernel
) -> float:
    """Relative difference between packed and padded states of three rows.

    A causal backbone runs two of them twice more: continuing another text of the same pack, and
    continuing one of an earlier pack.
    """
    size, causal = embedding_rows(plain), recipe.causal
    head = [size // 7, size // 5, size // 3]
    rows = [[*head, size // 2, size // 6], [*head, size // 9], [size // 4, size // 8]]
    pack_of = partial(Pack, causal=causal, device=backbone.device)
    with torch.inference_mode():
        hidden = forward(plain, recipe, *pad(rows, backbone.device))
        padded = [states[: len(row)] for states, row in zip(hidden, rows, strict=True)]
        whole = pack_of(list(map(len, rows)), [None] * 3)
        pairs = [(_states(backbone, rows, whole, kernel), padded)]
        if causal:
            tails = [row[len(head) :] for row in rows[:2]]
            wanted = [states[len(head) :] for states in padded[:2]]
            lengths = [len(tail) for tail in tails]
            first = pack_of([len(head), *lengths], [None, 0, 0], keep=[0])
            pairs.append((_states(backbone, [head, *tails], first, kernel)[1:], wanted))
            second = pack_of(lengths, [0, 0], [first.kept[0]])
            pairs.append((_states(backbone, tails, second, kernel), wanted))
    return max(
        _relative(found, right)
        for all_found, all_right in pairs
        for found, right in zip(all_found, all_right, strict=True)
    )


def trims(backbone: PreTrainedModel, recipe: Recipe, kernel: Kernel) -> bool:
    """Whether the last layer can run for wanted tokens only, and gives them the same states."""
    size = embedding_rows(backbone)
    rows = [[size // 7, size // 5, size // 3], [size // 4, size // 8, size // 2, size // 9]]
    pack = Pack([3, 4], [None, None], causal=recipe.causal, device=backbone.device)
    wanted = last_layer.wanted_of(pack, [1, 2], kernel)
    try:
        twin = last_layer.trimmed(backbone)
        with torch.inference_mode():
            states = attention.forward(backbone, rows, pack, kernel)[wanted.rows]
            found = last_layer.forward(twin, rows, pack, wanted)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return False
    return _relative(found, states) <= _most(backbone)


def _states(
    backbone: PreTrainedModel, texts: list[list[int]], pack: Pack, kernel: Kernel
) -> list[torch.Tensor]:
    """Packed hidden states of each text."""
    return pack.apart(attention.forward(backbone, texts, pack, kernel))


def _most(backbone: PreTrainedModel) -> float:
    """Relative difference that rounding may make."""
    return float(max(16 * torch.finfo(computed_in(backbone)).eps, 1e-4))


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    found, wanted = found.float(), wanted.float()
    difference = (found - wanted).norm() / wanted.norm().clamp(min=1e-12)
    return float(torch.nan_to_num(difference, nan=float("inf")))
