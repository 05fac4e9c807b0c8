"""The forward pass that all stages share: rows of token ids -> hidden states or vectors.

It is the one that `Encoder` computes (same packs, same pooling), with gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from ...model import Model
from ...packed import attention
from ...packed.attention import Kernel
from ...packed.choice import choose_kernel
from ...packed.pack import Pack
from ...packed.padded import forward, pad
from ...packed.pooling import pool
from ...recipe import Recipe, Role
from ...tokens import Tokens
from ...vectors import Vectors
from .gradcache import plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def encode_texts(
    encode: Callable[[list[list[int]], list[int]], torch.Tensor],
    trained: Model,
    texts: list[str],
    role: Role,
    instruction: str | None = None,
    *,
    max_length: int | None = None,
    budget: int,
) -> Vectors:
    """Vectors `[texts, dim]`, float32, of a model that is being trained.

    Args:
        encode: The model: rows of token ids and the first pooled position of each -> vectors.
        trained: Tokenizer and recipe are used.
        texts: The texts.
        role: Role of all texts.
        instruction: Of all texts; None = the recipe's default for the role.
        max_length: Most tokens of a text; None = the recipe's limit.
        budget: Most tokens per pass.
    """
    return encode_rows(encode, trained.rows(texts, role, instruction, max_length), budget=budget)


def encode_rows(
    encode: Callable[[list[list[int]], list[int]], torch.Tensor],
    rows: Sequence[Tokens],
    *,
    budget: int,
) -> Vectors:
    """`encode_texts` of texts that are token ids."""
    parts, order = [], []
    with torch.no_grad():
        for chunk in plan([len(row.ids) for row in rows], budget)[0]:
            found = encode([rows[row].ids for row in chunk], [rows[row].start for row in chunk])
            parts.append(found.float().cpu())
            order.extend(chunk)
    vectors: Vectors = torch.cat(parts)[torch.tensor(order).argsort()].numpy()
    return vectors


class Encoding(torch.nn.Module):
    """A backbone as stages train it: one `forward` for vectors and for hidden states.

    Both come from `forward` because wrappers for several processes (DDP, FSDP) hook in there.

    Attributes:
        backbone: The decoder without a head.
        recipe: How it embeds.
        head: What follows the pooling (`Model.head`), or None.
        packing: How rows share a pass, in words for logs and model cards.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        recipe: Recipe,
        *,
        head: torch.nn.Module | None = None,
        attention_dropout: float = 0.0,
    ) -> None:
        """Wrap a backbone that `load_backbone_for_training` gave.

        Args:
            backbone: Decoder without a head.
            recipe: How it embeds.
            head: What follows the pooling.
            attention_dropout: Dropout on attention weights, in training mode.
        """
        super().__init__()
        kernel, self.packing = choose_kernel(backbone, recipe)
        self.backbone, self.recipe, self.head = backbone, recipe, head
        self._kernel, self._dropout = kernel, attention_dropout
        for module in backbone.modules():
            found = getattr(module, "attention_dropout", None)
            if isinstance(found, torch.nn.Dropout):  # Falcon, Bloom
                found.p = attention_dropout
            elif found is not None:
                setattr(module, "attention_dropout", attention_dropout)  # noqa: B010

    def forward(
        self,
        rows: Sequence[Sequence[int]],
        starts: Sequence[int] | None = None,
        *,
        parents: Sequence[int | None] | None = None,
        causal: bool | None = None,
    ) -> torch.Tensor | list[torch.Tensor]:
        """Vectors of rows or, without `starts`, their hidden states.

        Args:
            rows: Token ids.
            starts: First pooled position of each row.
            parents: Row that a row continues, for causal passes: it sees that row's tokens, and its
                positions go on from there.
            causal: Attention direction; None = the recipe's.

        Returns:
            Vectors `[rows, dim]`, float32, not normalised; or hidden states after the final norm,
            `[tokens, dim]` per row, in the dtype of the pass.

        Raises:
            ValueError: the backbone cannot be packed, and `parents` or another direction is wanted.
        """
        if self._kernel is None:
            return self._padded(rows, starts, parents, causal)
        pack = Pack(
            [len(row) for row in rows],
            [None] * len(rows) if parents is None else parents,
            causal=self.recipe.causal if causal is None else causal,
            device=self.backbone.device,
        )
        hidden = attention.forward(self.backbone, rows, pack, self._kernel_now(self._kernel))
        if starts is None:
            return pack.apart(hidden)
        return self._pooled(pack, hidden, starts)

    def vectors(self, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> torch.Tensor:
        """Vectors `[rows, dim]`, float32, not normalised: `forward` with `starts`."""
        found = self.forward(rows, starts)
        assert isinstance(found, torch.Tensor)
        return found

    def hidden(
        self,
        rows: Sequence[Sequence[int]],
        *,
        parents: Sequence[int | None] | None = None,
        causal: bool | None = None,
    ) -> list[torch.Tensor]:
        """Hidden states, `[tokens, dim]` per row: `forward` without `starts`."""
        found = self.forward(rows, parents=parents, causal=causal)
        assert isinstance(found, list)
        return found

    def _kernel_now(self, kernel: Kernel) -> Kernel:
        """The attention kernel, or in training mode one that applies the dropout."""
        if self._dropout and self.training:
            return partial(attention.bucketed, dropout=self._dropout)
        return kernel

    def _padded(
        self,
        rows: Sequence[Sequence[int]],
        starts: Sequence[int] | None,
        parents: Sequence[int | None] | None,
        causal: bool | None,
    ) -> torch.Tensor | list[torch.Tensor]:
        """`forward` of a backbone that cannot be packed."""
        shares = parents is not None and any(parent is not None for parent in parents)
        if shares or causal not in (None, self.recipe.causal):
            raise ValueError(
                f"{type(self.backbone).__name__} cannot be trained this way ({self.packing}): "
                "choose a model whose attention transformers owns, and attn_implementation 'sdpa'"
            )
        ids, lengths = pad(rows, self.backbone.device)
        hidden = forward(self.backbone, self.recipe, ids, lengths)
        if starts is None:
            return [states[: len(row)] for states, row in zip(hidden, rows, strict=True)]
        return self._vectors(hidden, starts, lengths)

    def _pooled(self, pack: Pack, hidden: torch.Tensor, starts: Sequence[int]) -> torch.Tensor:
        """Vectors `[rows, dim]` of a pack's hidden states `[tokens, dim]`, in the order of rows."""
        parts, order = [], []
        for bucket, states in zip(pack.buckets, pack.padded(hidden), strict=True):
            first = [starts[text] for text in bucket.texts]
            parts.append(self._vectors(states, first, bucket.lengths.to(states.device)))
            order.extend(bucket.texts)
        place = torch.tensor(order, device=hidden.device).argsort()
        return torch.cat(parts).index_select(0, place)

    def _vectors(
        self, hidden: torch.Tensor, starts: Sequence[int], lengths: torch.Tensor
    ) -> torch.Tensor:
        """Hidden states `[rows, length, dim]` pooled, and what follows."""
        first = torch.tensor(starts, device=hidden.device)
        pooled = pool(hidden, first, lengths, self.recipe)
        if self.head is None:
            return pooled
        weight = next(self.head.parameters(), pooled)  # FSDP and DeepSpeed round it for the pass
        with torch.autocast(pooled.device.type, enabled=False):
            vectors: torch.Tensor = self.head(pooled.to(weight.dtype)).float()
        return vectors

    def put_into(self, model: Model) -> Model:
        """A model as it was loaded, with the weights of this one."""
        return replace(model, backbone=self.backbone, head=self.head)
