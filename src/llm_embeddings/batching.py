"""Which texts run together. Knows lengths, nothing of texts or tensors."""

from __future__ import annotations

from collections.abc import Sequence


def plan(lengths: Sequence[int], max_batch_tokens: int) -> list[list[int]]:
    """Cut rows into padded batches under a token budget, longest first.

    Rows of like length share a batch, so little is padded; the longest come first, so running out
    of memory shows at once. A row longer than the budget is a batch of its own.

    Args:
        lengths: Tokens per row.
        max_batch_tokens: Limit of rows x longest row per batch.

    Returns:
        Row indices per batch; every row once.
    """
    batches: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not batches or (len(batches[-1]) + 1) * longest > max_batch_tokens:
            batches.append([])
            longest = lengths[row]
        batches[-1].append(row)
    return batches
