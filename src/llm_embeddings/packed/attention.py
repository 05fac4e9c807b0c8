"""Attention over packs: registered with transformers once, computed by one of several kernels.

A pack travels to the attention function through the keyword arguments of the stock model, beside a
four-dimensional mask that transformers hands on untouched, so that no mask is ever built for it.
Without a pack the registered function is transformers' own, and so are the masks: training and
`generate` see no difference.

A kernel takes a pack, queries `[tokens, heads, dim]`, keys and values `[tokens, key heads, dim]`,
keys and values of what the pack has `cached`, the scale and the sliding window (None = none), and
returns `[tokens, heads, dim]`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from .pack import Bucket, Kernel, KeysAndValues, Pack
from .sliding_window import in_blocks, in_blocks_pays

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_KINDS = {"full_attention", "sliding_attention"}
_OTHER_FORMULAS = ("softcap", "s_aux", "position_bias")
_MANY_QUERIES = 1024
_VARLEN_DTYPES = (torch.bfloat16, torch.float16)


def enable(backbone: PreTrainedModel) -> None:
    """Let a backbone take a `pack`; without one it goes on as before.

    Raises:
        ValueError: its attention is not called through transformers' registry, or is of a kind
            that a pack cannot express.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    name = backbone.config._attn_implementation.removeprefix(_name(""))
    functions, masks = AttentionInterface(), AttentionMaskInterface()
    kinds = set(getattr(backbone.config, "layer_types", None) or ())
    if not backbone._supports_attention_backend or name not in functions or name not in masks:
        raise ValueError(f"{type(backbone).__name__} runs {name!r} attention of its own")
    if not kinds <= _KINDS:
        raise ValueError(f"its layers are of the kinds {sorted(kinds)}")
    AttentionInterface.register(_name(name), partial(_attention, plain=functions[name]))
    AttentionMaskInterface.register(_name(name), masks[name])
    backbone.config._attn_implementation = _name(name)


def forward(
    backbone: PreTrainedModel, texts: Sequence[Sequence[int]], pack: Pack, last: Pack | None = None
) -> torch.Tensor:
    """Hidden states after the final norm, `[tokens, dim]`, of the ids of a pack's texts.

    With `last`, which the pack made, only of the tokens that have queries in it.
    """
    row = [token for text in pack.order for token in texts[text]]
    ids = torch.tensor(row, device=backbone.device)
    hidden: torch.Tensor = backbone(
        input_ids=ids[None],
        position_ids=pack.positions[None],
        attention_mask=torch.empty(1, 1, 1, 1, device=ids.device),
        use_cache=False,
        pack=pack,
        last=last,
    ).last_hidden_state
    return hidden[0]


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    plain: Callable[..., tuple[torch.Tensor, Any]],
    pack: Pack | None = None,
    **options: Any,
) -> tuple[torch.Tensor, Any]:
    """What transformers calls: the pack's attention, or the plain one."""
    if pack is None:
        return plain(module, query, key, value, attention_mask, **options)
    for option in _OTHER_FORMULAS:
        if options.get(option) is not None:
            raise ValueError(f"its attention has {option}")
    scaling, window = options.get("scaling"), options.get("sliding_window")
    return pack.attend(module.layer_idx, query, key, value, scaling, window), None


def _name(plain: str) -> str:
    return f"llm_embeddings_{plain}"


def kernels(device: torch.device, dtype: torch.dtype) -> list[tuple[str, Kernel]]:
    """Names and kernels that may serve, the fastest first."""
    found: list[tuple[str, Kernel]] = []
    if device.type == "cuda" and dtype in _VARLEN_DTYPES:
        for module in ("flash_attn_interface", "flash_attn"):  # version 3, version 2
            if importlib.util.find_spec(module) is not None:
                function = importlib.import_module(module).flash_attn_varlen_func
                found.append((module, partial(flash_attention, function=function)))
        if importlib.util.find_spec("torch.nn.attention.varlen") is not None:
            varlen = importlib.import_module("torch.nn.attention.varlen").varlen_attn
            found.append(("torch varlen_attn", partial(torch_varlen, function=varlen)))
    return [*found, ("SDPA", bucketed)]


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
    """Torch's scaled dot product attention, bucket by bucket; training may drop weights of it."""
    keys = pack.padded_keys(key, [part for part, _ in cached])
    values = pack.padded_keys(value, [part for _, part in cached])
    found = []
    for bucket, q, k, v in zip(pack.buckets, pack.padded(query), keys, values, strict=True):
        if window and pack.causal and in_blocks_pays(q, k.shape[1], window):
            found.append(_in_blocks(bucket, q, k, v, scaling, window))
            continue
        mask, is_causal = pack.mask(bucket, window, q)
        grouped = q.shape[2] != k.shape[2]
        if grouped and mask is not None and q.device.type != "cpu":
            # On accelerators a mask and grouped heads together mean the slow kernel.
            k, v = (s.repeat_interleave(q.shape[2] // s.shape[2], 2) for s in (k, v))
            grouped = False
        q, k, v = (s.transpose(1, 2) for s in (q, k, v))
        if q.shape[2] >= _MANY_QUERIES and q.device.type == "cpu":
            # Each block of them reads all keys again: with heads apart, a tenth faster for 8192.
            q, k, v = (s.contiguous() for s in (q, k, v))
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


def _in_blocks(
    bucket: Bucket,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int,
) -> torch.Tensor:
    """`in_blocks` for the texts of a bucket: `[texts, length, heads, dim]`."""
    found = torch.zeros_like(query)
    for text, (own, seen) in enumerate(zip(bucket.lengths, bucket.seen, strict=True)):
        found[text, :own] = in_blocks(
            query[text, :own],
            key[text, : own + seen],
            value[text, : own + seen],
            seen=int(seen),
            scaling=scaling,
            window=window,
        )
    return found


def flash_attention(
    pack: Pack,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cached: KeysAndValues,
    scaling: float | None,
    window: int | None,
    *,
    function: Callable[..., Any],
) -> torch.Tensor:
    """`flash_attn_varlen_func` of flash-attn 2.1 or later, or of flash-attn 3.

    Causal queries are aligned with the last keys, as a text that continues shared tokens needs.
    """
    states, layout = _ragged(pack, query, key, value, cached)
    out = function(
        *states,
        *layout,
        softmax_scale=scaling,
        causal=pack.causal,
        window_size=(-1, -1) if window is None else (window - 1, 0),
    )
    found: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return found


def torch_varlen(
    pack: Pack,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cached: KeysAndValues,
    scaling: float | None,
    window: int | None,
    *,
    function: Callable[..., Any],
) -> torch.Tensor:
    """`torch.nn.attention.varlen.varlen_attn`; one split, so a batch does not change a vector."""
    states, layout = _ragged(pack, query, key, value, cached)
    sizes = (-1, -1) if not pack.causal else (-1 if window is None else window - 1, 0)
    found: torch.Tensor = function(
        *(part.contiguous() for part in states),
        *layout,
        scale=scaling,
        window_size=sizes,
        enable_gqa=query.shape[1] != key.shape[1],
        num_splits=1,
    )
    return found


def _ragged(
    pack: Pack,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cached: KeysAndValues,
) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor | int, ...]]:
    """Queries, keys and values, and how they are laid out, in the order both kernels take them."""
    ragged = pack.ragged
    keys = ragged.take([*(part for part, _ in cached), key])
    values = ragged.take([*(part for _, part in cached), value])
    starts = ragged.queries.to(query.device), ragged.keys.to(query.device)
    return (query, keys, values), (*starts, ragged.most_queries, ragged.most_keys)
