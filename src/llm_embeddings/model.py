"""Model: a backbone, its tokenizer and the recipe by which they turn texts into vectors."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .cutting import Cuts
from .recipe import Recipe
from .tokens import Tokens, tokenize

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

_PROJECTING = ("embedding_gemma2_text",)
_UNBOUNDED = 2**31  # positions of a backbone whose config names none
_SAMPLES = 16  # values of a weight; a merged adapter changes nearly all


@dataclass(frozen=True, eq=False)
class Model:
    """Backbone, tokenizer and recipe, and what follows from the three together.

    Attributes:
        backbone: The decoder without a head.
        tokenizer: Asked for ids only, never for special tokens.
        recipe: How the two are used.
        head: What follows the pooling (`packed.heads`), or None.
    """

    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    recipe: Recipe
    head: nn.Module | None = None
    _watch: _Watch = field(init=False, repr=False)
    _cuts: Cuts = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_watch", _Watch(self.backbone, self.head))
        object.__setattr__(self, "_cuts", Cuts(self.tokenizer))

    def __reduce__(self) -> tuple[Any, ...]:
        return Model, (self.backbone, self.tokenizer, self.recipe, self.head)

    @property
    def dtype(self) -> torch.dtype:
        """What passes compute in; the weights may be stored in another (`arithmetic.stored`)."""
        from .arithmetic.stored import computed_in

        return computed_in(self.backbone)

    def converted(self) -> PreTrainedModel:
        """The backbone with all its weights in the dtype of passes, from now on."""
        from .arithmetic.stored import convert

        with self._watch.unseen():
            convert(self.backbone)
        return self.backbone

    @property
    def dimension(self) -> int:
        """Length of a full vector."""
        return vector_length(self.recipe, self.backbone.config)

    @property
    def device(self) -> torch.device:
        """Where the backbone is."""
        return self.backbone.device

    @property
    def positions(self) -> int:
        """How many tokens a sequence may have."""
        return int(getattr(self.backbone.config, "max_position_embeddings", None) or _UNBOUNDED)

    @property
    def max_length(self) -> int:
        """The recipe's limit in tokens, within the backbone's positions."""
        return min(self.recipe.max_length, self.positions)

    def rows(
        self,
        texts: Sequence[str],
        role: str,
        instruction: str | None = None,
        max_length: int | None = None,
        *,
        with_offsets: bool = False,
    ) -> list[Tokens]:
        """Token ids of texts, as the backbone is fed them; arguments as for `tokenize`.

        Raises:
            ValueError: as `tokenize`, or more tokens than the model has positions.
        """
        most = self.positions
        limit = self.max_length if max_length is None else max_length
        if not 1 <= limit <= most:
            raise ValueError(
                f"max_length={limit} is not between 1 and the {most} positions of this model"
            )
        rows = tokenize(
            self.tokenizer,
            self.recipe,
            texts,
            role,
            instruction,
            limit,
            with_offsets=with_offsets,
            cuts=self._cuts,
        )
        longest = max([len(row.ids) for row in rows], default=0)
        if longest > most:
            raise ValueError(
                f"text and prompt take {longest} tokens, and this model has {most} positions: "
                "lower max_length"
            )
        return rows

    def version(self) -> int | None:
        """A number that grows when a weight or a module of backbone or head has changed.

        None where torch does not count changes (of weights made in inference mode): then
        nothing computed from them may be kept.
        """
        return self._watch.version()


def vector_length(recipe: Recipe, config: PretrainedConfig) -> int:
    """Length of a recipe's vectors, of a backbone with this config."""
    length = len(recipe.poolings) * state_length(config)
    for head in recipe.heads:
        length = head.length(length)
    return length


def state_length(config: PretrainedConfig) -> int:
    """Length of a token's state as a backbone gives it, behind a projection of its own."""
    projected = config.model_type in _PROJECTING
    return int(config.embedding_dim if projected else config.hidden_size)


def embedding_rows(backbone: PreTrainedModel) -> int:
    """How many token ids a backbone knows."""
    embedding: Any = backbone.get_input_embeddings()
    return int(embedding.weight.shape[0])


class _Watch:
    """Tells whether modules have changed since it was last asked.

    It sees modules and parameters that are replaced (PEFT puts layers around others), changes in
    place (training), and storage that moves (`.to()`). Changes through `.data`, which is how PEFT
    merges, are not counted by torch; on a CPU they show in values sampled from each weight.
    """

    def __init__(self, *roots: nn.Module | None) -> None:
        self._roots = [root for root in roots if root is not None]
        self._lock = threading.Lock()
        self._number = 0
        self._look()

    def version(self) -> int | None:
        with self._lock:
            if self._countable and self._state() != self._seen:
                self._number += 1
                self._look()
            return self._number if self._countable else None

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Changes that give the same vectors, and need no other version."""
        with self._lock:
            changed = self._countable and self._state() != self._seen
            yield
            self._number += changed
            self._look()

    def _look(self) -> None:
        modules = [module for root in self._roots for module in root.modules()]
        self._tables: list[Any] = [module._modules for module in modules]
        self._tables += [module._parameters for module in modules]
        weights = [weight for module in modules for weight in module._parameters.values()]
        self._weights = [weight for weight in weights if weight is not None]
        self._countable = not any(weight.is_inference() for weight in self._weights)
        samples = [_sample(weight) for weight in self._weights]
        self._samples = [sample for sample in samples if sample is not None]
        self._seen = self._state() if self._countable else None

    def _state(self) -> tuple[list[Any], ...]:
        return (
            [id(part) for table in self._tables for part in table.values()],
            [(weight._version, weight.data_ptr()) for weight in self._weights],
            [sample.tobytes() for sample in self._samples],
        )


def _sample(weight: torch.Tensor) -> Any:
    """A NumPy view of some values of a weight, which shows later changes; None = there is none."""
    import torch

    integers = {2: torch.int16, 4: torch.int32}.get(weight.dtype.itemsize)
    plain = weight.device.type == "cpu" and not hasattr(weight, "__tensor_flatten__")
    if integers is None or not plain or weight.ndim < 2 or not weight.is_contiguous():
        return None
    flat = weight.detach().view(-1).view(integers)
    middle = flat.numel() // 2  # neighbours, so that no more than a page of a mapped file is read
    return flat[middle : middle + _SAMPLES].numpy()
