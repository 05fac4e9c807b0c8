"""A short name for everything that decides a vector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch

from ..model import Model

_SAMPLES = 256
_TEMPLATES = ("query", "document", "prompts")


class Fingerprints:
    """Fingerprints of a model; weights and tokenizer are read again only when they change."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._known: tuple[tuple[Any, ...], str] | None = None

    def of(self, model: Model, role: str, instruction: str | None) -> str:
        """32 hex digits over weights, tokenizer, recipe, role and instruction."""
        recipe = model.recipe
        prefix, suffix = recipe.prefix(role, instruction), recipe.template(role).suffix
        facts = recipe.replace(name="", source="", base=None, instruction="").to_dict()
        facts = {key: value for key, value in facts.items() if key not in _TEMPLATES}
        if not recipe.heads:
            del facts["heads"]
        if recipe.window == ("keep" if recipe.causal else "drop"):
            del facts["window"]  # names given before there was the field stay valid
        parts = [facts, prefix, suffix, self._parts(model)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def _parts(self, model: Model) -> str:
        version = model.version()
        state = (id(model.backbone), version, id(model.tokenizer), len(model.tokenizer))
        if version is None or self._known is None or self._known[0] != state:
            self._known = (state, _digest(model))
        return self._known[1]


def _digest(model: Model) -> str:
    """Of each weight tensor 256 evenly spaced values are read: any training moves some of them."""
    digest = hashlib.sha256()
    digest.update(model.tokenizer.backend_tokenizer.to_str().encode("utf-8", "surrogatepass"))
    head = () if model.head is None else model.head.named_parameters(prefix="head")
    for name, weight in _plain_weights(chain(model.backbone.named_parameters(), head)):
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        if weight.device.type != "meta":
            flat = weight.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // _SAMPLES)][:_SAMPLES]
            digest.update(sample.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain_weights(weights: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and weights; a quantised tensor comes as the tensors it is made of."""
    for name, weight in weights:
        if hasattr(weight, "__tensor_flatten__"):
            parts = weight.__tensor_flatten__()[0]
            yield from _plain_weights((f"{name}.{part}", getattr(weight, part)) for part in parts)
        else:
            yield name, weight
