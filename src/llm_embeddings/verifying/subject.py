"""The model that is verified, as far as the checks need it, and the texts they run on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..call import Call
from ..corpus import load_corpus
from ..inputs import EncodeOptions
from ..recipe import Role
from ..vectors import Vectors

if TYPE_CHECKING:
    from ..engine.scheduler import Scheduler
    from ..model import Model

# How far apart two vectors of a text may be, as a share of their length: rounding depends on the
# shape of a batch, and grows with the number of layers. A cosine of 0.998 is 0.06.
_APART = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 6e-2}
_QUANTIZED = 0.1


class Subject(Protocol):
    """What has a model and runs it.

    Attributes:
        model: Backbone, tokenizer and recipe.
        scheduler: What runs them.
        quantization_cosine: Lowest cosine of a sample before and after quantising; None = not
            quantised.
    """

    model: Model
    scheduler: Scheduler
    quantization_cosine: float | None

    def fingerprint(self, role: Role = "document", instruction: str | None = None) -> str:
        """32 hex digits that differ whenever vectors would."""
        ...


def vectors(
    subject: Subject,
    texts: Sequence[str],
    role: str = "document",
    instruction: str | None = None,
    *,
    model: Model | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
) -> Vectors:
    """Vectors `[n, dim]`, float32, computed and never taken from a cache.

    Args:
        subject: What runs them.
        texts: As for `Encoder.encode`.
        role: As for `Encoder.encode`, or the name of a prompt.
        instruction: As for `Encoder.encode`.
        model: The subject's with other templates in its recipe; None = as it is.
        normalize: As for `Encoder.encode`.
        max_length: As for `Encoder.encode`.

    Raises:
        ValueError: as `Encoder.encode`.
    """
    options = EncodeOptions(normalize=normalize, max_length=max_length)
    call = Call(model or subject.model, subject.scheduler, {role: instruction}, options)
    found: Vectors = call.run(list(texts))[:, 0]
    return found


def dtype_of(subject: Subject) -> str:
    """What a model computes in, such as "bfloat16"."""
    return str(subject.model.dtype).removeprefix("torch.")


def tolerance(subject: Subject) -> float:
    """How far apart two ways to the same vector may come, as a share of its length."""
    if subject.quantization_cosine is not None:
        return _QUANTIZED
    return _APART.get(dtype_of(subject), _QUANTIZED)


def distance(found: Vectors, wanted: Vectors) -> float:
    """The largest distance of vectors `[n, dim]`, as a share of the second ones' lengths."""
    apart, lengths = np.linalg.norm(found - wanted, axis=1), np.linalg.norm(wanted, axis=1)
    return float((apart / np.maximum(lengths, 1e-12)).max())


def samples() -> list[str]:
    """Texts of several lengths and scripts, an empty one and a very long one among them."""
    passage = load_corpus()[0].passage
    return [
        "",
        "a",
        "Paris is in France.",
        "巴黎是法国的首都。",
        "Ünïcödé 👋",
        passage,
        passage * 8,
    ]
