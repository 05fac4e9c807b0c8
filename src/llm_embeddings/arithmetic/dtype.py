"""Device and dtype to compute in, where the caller leaves the choice."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from .memory import fits

if TYPE_CHECKING:
    from transformers import PretrainedConfig

logger = logging.getLogger(__name__)

_SIDE, _ROUNDS, _SLOWER = 256, 5, 1.5
_NEVER_FLOAT16 = ("gemma3_text", "embedding_gemma2", "embedding_gemma2_text")


def default_device() -> str:
    """CUDA, else Apple's GPU, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def resolve_dtype(
    wanted: str | torch.dtype,
    config: PretrainedConfig,
    directory: Path,
    device: torch.device,
    *,
    kept: bool = False,
) -> torch.dtype:
    """The dtype to compute in.

    "auto" is the checkpoint's own; on a CPU a half-precision checkpoint runs in bfloat16 where the
    processor has it natively, or has no memory for twice the bytes, and in float32 elsewhere: never
    in float16.

    Args:
        wanted: A dtype, its name or "auto".
        config: The checkpoint's.
        directory: Holds its weights.
        device: What computes.
        kept: Whether weights keep the dtype of their files, whatever passes compute in.

    Raises:
        ValueError: an unknown dtype, or float16 for a model whose activations exceed its range.
    """
    found = _resolved(wanted, config, directory, device, kept)
    if found == torch.float16 and config.model_type in _NEVER_FLOAT16:
        raise ValueError(
            f"{config.model_type} models overflow in float16 (model card of EmbeddingGemma): pass "
            "dtype='bfloat16' or 'float32'"
        )
    return found


def _resolved(
    wanted: str | torch.dtype,
    config: PretrainedConfig,
    directory: Path,
    device: torch.device,
    kept: bool,
) -> torch.dtype:
    if isinstance(wanted, torch.dtype):
        return wanted
    if wanted != "auto":
        dtype = getattr(torch, wanted, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ValueError(f"dtype={wanted!r} is not 'auto', 'float32', 'bfloat16' or 'float16'")
        return dtype
    stored = getattr(config, "dtype", None) or _first_dtype(directory)
    if device.type != "cpu" or stored == torch.float32:
        return stored
    if bfloat16_pays():
        return torch.bfloat16
    if kept or fits(directory, torch.float32):
        return torch.float32
    logger.warning(
        "%s runs in bfloat16, which this processor emulates: in float32 its weights would take "
        "most of the memory, or more than there is",
        directory,
    )
    return torch.bfloat16


@functools.cache
def bfloat16_pays() -> bool:
    """Whether this processor has bfloat16 natively, and torch uses it.

    The flag alone would do on paper; a few milliseconds of measuring also see a build of torch that
    emulates it. Native products take half of float32's time and emulated ones about four times as
    much: the line lies between, where a busy machine does not push either over it.
    """
    read: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    flags = read()
    if not (flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16")):
        return False
    matrix = torch.ones(_SIDE, _SIDE)
    operands = {torch.float32: matrix, torch.bfloat16: matrix.bfloat16()}
    best = dict.fromkeys(operands, float("inf"))
    for _ in range(_ROUNDS):
        for dtype, operand in operands.items():
            start = time.perf_counter()
            operand @ operand
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.bfloat16] < _SLOWER * best[torch.float32]


def _first_dtype(directory: Path) -> torch.dtype:
    shard = min(directory.glob("model*.safetensors"))
    with safe_open(shard, framework="pt") as file:
        tensors = (file.get_tensor(name) for name in file.keys())
        dtype: torch.dtype = next(t.dtype for t in tensors if t.is_floating_point())
    return dtype
