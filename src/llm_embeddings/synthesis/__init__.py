"""Training data made by a language model and filtered, and hard negatives from a corpus.

`generate` lets a model write the examples of a run, `rows_of` reads them, `apply_filters` keeps the
good ones, `write_rows` saves them for training; `mine` adds hard negatives to any training
data, and `train_rounds` mines and trains by turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..faces import lazy

if TYPE_CHECKING:
    from .calls.generators import Prompt, Reply
    from .filters.chain import Filters, apply_filters
    from .mining.mine import Mining, mine
    from .placeholders import Sampler
    from .rounds import Rounds, train_rounds
    from .rows import SyntheticRow, rows_of, write_rows
    from .run import Plan, Summary, generate

__all__ = [
    "Filters",
    "Mining",
    "Plan",
    "Prompt",
    "Reply",
    "Rounds",
    "Sampler",
    "Summary",
    "SyntheticRow",
    "apply_filters",
    "generate",
    "mine",
    "rows_of",
    "train_rounds",
    "write_rows",
]

_HOMES = {
    "Plan": "run",
    "Summary": "run",
    "generate": "run",
    "SyntheticRow": "rows",
    "rows_of": "rows",
    "write_rows": "rows",
    "Filters": "filters.chain",
    "apply_filters": "filters.chain",
    "Mining": "mining.mine",
    "mine": "mining.mine",
    "Rounds": "rounds",
    "train_rounds": "rounds",
    "Prompt": "calls.generators",
    "Reply": "calls.generators",
    "Sampler": "placeholders",
}
__getattr__ = lazy(__name__, _HOMES, extra="synth")
