"""Does the backbone attend in the recipe's direction? Looks at behaviour, trusts no setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .pooling import forward, pad
from .recipe import Recipe

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
        relative = max(8 * torch.finfo(backbone.dtype).eps, 1e-4)
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
