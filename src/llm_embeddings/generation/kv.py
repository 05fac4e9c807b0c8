"""Keys and values of a text: what a model has to remember of it to go on from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import DynamicCache, PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Keys (rotated) and values of some tokens.

    Attributes:
        layers: Per layer both, `[key heads, tokens, dim]`, in the model's dtype.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def length(self) -> int:
        """Tokens."""
        return int(self.layers[0][0].shape[1])

    @property
    def nbytes(self) -> int:
        """Memory they take."""
        return sum(key.nbytes + value.nbytes for key, value in self.layers)

    def first(self, length: int) -> KeyValues:
        """States of the first tokens alone: what follows plays no part in causal ones."""
        if length == self.length:
            return self
        return KeyValues(tuple((key[:, :length], value[:, :length]) for key, value in self.layers))

    def to(self, device: torch.device | str) -> KeyValues:
        """The same on a device."""
        return KeyValues(tuple((key.to(device), value.to(device)) for key, value in self.layers))


def joined(parts: Sequence[KeyValues]) -> KeyValues:
    """States one after the other, each with the positions it was computed at."""
    if len(parts) == 1:
        return parts[0]
    layers = zip(*(part.layers for part in parts), strict=True)
    return KeyValues(
        tuple(
            (torch.cat([key for key, _ in layer], 1), torch.cat([value for _, value in layer], 1))
            for layer in layers
        )
    )


def bytes_per_token(config: PretrainedConfig, dtype: torch.dtype) -> int:
    """Memory of one token's keys and values: 128 KiB for a 7B Mistral in bfloat16."""
    sizes: Any = config
    heads = getattr(sizes, "num_key_value_heads", None) or sizes.num_attention_heads
    dim = getattr(sizes, "head_dim", None) or sizes.hidden_size // sizes.num_attention_heads
    return int(2 * sizes.num_hidden_layers * heads * dim * dtype.itemsize)


def cache_of(states: KeyValues | None, device: torch.device) -> DynamicCache | None:
    """States as transformers takes them, copied, so that it may write on."""
    from transformers import DynamicCache

    if states is None:
        return None
    # Without a config no layer drops what has left its sliding window; masks hide it.
    cache = DynamicCache()
    for layer, (key, value) in enumerate(states.layers):
        cache.update(key[None].to(device), value[None].to(device), layer)
    return cache


def run_states(
    backbone: PreTrainedModel, ids: Sequence[int], before: KeyValues | None = None
) -> KeyValues:
    """One pass over the tokens behind `before`, in the direction the backbone is set to.

    Args:
        backbone: A decoder without a head: an encoder's, or its causal twin.
        ids: All tokens, those of `before` included.
        before: States of the first of them.

    Returns:
        States of all tokens, on the backbone's device.
    """
    from transformers import DynamicCache

    done = 0 if before is None else before.length
    cache: Any = cache_of(before, backbone.device) or DynamicCache()
    with torch.inference_mode():
        row = torch.tensor([ids[done:]], device=backbone.device)
        backbone(input_ids=row, past_key_values=cache, use_cache=True)
    return KeyValues(tuple((layer.keys[0], layer.values[0]) for layer in cache.layers))


def check_room(tokens: int, new: int, positions: int) -> None:
    """Raise `ValueError` if tokens and what is to follow them have more than `positions`."""
    if tokens + new > positions:
        raise ValueError(
            f"the prompt takes {tokens} tokens, max_new_tokens={new}, and this model has "
            f"{positions} positions: shorten the prompt (fewer or shorter documents) or the answer"
        )
