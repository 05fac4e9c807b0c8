"""Keys and values of tokens: what a model keeps of a text to continue it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import DynamicCache, PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Keys (rotated) and values of some tokens in all layers.

    Attributes:
        layers: For each layer, keys and values, `[key heads, tokens, dim]`, in the model's dtype.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def length(self) -> int:
        """How many tokens."""
        return int(self.layers[0][0].shape[1])

    @property
    def nbytes(self) -> int:
        """Memory they take, in bytes."""
        return sum(key.nbytes + value.nbytes for key, value in self.layers)

    def first(self, length: int) -> KeyValues:
        """States of the first `length` tokens; causal states do not depend on what follows."""
        if length == self.length:
            return self
        return KeyValues(tuple((key[:, :length], value[:, :length]) for key, value in self.layers))

    def to(self, device: torch.device | str) -> KeyValues:
        """The same states on a device."""
        return KeyValues(tuple((key.to(device), value.to(device)) for key, value in self.layers))


def joined(parts: Sequence[KeyValues]) -> KeyValues:
    """States of several texts in a row, each with the positions at which it was computed."""
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
    """Bytes of one token's keys and values in all layers: 128 KiB in a 7B Mistral in bfloat16."""
    sizes: Any = config
    heads = getattr(sizes, "num_key_value_heads", None) or sizes.num_attention_heads
    dim = getattr(sizes, "head_dim", None) or sizes.hidden_size // sizes.num_attention_heads
    return int(2 * sizes.num_hidden_layers * heads * dim * dtype.itemsize)


def cache_of(states: KeyValues | None, device: torch.device) -> DynamicCache | None:
    """A copy of states as transformers takes them, which it may extend; None for no states."""
    from transformers import DynamicCache

    if states is None:
        return None
    # Made without a config, so that no layer drops what has left its sliding window: the masks
    # hide it, and the states are whole.
    cache = DynamicCache()
    for layer, (key, value) in enumerate(states.layers):
        cache.update(key[None].to(device), value[None].to(device), layer)
    return cache


def run_states(
    backbone: PreTrainedModel, ids: Sequence[int], before: KeyValues | None = None
) -> KeyValues:
    """Compute states of tokens, in the attention direction of the backbone.

    Args:
        backbone: A decoder without a head: an encoder's, or that of `causal_model`.
        ids: All tokens, those of `before` included.
        before: States of the first of them, which are not computed again.

    Returns:
        States of all tokens, on the backbone's device.
    """
    from transformers import DynamicCache

    done = 0 if before is None else before.length
    cache: Any = cache_of(before, backbone.device) or DynamicCache()
    with torch.inference_mode():
        row = torch.tensor([ids[done:]], device=backbone.device)
        backbone(input_ids=row, use_cache=True, **as_argument(backbone, cache))
    return KeyValues(tuple((layer.keys[0], layer.values[0]) for layer in cache.layers))


def as_argument(model: PreTrainedModel, cache: Any) -> dict[str, Any]:
    """The keyword argument by which a model takes a cache; transformers renames it."""
    names = inspect.signature(model.forward).parameters
    return {"cache" if "cache" in names else "past_key_values": cache}


def check_room(tokens: int, new: int, positions: int) -> None:
    """Check that a prompt and its answer fit the model.

    Raises:
        ValueError: `tokens` and `new` tokens together are more than `positions`.
    """
    if tokens + new > positions:
        raise ValueError(
            f"the prompt takes {tokens} tokens, max_new_tokens={new}, and this model has "
            f"{positions} positions: shorten the prompt (fewer or shorter documents) or the answer"
        )
