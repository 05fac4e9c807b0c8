"""Training: each stage takes one model to the next (extra `train`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..faces import lazy

if TYPE_CHECKING:
    from .contrastive import Contrastive, train_contrastive
    from .distill import Distill, train_distill
    from .grit import GRIT, train_grit
    from .llara import LLaRA, train_llara
    from .mntp import MNTP, train_mntp
    from .options import LoraOptions
    from .simcse import SimCSE, train_simcse

__all__ = [
    "GRIT",
    "MNTP",
    "Contrastive",
    "Distill",
    "LLaRA",
    "LoraOptions",
    "SimCSE",
    "train_contrastive",
    "train_distill",
    "train_grit",
    "train_llara",
    "train_mntp",
    "train_simcse",
]

_HOMES = {
    "MNTP": "mntp",
    "train_mntp": "mntp",
    "SimCSE": "simcse",
    "train_simcse": "simcse",
    "Contrastive": "contrastive",
    "train_contrastive": "contrastive",
    "Distill": "distill",
    "train_distill": "distill",
    "LLaRA": "llara",
    "train_llara": "llara",
    "GRIT": "grit",
    "train_grit": "grit",
    "LoraOptions": "options",
}
__getattr__ = lazy(__name__, _HOMES, extra="train")
