"""The kinds of 8-bit arithmetic, by name. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal, get_args

Quantization = Literal["int8", "fp8"]
_WHY = {
    "int4": ": nothing here computes with four-bit weights. Pass a GGUF file, which is unpacked, "
    "or a quantization config of transformers"
}


def check_quantization(kind: str) -> Quantization:
    """The kind, or a `ValueError` if there is none of this name."""
    for known in get_args(Quantization):
        if kind == known:
            found: Quantization = known
            return found
    raise ValueError(
        f"quantization={kind!r} is not one of {get_args(Quantization)} or None{_WHY.get(kind, '')}"
    )
