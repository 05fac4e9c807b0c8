"""What callers give, checked before work starts: texts and the options of a call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from .arithmetic.precision import Precision, check_precision
from .faces import check_names

F = TypeVar("F", bound=Callable[..., Any])


class QuietKeywords(TypedDict, total=False):
    """The fields of `EncodeOptions` but for `show_progress`."""

    normalize: bool | None
    truncate_dim: int | None
    precision: Precision
    max_length: int | None
    max_batch_tokens: int | None
    prompt_name: str | None


class TokenKeywords(TypedDict, total=False):
    """Those that have a meaning for vectors of tokens."""

    max_length: int | None
    max_batch_tokens: int | None
    prompt_name: str | None
    show_progress: bool


class EncodeKeywords(QuietKeywords, total=False):
    """The fields of `EncodeOptions`, for signatures that pass them on."""

    show_progress: bool


class AllKeywords(EncodeKeywords, total=False):
    """All keyword options of `Encoder.encode`."""

    as_tensor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """The options of all methods that encode; `Encoder.encode` says what each means.

    Raises:
        ValueError: a value that no model could take.
    """

    normalize: bool | None = None
    truncate_dim: int | None = None
    precision: Precision = "float32"
    max_length: int | None = None
    max_batch_tokens: int | None = None
    prompt_name: str | None = None
    show_progress: bool = False

    def __post_init__(self) -> None:
        if self.precision != "float32":
            check_precision(self.precision)
        if self.max_batch_tokens is not None and self.max_batch_tokens < 1:
            raise ValueError(f"max_batch_tokens={self.max_batch_tokens} must be 1 or more")

    def check(self, dimension: int) -> None:
        """Raise `ValueError` for what a model of this dimension cannot do."""
        if self.truncate_dim is not None and not 1 <= self.truncate_dim <= dimension:
            raise ValueError(
                f"truncate_dim={self.truncate_dim} is not between 1 and the dimension {dimension}"
            )


def without_as_tensor(options: AllKeywords) -> tuple[EncodeKeywords, bool]:
    """The fields of `EncodeOptions`, and whether tensors are wanted; else a `TypeError`."""
    values: dict[str, Any] = dict(options)
    as_tensor = bool(values.pop("as_tensor", False))
    check_names(values, list(EncodeKeywords.__annotations__))
    return cast(EncodeKeywords, values), as_tensor


def names_checked(function: F) -> F:
    """A function that says of a keyword it does not have which one is meant."""
    taken = inspect.signature(function).parameters.keys()
    known = [name for name in taken if name not in ("self", "cls")]

    @functools.wraps(function)
    def checked_call(*args: Any, **options: Any) -> Any:
        if not options.keys() <= taken:
            check_names(options, known)
        return function(*args, **options)

    return cast(F, checked_call)


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


def check_finite(
    vectors: NDArray[Any], texts: Sequence[str], index_of: Callable[[int], int]
) -> None:
    """Raise `ValueError` naming the text of the first vector that holds NaN or infinity.

    Args:
        vectors: `[n, dim]`; the texts have equally many, those of one text side by side.
        texts: Their texts.
        index_of: Gives for `i` the index of `texts[i]` among all texts of the call.
    """
    finite = np.isfinite(vectors).all(1)
    if not finite.all():
        text = int(np.argmin(finite)) * len(texts) // len(vectors)
        raise ValueError(
            f"the model's vector of texts[{index_of(text)}] ({texts[text]!r:.80}) is not finite: "
            "try dtype='float32' or 'bfloat16'"
        )
