"""Causal attention within a sliding window over long texts, on a CPU: a block of queries at a time.

Torch's kernel wants a mask of all queries and keys for that, and computes all of them. Blocks look
only at the keys the window leaves. (Without a window torch's kernel is the faster one.) Products of
bfloat16 queries and keys are taken in float32, so that scores lose nothing.
"""

from __future__ import annotations

import torch

from .pack import Bucket

LONG = 1024
_BLOCK, _SMALLER_BLOCK = 128, 64  # the latter for windows of more keys than 4096


def pays(query: torch.Tensor, keys: int, window: int) -> bool:
    """Whether a window leaves out some of the keys of long texts, `[texts, tokens, heads, dim]`."""
    long = keys > window and query.shape[1] >= LONG
    return long and query.device.type == "cpu" and not torch.is_grad_enabled()


def bucket_in_blocks(
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


def in_blocks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    seen: int,
    scaling: float | None,
    window: int,
) -> torch.Tensor:
    """Causal attention of one text; no gradient flows.

    Args:
        query: `[tokens, heads, dim]`.
        key: `[seen + tokens, key heads, dim]`.
        value: `[seen + tokens, key heads, dim]`.
        seen: Keys before that of the first query.
        scaling: Factor of the scores; None = 1 / sqrt(dim).
        window: How many keys, its own included, a query sees at most.

    Returns:
        `[tokens, heads, dim]` in the dtype of the values.
    """
    tokens, heads, dim = query.shape
    keys, key_heads, _ = key.shape
    group = heads // key_heads
    found = torch.empty(tokens, heads, dim, dtype=value.dtype)
    block = min(tokens, _BLOCK if window <= 4096 else _SMALLER_BLOCK)
    size = group * block * min(keys, window + block)
    # One memory for all blocks: fresh memory comes from the system page by page.
    rooms = torch.empty(size), torch.empty(size), torch.empty(size, dtype=value.dtype)
    later = torch.ones(block, block, dtype=torch.bool).triu_(1)
    scale = dim**-0.5 if scaling is None else scaling
    for head in range(key_heads):
        mine = slice(head * group, (head + 1) * group)
        q = (query[:, mine].float() * scale).transpose(0, 1)
        k, v = key[:, head].float().t().contiguous(), value[:, head].contiguous()
        for first in range(0, tokens, block):
            rows = min(block, tokens - first)
            oldest = seen + first - window + 1  # key that the first row sees
            start, end = max(0, oldest), seen + first + rows
            scores, shares, weights = (
                room[: group * rows * (end - start)].view(group, rows, end - start)
                for room in rooms
            )
            part = q[:, first : first + rows].reshape(group * rows, dim)
            torch.mm(part, k[:, start:end], out=scores.view(group * rows, -1))
            scores[..., -rows:].masked_fill_(later[:rows, :rows], float("-inf"))
            past = rows + min(0, oldest)  # rows that have lost keys of this block
            if past > 0:
                scores[:, -past:, :past].masked_fill_(later[:past, :past].t(), float("-inf"))
            weights.copy_(torch.softmax(scores, -1, out=shares))
            out = torch.mm(weights.view(group * rows, -1), v[start:end]).view(group, rows, dim)
            found[first : first + rows, mine] = out.transpose(0, 1)
    return found
