"""The user's own sets, one after the other, by the rules of the encoder's family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..encoder import Encoder
from ..recipe import Role
from .measures import CUTS, Encode, measure
from .rules import Prompts, prompts_of
from .scores import Bootstrap, Floats, Score
from .sets import AnySet, Clustering, Pairs, Retrieval, read_sets


def evaluate(
    model: Encoder | Encode,
    paths: Sequence[str | Path],
    *,
    instructions: Mapping[str, str] | None = None,
    cuts: Sequence[tuple[str, int]] = CUTS,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Score]:
    """Every metric of every set, as "<set>/<metric>".

    Args:
        model: An encoder, which is asked as its family's own evaluation asks (`rules_of`); or any
            callable that makes vectors `[n, dimension]` of texts and their role ("query" or
            "document").
        paths: Sets, as `read_set` takes them.
        instructions: Of an encoder's tasks, by the set's name or MTEB's type of task; "" = none.
        cuts: Which of "ndcg", "recall" and "mrr" at which rank.
        resamples: How many for the confidence intervals.
        seed: Of the resamples.

    Raises:
        OSError: a file is missing.
        ValueError: a file that does not fit; the message names it and the line.
        ImportError: scikit-learn is needed and not installed.
    """
    scores: dict[str, Score] = {}
    for data in read_sets(paths):
        if isinstance(model, Encoder):
            encode = encode_by(model, prompts_for(model, data, instructions))
        else:
            encode = model
        found = measure(encode, data, cuts=cuts, bootstrap=Bootstrap(resamples, seed))
        scores |= {f"{data.name}/{metric}": score for metric, score in found.items()}
    return scores


def kind_of(data: AnySet) -> str:
    """MTEB's type of the task that a set is."""
    if isinstance(data, Retrieval):
        return "Retrieval"
    if isinstance(data, Pairs):
        return "STS"
    return "Clustering" if isinstance(data, Clustering) else "Classification"


def prompts_for(
    encoder: Encoder, data: AnySet, instructions: Mapping[str, str] | None = None
) -> Prompts:
    """How an encoder embeds a set.

    Warns:
        InstructionWarning: there is no instruction for a set of this kind; see `prompts_of`.
    """
    return prompts_of(encoder.recipe, kind_of(data), data.name, instructions=instructions)


def encode_by(
    encoder: Encoder,
    prompts: Prompts,
    *,
    max_length: int | None = None,
    show_progress: bool = False,
) -> Encode:
    """The encoder as a function of texts and their role in a task.

    Args:
        encoder: Makes the vectors.
        prompts: Of the task.
        max_length: Limit in tokens; None = the recipe's.
        show_progress: Show a progress bar for each call.
    """

    def encode(texts: list[str], role: Role) -> Floats:
        side = prompts.query if role == "query" else prompts.document
        found: Floats = encoder.encode(
            texts,
            side.role,
            side.instruction,
            normalize=prompts.normalize,
            max_length=max_length,
            show_progress=show_progress,
        )
        return found

    return encode
