"""The modules that run passes around a backbone's weights, made anew when these change."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..arithmetic.prepacking import prepack, through_onednn
from ..arithmetic.stored import is_stored, use_one_room, widen
from ..model import Model
from .choice import choose_kernel, trims
from .last_layer import trimmed
from .shallow import shallow
from .twin import enable, twin_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Trees:
    """Modules around the weights as they were at one version of the model.

    Attributes:
        version: Version of the model they were made from; None = its changes are not counted.
        whole: Gives the states of all tokens.
        trimmed: Gives those of the last tokens of each text alone; None where it cannot.
        layers: Linear layers whose weights may be laid out once and for all.
        converts: Whether every pass converts the weights of these, until that is done.
    """

    version: int | None
    whole: PreTrainedModel
    trimmed: PreTrainedModel | None
    layers: tuple[nn.Linear, ...]
    converts: bool


class Served:
    """A model's trees, always those of its present weights.

    Attributes:
        trees: The trees that were made last.
        kernel: What computes attention over packs; None = rows must be padded.
        packing: How texts share a pass, in words.
        copied: Bytes of weights that are held a second time, in another layout.
    """

    def __init__(self, model: Model) -> None:
        """Find out, on a few layers, what the backbone can do."""
        self._model, self._lock = model, threading.Lock()
        few = shallow(model.backbone)
        twin = twin_of(few)
        self.kernel, self.packing = choose_kernel(twin, model.recipe, few)
        self._trims = self.kernel is not None and trims(twin, model.recipe, self.kernel)
        if self.kernel is None:
            model.converted()  # padded passes run the backbone itself
        use_one_room(model.backbone)
        self.copied = 0
        self.trees = self._made(model.version())

    def renew(self, version: int | None) -> Trees:
        """Trees of another version of the model."""
        with self._lock:
            if self.trees.version != version:
                self.trees = self._made(version)
            return self.trees

    def lay_out(self) -> None:
        """Copy weights into the layout they are multiplied in, if there is the memory."""
        with self._lock:
            if not self.copied:
                self.copied = prepack(self.trees.layers)

    def _made(self, version: int | None) -> Trees:
        """Trees of the present weights."""
        backbone, stored = self._model.backbone, is_stored(self._model.backbone)
        whole = twin_of(backbone)
        widen(whole)
        own = self.kernel is not None and version is not None and whole is not backbone
        layers = tuple(through_onednn(whole)) if own else ()
        self.copied = 0
        if self.kernel is not None:
            enable(whole)
        return Trees(version, whole, trimmed(whole) if self._trims else None, layers, stored)


def tokens_per_pass(backbone: PreTrainedModel) -> int:
    """How many tokens one pass should have.

    Throughput on CPUs is flat from 512 to 4096. A GPU wants as many as half its free memory holds,
    counted as 16 hidden and 4 feed-forward activations per token, and gains nothing over 32768.
    """
    import torch

    device = backbone.device
    config: Any = backbone.config
    if device.type == "cpu":
        return 2048
    if device.type != "cuda":
        return 8192
    wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    per_token = (16 * config.hidden_size + 4 * wide) * backbone.dtype.itemsize
    free, _ = torch.cuda.mem_get_info(device)
    return max(1024, min(32768, int(free) // 2 // int(per_token)))


def alone_above(backbone: PreTrainedModel) -> int | None:
    """Tokens above which rotary frequencies depend on the longest row of the pass; None = never.

    transformers' "dynamic" and "longrope" positions do: such a row must not change others.
    """
    config: Any = backbone.config
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    limits: list[int] = [
        part.get("original_max_position_embeddings") or config.max_position_embeddings
        for part in [rope, *nested]
        if part.get("rope_type") in ("dynamic", "longrope")
    ]
    return min(limits, default=None)
