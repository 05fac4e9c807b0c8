"""Attention over packs: called by transformers, computed here or by another kernel.

An `attend` function travels to the attention function through the keyword arguments of the stock
model, beside a four-dimensional mask that transformers hands on untouched, so that no mask is ever
built for it. Without `attend` the function is transformers' own, and so are the masks: training and
`generate` see no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from .pack import Bucket, Pack
from .sliding_window import LONG, bucket_in_blocks, pays

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Layer, queries, keys and values `[1, heads, tokens, dim]`, scale, sliding window (None = none)
# -> `[1, tokens, heads, dim]`.
Attend = Callable[
    [int, torch.Tensor, torch.Tensor, torch.Tensor, float | None, int | None], torch.Tensor
]
# Pack, queries `[tokens, heads, dim]`, keys and values `[tokens, key heads, dim]`, keys and values
# of what the pack has cached, scale, sliding window -> `[tokens, heads, dim]`.
KeysAndValues = Sequence[tuple[torch.Tensor, torch.Tensor]]
Kernel = Callable[
    [Pack, torch.Tensor, torch.Tensor, torch.Tensor, KeysAndValues, float | None, int | None],
    torch.Tensor,
]

_OTHER_FORMULAS = ("softcap", "s_aux", "position_bias")  # options of other kinds of attention
_MANY_QUERIES = 1024


def forward(
    backbone: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    pack: Pack,
    kernel: Kernel,
    **more: Any,
) -> torch.Tensor:
    """Hidden states after the final norm, `[tokens, dim]`, of the ids of a pack's texts.

    The backbone is one that `twin.enable` has prepared; `more` is for its layers.
    """
    row = [token for text in pack.order for token in texts[text]]
    ids = torch.tensor(row + row[:1] * pack.filler, device=backbone.device)
    hidden: torch.Tensor = backbone(
        input_ids=ids[None],
        position_ids=pad(pack.positions, (0, pack.filler))[None],
        attention_mask=torch.empty(1, 1, 1, 1, device=ids.device),
        use_cache=False,
        attend=partial(attend, pack, kernel),
        **more,
    ).last_hidden_state
    return hidden[0, : pack.tokens]


def tokens_in(options: Mapping[str, Any]) -> int:
    """Tokens in a pass without filler, by the keyword arguments of the backbone's `forward`."""
    attending = options.get("attend")
    return int(options["input_ids"].numel()) if attending is None else attending.args[0].tokens


def attend(
    pack: Pack,
    kernel: Kernel,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """One layer's attention over a pack, which keeps the keys and values that are wanted later."""
    query, key, value = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    for text, kept in pack.kept.items():
        place = slice(pack.starts[text], pack.starts[text] + kept.length)
        kept.layers[layer] = key[place].clone(), value[place].clone()
    cached = [part.layers[layer] for part in pack.cached]
    found = kernel(pack, query, key, value, cached, scaling, window)
    return pad(found, (0, 0, 0, 0, 0, pack.filler))[None]


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    plain: Callable[..., tuple[torch.Tensor, Any]],
    attend: Attend | None = None,
    **options: Any,
) -> tuple[torch.Tensor, Any]:
    """What transformers calls: the pack's attention, or without `attend` the plain one."""
    if attend is None:
        return plain(module, query, key, value, attention_mask, **options)
    for option in _OTHER_FORMULAS:
        if options.get(option) is not None:
            raise ValueError(f"its attention has {option}")
    scaling, window = options.get("scaling"), options.get("sliding_window")
    return attend(module.layer_idx, query, key, value, scaling, window), None


def bucketed(
    pack: Pack,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cached: KeysAndValues,
    scaling: float | None,
    window: int | None,
    *,
    dropout: float = 0.0,
) -> torch.Tensor:
    """A `Kernel`: torch's scaled dot product attention, bucket by bucket.

    `dropout` is the share of attention weights that training drops.
    """
    found = []
    states = pack.states(query, key, value, cached)
    for bucket, (q, k, v) in zip(pack.buckets, states, strict=True):
        if window and pack.causal and q.shape[1] >= LONG and pays(q, k.shape[1], window):
            found.append(bucket_in_blocks(bucket, q, k, v, scaling, window))
            continue
        mask, is_causal = _mask(bucket, window, q, causal=pack.causal)
        grouped = q.shape[2] != k.shape[2]
        if grouped and mask is not None and q.device.type != "cpu":
            # On accelerators a mask and grouped heads together mean the slow kernel.
            times = q.shape[2] // k.shape[2]
            k, v = k.repeat_interleave(times, 2), v.repeat_interleave(times, 2)
            grouped = False
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if q.shape[2] >= _MANY_QUERIES and q.device.type == "cpu":
            # Each block of queries reads all keys: contiguous heads are a tenth faster at 8192.
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=is_causal,
            scale=scaling,
            enable_gqa=grouped,
        )
        found.append(out.transpose(1, 2))
    return pack.joined(found)


def _mask(
    bucket: Bucket, window: int | None, like: torch.Tensor, *, causal: bool
) -> tuple[torch.Tensor | None, bool]:
    """Additive mask that broadcasts to `[texts, 1, length, keys]`, and `is_causal`.

    Made when the first layer asks, and kept in the bucket for the others.
    """
    if window not in bucket.masks:
        short = window is None or bucket.keys <= window
        if causal and short and not bool(bucket.seen.any()):
            # Padding stands on the right, where causal attention never looks.
            bucket.masks[window] = (None, True)
        else:
            visible = _visible(bucket, None if short else window, causal=causal)
            if visible is not None:
                blank = torch.zeros(visible.shape, dtype=like.dtype)
                visible = blank.masked_fill_(~visible, float("-inf")).to(like.device)
            bucket.masks[window] = (visible, False)
    mask, is_causal = bucket.masks[window]
    return None if mask is None else mask.to(like.device), is_causal


def _visible(bucket: Bucket, window: int | None, *, causal: bool) -> torch.Tensor | None:
    """Which keys each token sees, `[texts or 1, 1, length or 1, keys]`; None = all."""
    key = torch.arange(bucket.keys)
    if not causal:
        keys = bucket.seen + bucket.lengths
        whole = bool((keys == bucket.keys).all())
        return None if whole else (key < keys[:, None])[:, None, None]
    same = bool((bucket.seen == bucket.seen[0]).all())
    seen = bucket.seen[:1] if same else bucket.seen
    position = (seen[:, None] + torch.arange(bucket.length))[..., None]
    visible = key <= position
    if window is not None:
        visible &= key > position - window
    return None if bool(visible.all()) else visible[:, None]
