"""What `Encoder`'s methods are given, checked before work starts. NumPy only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from .vectors import Precision, check_precision

Quantization = Literal["int8", "fp8"]


class EncodeOptions(TypedDict, total=False):
    """The keyword options of `Encoder.encode` that leave the type of its result alone."""

    normalize: bool | None
    truncate_dim: int | None
    precision: Precision
    max_length: int | None
    max_batch_tokens: int | None
    show_progress: bool


class AllOptions(EncodeOptions, total=False):
    """All keyword options of `Encoder.encode`, for the methods that pass them on."""

    as_tensor: bool


def check_texts(texts: Any) -> tuple[list[str], bool]:
    """A list of strings, and whether a single string was given.

    Raises:
        TypeError: not a string or an iterable of strings.
    """
    if isinstance(texts, str):
        return [texts], True
    if texts is None or isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise TypeError(f"texts must be a string or strings, not {type(texts).__name__}")
    return list(checked(texts)), False


def checked(texts: Iterable[Any]) -> Iterator[str]:
    """Texts as they come.

    Raises:
        TypeError: one is not a string; the message gives its index.
    """
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{index}] is {type(text).__name__}, not a string: {text!r:.80}")
        yield text


def check_options(
    dimension: int, truncate_dim: int | None, precision: str, max_batch_tokens: int | None
) -> None:
    """Raise `ValueError` for an option that is out of range."""
    check_precision(precision)
    if truncate_dim is not None and not 1 <= truncate_dim <= dimension:
        raise ValueError(
            f"truncate_dim={truncate_dim} is not between 1 and the dimension {dimension}"
        )
    if max_batch_tokens is not None and max_batch_tokens < 1:
        raise ValueError(f"max_batch_tokens={max_batch_tokens} must be 1 or more")


def check_quantization(kind: str) -> Quantization:
    """The kind, or a `ValueError` if there is none of this name."""
    for known in get_args(Quantization):
        if kind == known:
            found: Quantization = known
            return found
    raise ValueError(f"quantization={kind!r} is not one of {get_args(Quantization)} or None")


def check_finite(
    vectors: NDArray[Any], texts: Sequence[str], index_of: Callable[[int], int]
) -> None:
    """Raise `ValueError` naming the text of the first vector that holds NaN or infinity.

    Args:
        vectors: `[n, dim]`, as many for each text.
        texts: Their texts.
        index_of: Which text of the call `texts[i]` is.
    """
    finite = np.isfinite(vectors).all(1)
    if not finite.all():
        text = int(np.argmin(finite)) * len(texts) // len(vectors)
        raise ValueError(
            f"the model's vector of texts[{index_of(text)}] ({texts[text]!r:.80}) is not finite: "
            "try dtype='float32' or 'bfloat16'"
        )
