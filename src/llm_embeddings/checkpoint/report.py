"""What transformers says of weights that it has loaded, judged: it only warns."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NEVER_RUN = ("pooler.", "contact_head.")  # give another output than the hidden states
_HEADS = ("cls", "lm_head", "classifier", "score", "qa_outputs", "generator_predictions")
# Tables that older versions of transformers saved beside the weights.
_BUFFERS = ("position_ids", "inv_freq", "masked_bias", "attn.bias", "attention.bias")


@contextmanager
def without_load_report() -> Iterator[None]:
    """No table of head weights that are not needed; `check_report` judges instead."""

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def check_report(report: Mapping[str, Any], backbone: PreTrainedModel, directory: Path) -> None:
    """Raise where transformers fills in random numbers and only warns."""
    for problem in ("missing_keys", "mismatched_keys"):
        keys = [key for key in map(str, report[problem]) if not key.startswith(_NEVER_RUN)]
        if keys:
            names = ", ".join(sorted(keys)[:3])
            raise ValueError(
                f"{directory}: {len(keys)} weights of {type(backbone).__name__} are "
                f"{problem.removesuffix('_keys')} ({names}, ...): the checkpoint is incomplete or "
                "of another architecture"
            )
    parts = {name for name, _ in backbone.named_children()}
    lost = [key for key in map(str, report["unexpected_keys"]) if _belongs_inside(key, parts)]
    if lost:
        names = ", ".join(sorted(lost)[:3])
        raise ValueError(
            f"{directory}: {len(lost)} weights have no place in {type(backbone).__name__} as its "
            f"config.json describes it ({names}, ...): without them its vectors would be others. "
            "Mend the config, or merge what was trained (LoRA) before saving"
        )


def _belongs_inside(key: str, parts: set[str]) -> bool:
    """Whether a weight that the model does not know lies among its layers, unlike a head."""
    names = key.split(".")
    inside = any(name in parts for name in names[:2]) and names[0] not in _HEADS
    return inside and not key.endswith(_BUFFERS) and not key.startswith(_NEVER_RUN)
