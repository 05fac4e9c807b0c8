"""Backward passes of batches that do not fit in memory, over chunks and over processes.

Every process knows the whole batch, and so which chunks are its own and what the divisor of a mean
is, without communication. The gradients are those of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

_Chunk = TypeVar("_Chunk")
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
EncodeRows = Callable[[list[list[int]], list[int]], torch.Tensor]
VectorLoss = Callable[[torch.Tensor], Mapping[str, torch.Tensor]]


def plan(lengths: Sequence[int], budget: int, processes: int = 1) -> list[list[list[int]]]:
    """Divide a batch into chunks, and the chunks among processes.

    Rows of like length go together. All processes get equally many chunks, because a wrapper such
    as FSDP communicates in every forward pass.

    Args:
        lengths: Tokens of every row of the global batch.
        budget: Tokens per chunk; a row with more is a chunk of its own.
        processes: How many processes share the work.

    Returns:
        Indices of rows: `[process][chunk][row]`.

    Raises:
        ValueError: fewer rows than processes.
    """
    if len(lengths) < processes:
        raise ValueError(
            f"a batch of {len(lengths)} rows cannot be shared by {processes} processes: raise "
            "batch_size"
        )
    chunks: list[list[int]] = []
    room = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if not chunks or lengths[row] > room:
            chunks.append([])
            room = budget
        chunks[-1].append(row)
        room -= lengths[row]
    while len(chunks) % processes:
        longest = max(chunks, key=len)
        if len(longest) > 1:
            chunks.append(longest[1::2])
            del longest[1::2]
        else:  # every row is a chunk: two of them have to share one
            last = chunks.pop()
            chunks[-1].extend(last)
    return [chunks[process::processes] for process in range(processes)]


def backward_sum(
    accelerator: Accelerator,
    model: torch.nn.Module,
    chunks: Sequence[_Chunk],
    compute: Callable[[_Chunk], torch.Tensor],
    *,
    last: bool = True,
) -> float:
    """Backward of the sum of a loss over the chunks of all processes.

    Args:
        accelerator: The run's processes.
        model: The prepared model that `compute` calls.
        chunks: This process's chunks, as many as every other process has.
        compute: A chunk's part of the loss, already divided by what the whole batch has.
        last: Whether this is the last backward pass of the update.

    Returns:
        The loss, summed over the chunks of all processes.
    """
    total = torch.zeros((), device=accelerator.device)
    for number, chunk in enumerate(chunks):
        with _synced(accelerator, model, last=last and number == len(chunks) - 1):
            part = compute(chunk)
            accelerator.backward(part * accelerator.num_processes)
        total += part.detach().to(total.dtype)
    return float(_summed(accelerator, total))


def backward_vectors(
    accelerator: Accelerator,
    model: torch.nn.Module,
    rows: Sequence[list[int]],
    starts: Sequence[int],
    loss: VectorLoss,
    *,
    budget: int,
    encode: EncodeRows | None = None,
    last: bool = True,
) -> dict[str, float]:
    """Backward of a loss of all vectors of a batch, in the memory of one chunk.

    Gradient caching (Gao et al. 2021, arXiv 2101.06983): vectors are computed without a graph, the
    loss gives the gradient of each, and chunk after chunk is computed again, with the same dropout,
    to carry it on. The last chunk keeps its graph, so a batch of one chunk is computed only once.

    Args:
        accelerator: The run's processes.
        model: The prepared model that `encode` calls.
        rows: Token ids of the whole batch, the same on every process.
        starts: First pooled position of each row.
        loss: Vectors `[rows, dim]` of the whole batch -> "loss", which is differentiated, and what
            else is to be reported, by name.
        budget: Tokens per chunk.
        encode: Rows and starts -> vectors `[rows, dim]`; None = `model`.
        last: Whether this is the last backward pass of the update.

    Returns:
        What `loss` gave, as floats.
    """
    encode = model if encode is None else encode
    chunks = plan([len(row) for row in rows], budget, accelerator.num_processes)
    own = chunks[accelerator.process_index]

    def run(chunk: Sequence[int]) -> torch.Tensor:
        return encode([rows[row] for row in chunk], [starts[row] for row in chunk])

    states, parts = [], []
    with torch.no_grad():
        for chunk in own[:-1]:
            states.append(_randomness(accelerator.device))
            parts.append(run(chunk))
    with _synced(accelerator, model, last=last and len(own) == 1):
        kept = run(own[-1])
    order = [row for chunk in own for row in chunk]
    vectors = _assembled(accelerator, torch.cat([*parts, kept.detach()]).float(), order, len(rows))
    losses = loss(vectors.requires_grad_())
    (gradients,) = torch.autograd.grad(losses["loss"], vectors)
    gradients = gradients * accelerator.num_processes  # wrappers average over processes
    with _synced(accelerator, model, last=last and len(own) == 1):
        accelerator.backward((kept * gradients[own[-1]]).sum())
    after = _randomness(accelerator.device)
    for number, (chunk, state) in enumerate(zip(own[:-1], states, strict=True), 2):
        _set_randomness(accelerator.device, state)
        with _synced(accelerator, model, last=last and number == len(own)):
            accelerator.backward((run(chunk) * gradients[chunk]).sum())
    _set_randomness(accelerator.device, after)
    return {name: float(value.detach()) for name, value in losses.items()}


def shared(
    accelerator: Accelerator | None,
    items: Sequence[_Item],
    work: Callable[[Sequence[_Item]], Sequence[_Made]],
) -> list[_Made]:
    """What `work` makes of each item, of which every process does its share for all.

    Args:
        accelerator: The run's processes; None = this one works alone.
        items: The same on every process.
        work: Items -> what is made of each, which pickle takes.
    """
    if accelerator is None or accelerator.num_processes == 1:
        return list(work(items))
    from accelerate.utils import gather_object

    processes = accelerator.num_processes
    own = items[accelerator.process_index :: processes]
    parts = gather_object([work(own) if own else []])
    return [parts[place % processes][place // processes] for place in range(len(items))]


@contextmanager
def _synced(accelerator: Accelerator, model: torch.nn.Module, *, last: bool) -> Iterator[None]:
    """Let processes exchange gradients (and DeepSpeed step) in the update's last pass only."""
    accelerator.gradient_state._set_sync_gradients(last)
    try:
        if last:
            yield
        else:
            with accelerator.no_sync(model):
                yield
    finally:
        accelerator.gradient_state._set_sync_gradients(True)


def _assembled(
    accelerator: Accelerator, own: torch.Tensor, order: Sequence[int], rows: int
) -> torch.Tensor:
    """Vectors `[rows, dim]` of the whole batch, from this process's own and those of the others.

    `order` says which row of the batch each of `own` is.
    """
    everything = own.new_zeros(rows, own.shape[1])
    everything[torch.tensor(order, device=own.device)] = own
    return _summed(accelerator, everything)


def _summed(accelerator: Accelerator, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, summed over all processes."""
    if accelerator.num_processes == 1:
        return tensor
    found: torch.Tensor = accelerator.reduce(tensor, "sum")
    return found


def _randomness(device: torch.device) -> list[torch.Tensor]:
    """The states of torch's random generators, of the CPU and of a GPU if that is the device."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_randomness(device: torch.device, states: Sequence[torch.Tensor]) -> None:
    """Put the random generators back into states that `_randomness` gave."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
