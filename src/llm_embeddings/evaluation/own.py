"""Evaluation on sets of one's own, embedded as the authors of the encoder's family do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..encoder import Encoder
from ..inputs import names_checked
from ..recipe import Role
from .measures import CUTS, Encode, measure
from .rules import Prompts, prompts_of
from .scores import Bootstrap, Floats, Score
from .sets import AnySet, Clustering, Pairs, Retrieval, read_sets


@names_checked
def evaluate(
    model: Encoder | Encode,
    paths: Sequence[str | Path],
    *,
    instructions: Mapping[str, str] | None = None,
    cuts: Sequence[tuple[str, int]] = CUTS,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Score]:
    """Measure a model on files of one's own.

    Args:
        model: An encoder, which embeds as its family's published evaluation does (`rules_of`); or a
            callable that makes vectors `[n, dim]` of texts and their role, "query" or "document".
        paths: Sets, as `read_set` takes them.
        instructions: Instructions for an encoder, by the set's name or MTEB's type of task; "" =
            none.
        cuts: "ndcg", "recall" or "mrr" and the rank at which it is cut, each.
        resamples: Resamples for the confidence intervals; 0 = no intervals.
        seed: Seed of the resamples.

    Returns:
        Every metric of every set, as "<set>/<metric>".

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
    """MTEB's name for the type of task that a set is."""
    if isinstance(data, Retrieval):
        return "Retrieval"
    if isinstance(data, Pairs):
        return "STS"
    return "Clustering" if isinstance(data, Clustering) else "Classification"


def prompts_for(
    encoder: Encoder, data: AnySet, instructions: Mapping[str, str] | None = None
) -> Prompts:
    """Roles and instructions with which an encoder embeds a set; see `prompts_of`.

    Warns:
        InstructionWarning: no instruction is given or published for the set.
    """
    return prompts_of(encoder.recipe, kind_of(data), data.name, instructions=instructions)


def encode_by(
    encoder: Encoder,
    prompts: Prompts,
    *,
    max_length: int | None = None,
    show_progress: bool = False,
) -> Encode:
    """An encoder as a function of texts and their role in a task, as `measure` takes it.

    Args:
        encoder: Makes the vectors.
        prompts: Roles and instructions of the task.
        max_length: Most tokens of a text; None = the recipe's limit.
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
