"""Does the backbone attend as the recipe asks, padded and packed? Looks at behaviour only."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ..packed import attention, last_layer
from ..packed.pack import Kernel, Pack
from ..pooling import forward, pad
from ..recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def embedding_rows(backbone: PreTrainedModel) -> int:
    """How many token ids the backbone knows."""
    embedding: Any = backbone.get_input_embeddings()
    return int(embedding.weight.shape[0])


def check_attention(backbone: PreTrainedModel, recipe: Recipe) -> None:
    """Change the last token: earlier states must move if and only if attention is bidirectional.

    Runs with and without padding, since attention kernels have taken different directions in the
    two cases. The same row twice in a batch gives the noise of the arithmetic.

    Raises:
        ValueError: the architecture ignores the switch, or a state is not finite.
    """
    rows = embedding_rows(backbone)
    row = [rows // 7, rows // 5, rows // 3, rows // 2]
    other = [*row[:-1], rows // 4]
    longer = [*row, rows // 6, rows // 8]
    for batch in ([row, row, other], [row, row, other, longer]):
        ids, lengths = pad(batch, backbone.device)
        try:
            with torch.inference_mode():
                hidden = forward(backbone, recipe, ids, lengths)[:3, : len(row) - 1].float()
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"{type(backbone).__name__} cannot be run as recipe {recipe.name!r} asks: {error}"
            ) from error
        if not bool(torch.isfinite(hidden).all()):
            raise ValueError(
                f"{type(backbone).__name__} gives hidden states that are not finite in "
                f"{backbone.dtype}: its weights are broken or it needs another dtype"
            )
        noise = float((hidden[0] - hidden[1]).abs().max())
        moved = float((hidden[0] - hidden[2]).abs().max())
        relative = max(2 * torch.finfo(backbone.dtype).eps, 1e-4)
        threshold = max(10 * noise, relative * float(hidden.abs().mean()))
        if (moved > threshold) == recipe.causal:
            wanted, found = (
                ("causal", "both ways") if recipe.causal else ("bidirectional", "causally")
            )
            raise ValueError(
                f"recipe {recipe.name!r} needs {wanted} attention, but {type(backbone).__name__} "
                f"attends {found} "
                f"(attn_implementation={backbone.config._attn_implementation!r}): it "
                "ignores config.is_causal, so its vectors would be wrong"
            )


def choose_kernel(backbone: PreTrainedModel, recipe: Recipe) -> tuple[Kernel | None, str]:
    """The fastest kernel with which packed texts have the states that padded ones have.

    Returns:
        The kernel, or None where the backbone must be padded, and what to tell a user.
    """
    reasons = []
    try:
        attention.enable(backbone)
    except ValueError as error:
        return None, f"padded batches: {error}"
    for name, kernel in attention.kernels(backbone.device, backbone.dtype):
        try:
            difference = _packed_difference(backbone, recipe, kernel)
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


def _packed_difference(backbone: PreTrainedModel, recipe: Recipe, kernel: Kernel) -> float:
    """Relative difference between packed and padded states of three rows.

    A causal backbone runs two of them twice more: continuing another text of the same pack, and
    continuing one of an earlier pack.
    """
    size = embedding_rows(backbone)
    head = [size // 7, size // 5, size // 3]
    rows = [[*head, size // 2, size // 6], [*head, size // 9], [size // 4, size // 8]]
    pack_of = partial(Pack, causal=recipe.causal, kernel=kernel, device=backbone.device)
    with torch.inference_mode():
        hidden = forward(backbone, recipe, *pad(rows, backbone.device))
        padded = [states[: len(row)] for states, row in zip(hidden, rows, strict=True)]
        pairs = [(_states(backbone, rows, pack_of(list(map(len, rows)), [None] * 3)), padded)]
        if recipe.causal:
            tails = [row[len(head) :] for row in rows[:2]]
            wanted = [states[len(head) :] for states in padded[:2]]
            lengths = [len(tail) for tail in tails]
            first = pack_of([len(head), *lengths], [None, 0, 0], keep=[0])
            pairs.append((_states(backbone, [head, *tails], first)[1:], wanted))
            second = pack_of(lengths, [0, 0], [first.kept[0]])
            pairs.append((_states(backbone, tails, second), wanted))
    return max(
        _relative(found, right)
        for all_found, all_right in pairs
        for found, right in zip(all_found, all_right, strict=True)
    )


def last_rows_suffice(backbone: PreTrainedModel, recipe: Recipe, kernel: Kernel) -> bool:
    """Whether the last layer can run for wanted tokens only, and gives them the same states."""
    size = embedding_rows(backbone)
    rows = [[size // 7, size // 5, size // 3], [size // 4, size // 8, size // 2, size // 9]]
    device = backbone.device
    pack = Pack([3, 4], [None, None], causal=recipe.causal, kernel=kernel, device=device)
    last = pack.last([1, 2])
    try:
        last_layer.enable(backbone)
        with torch.inference_mode():
            states = attention.forward(backbone, rows, pack)[last.rows]
            found = attention.forward(backbone, rows, pack, last)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return False
    return _relative(found, states) <= _most(backbone)


def _states(backbone: PreTrainedModel, texts: list[list[int]], pack: Pack) -> list[torch.Tensor]:
    """Packed hidden states of each text."""
    return pack.apart(attention.forward(backbone, texts, pack))


def _most(backbone: PreTrainedModel) -> float:
    """Relative difference that rounding may make."""
    return float(max(16 * torch.finfo(backbone.dtype).eps, 1e-4))


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    found, wanted = found.float(), wanted.float()
    difference = (found - wanted).norm() / wanted.norm().clamp(min=1e-12)
    return float(torch.nan_to_num(difference, nan=float("inf")))
