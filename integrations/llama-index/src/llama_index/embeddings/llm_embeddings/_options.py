"""Options as plain values, checked early."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_embeddings import Encoder, Recipe


def recipe_to_plain(recipe: Recipe | str | Mapping[str, Any] | None) -> Any:
    """A recipe as JSON has it: a name, a dict or None."""
    if recipe is None or isinstance(recipe, str):
        return recipe
    if isinstance(recipe, Mapping):
        recipe = Recipe.from_dict(dict(recipe))
    if not isinstance(recipe, Recipe):
        raise TypeError(f"recipe={recipe!r:.80} is not a name, a Recipe or a Recipe's to_dict()")
    return json.loads(json.dumps(recipe.to_dict()))


def check_list(texts: Any) -> None:
    if isinstance(texts, str):
        raise TypeError(
            f"texts is the string {texts!r:.80}, not a list of strings: put it in a list"
        )


def check_encoder(encoder: Any) -> None:
    if encoder is not None and not isinstance(encoder, Encoder):
        raise TypeError(
            f"encoder is {type(encoder).__name__}, not an llm_embeddings.Encoder: make one with "
            "Encoder.from_pretrained, or pass model_name="
        )
