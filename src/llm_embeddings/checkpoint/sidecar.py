"""llm_embeddings.json: recipe, format of conversations and ranges, beside saved weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..recipe import Recipe
from ..vectors import Vectors
from .files import read_json

ChatFormat = Literal["gritlm", "tokenizer"]
SavedForm = Literal["int8"]
NAME = "llm_embeddings.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Form:
    """Weights that are not plain numbers.

    Attributes:
        kind: What they are.
        cosine: Lowest cosine between vectors of a sample before and after; None = not measured.
    """

    kind: SavedForm
    cosine: float | None


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What the file says.

    Attributes:
        recipe: How the model embeds.
        chat: The format of conversations in which its language model was trained here, GritLM's or
            the tokenizer's own template; None = it was not.
        ranges: Ranges of int8 and uint8 vectors, `[2, dim]` by (dim, normalize).
        form: The form of the weights; None = plain numbers.
    """

    recipe: Recipe
    chat: ChatFormat | None = None
    ranges: dict[tuple[int, bool], Vectors] = field(default_factory=dict)
    form: Form | None = None


def read(directory: Path) -> Sidecar | None:
    """The sidecar of a directory, or None.

    Raises:
        ValueError: a format this version does not know, or a bad recipe.
    """
    values = read_json(directory / NAME)
    if not values:
        return None
    if values.get("format") != _FORMAT or not isinstance(values.get("recipe"), dict):
        raise ValueError(
            f"{directory / NAME} has format {values.get('format')!r}, this version reads 1. "
            "Update llm-embeddings, or pass recipe=..."
        )
    chat = values.get("chat")
    if chat is not None and chat not in get_args(ChatFormat):
        raise ValueError(
            f"{directory / NAME} has chat={chat!r}, which this version does not know: update "
            "llm-embeddings"
        )
    # Before there was this field, windows went wherever attention goes both ways.
    legacy = {"window": "keep" if values["recipe"].get("causal") else "drop"}
    try:
        recipe = Recipe.from_dict({**legacy, **values["recipe"]})
        ranges = dict(map(_range, values.get("ranges", ())))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{directory / NAME}: {error}. Save the model again, or pass recipe=..."
        ) from error
    return Sidecar(recipe, chat, ranges, read_form(directory))


def read_form(directory: Path) -> Form | None:
    """The form of the weights in a directory, whatever recipe they are used by; None = plain.

    Raises:
        ValueError: a form that this version does not know.
    """
    found: Any = read_json(directory / NAME).get("quantization")
    kind: Any
    cosine: Any
    if found is None:
        return None
    kind, cosine = map(found.get, ("kind", "cosine")) if isinstance(found, dict) else (None, None)
    measured = type(cosine) in (int, float) and math.isfinite(cosine)
    if kind not in get_args(SavedForm) or not (cosine is None or measured):
        raise ValueError(
            f"{directory / NAME} has quantization={found!r:.80}, which this version does not know: "
            "update llm-embeddings, or load the original checkpoint"
        )
    return Form(kind, cosine)


def _range(entry: Any) -> tuple[tuple[int, bool], Vectors]:
    """The range of one dimension and way of normalising, `[2, dim]`.

    Raises:
        ValueError: it is not one; the key is named.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"ranges hold {entry!r:.40}, not objects")
    dim, normalize = entry.get("dim"), entry.get("normalize")
    if type(dim) is not int or dim < 1 or type(normalize) is not bool:
        raise ValueError(f"ranges: dim={dim!r:.40}, normalize={normalize!r:.40}")
    ends = []
    for key in ("low", "high"):
        numbers = entry.get(key)
        numbers = numbers if isinstance(numbers, list) else []
        plain = len(numbers) == dim and all(type(one) in (int, float) for one in numbers)
        if not plain or not np.isfinite(np.array(numbers, float)).all():
            raise ValueError(f"ranges: {key} of dim {dim} is not a list of {dim} finite numbers")
        ends.append(np.array(numbers, np.float32))
    if not bool((ends[0] <= ends[1]).all()):
        raise ValueError(f"ranges: low of dim {dim} is above high")
    return (dim, normalize), np.array(ends)


def write(directory: Path, sidecar: Sidecar) -> None:
    """Write the sidecar."""
    ranges = [
        {"dim": dim, "normalize": normalize, "low": low.tolist(), "high": high.tolist()}
        for (dim, normalize), (low, high) in sidecar.ranges.items()
    ]
    values = {"format": _FORMAT, "recipe": sidecar.recipe.to_dict(), "ranges": ranges}
    if sidecar.chat is not None:
        values["chat"] = sidecar.chat
    if sidecar.form is not None:
        values["quantization"] = asdict(sidecar.form)
    (directory / NAME).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
