"""Who a model is, in its card, and which package it needs, in its files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformerModelCardData

GROUP = "llm-embeddings"
SETTINGS = "config_sentence_transformers.json"
DISTRIBUTION = "sentence-transformers-llm-embeddings"


class IdentifiedCard(SentenceTransformerModelCardData):
    """A card whose revision says what decides the vectors; it is computed when it is read.

    mteb stores results under the card's name and revision.
    """

    @property
    def base_model_revision(self) -> str:
        """32 hex digits over weights, tokenizer, recipe, prompts, limit and dimension."""
        model: Any = self.model
        module = model[0]
        facts = [
            [module._encoder.fingerprint(role) for role in ("query", "document")],
            [model.prompts, model.default_prompt_name, model.max_seq_length, model.truncate_dim],
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    @base_model_revision.setter
    def base_model_revision(self, value: str | None) -> None:
        self.__dict__["_hub_revision"] = value

    def to_dict(self) -> dict[str, Any]:
        """As it is written: the revision on the hub, not ours."""
        found = super().to_dict()
        found["base_model_revision"] = self.__dict__.get("_hub_revision")
        return found


def identify(model: Any) -> None:
    """Give a model a name, if it has none, and a revision."""
    card = model.model_card_data
    if type(card) is SentenceTransformerModelCardData:
        card.__dict__["_hub_revision"] = card.__dict__.pop("base_model_revision", None)
        card.__class__ = IdentifiedCard
    if card.model_name is None:
        name = model[0].recipe.name
        card.model_name = name if "/" in name else f"{GROUP}/{name}"


def require_package(directory: Path) -> None:
    """Make sentence-transformers name the missing package, with a pip line, before it loads."""
    path = directory / SETTINGS
    if not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    reason = "It defines the module of this model."
    config["requirements"] = {DISTRIBUTION: {"specifier": ">=0.1,<0.2", "reason": reason}}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
