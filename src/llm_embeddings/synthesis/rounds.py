"""Mine, train, mine again with what was trained: rounds, and what each of them brought.

A model finds better negatives the better it is (ANCE, Xiong et al. 2020, arXiv 2007.00808). Each
round mines for the rows of the data with the model of the round before, and trains that model on.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..encoder import Encoder
from ..faces import init_checked
from ..recipe import Role
from ..records.examples import read_examples
from ..records.sources import Source, sources_of
from ..storage.files import write_whole
from ..training.batches.survey import sha256_of
from ..training.contrastive import PRESETS, Contrastive, train_contrastive
from ..training.held_out import HeldOut, compared
from ..training.options import check_option
from ..training.run.checkpoints import FREE, check_output, differing
from ..vectors import Vectors
from .mining.mine import REPORT, Mining, mine

__all__ = ["PRESETS", "Rounds", "summary", "train_rounds"]

PLAN = "rounds.json"
SCORES = "scores.json"
_MODEL, _MINED = "model", "mined"


def train_rounds(options: Rounds) -> Path:
    """Mine and train, round after round.

    In `options.output` each round has a folder with its `mined` rows, its `model` and its
    `scores.json`. With `options.resume` what is finished is kept.

    Returns:
        The folder of the last round's model.

    Raises:
        FileNotFoundError: the model or a data file is missing.
        TrainingError: training had to stop.
        ValueError: data, model or options that do not fit.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "rounds run in one process: with more, give `mine` and `train contrastive` by turns"
        )
    sources = [
        source
        if source.instruction is not None
        else dataclasses.replace(source, instruction=options.instruction)
        for source in sources_of(options.data)
    ]
    _begin(options, sources)
    held = HeldOut(
        options.held_out,
        sources,
        read_examples,
        seed=options.seed,
        instruction=options.instruction,
    )
    model: str | Path = options.model
    for number in range(options.rounds + 1):
        folder, following = (_round(options.output, n) for n in (number, number + 1))
        if number:
            model = _train(options, sources, model, number)
        scores = folder / SCORES
        mined = following / _MINED
        mines = number < options.rounds and not (mined / REPORT).is_file()
        if not mines and scores.is_file():
            continue
        encoder = Encoder.from_pretrained(str(model), recipe=None if number else options.recipe)
        if not scores.is_file():
            folder.mkdir(exist_ok=True)
            _write(scores, held.scores(_encode(encoder)))
        if mines:
            _mine(options, sources, held, encoder, number + 1)
    return Path(model)


def summary(result: Path) -> str:
    """What the rounds brought, a line each; the gain is over the model that the first began with.

    Args:
        result: What `train_rounds` returned.
    """
    output = result.parent.parent
    plan = json.loads((output / PLAN).read_bytes())["options"]
    before, *after = (
        json.loads((_round(output, number) / SCORES).read_bytes())
        for number in range(plan["rounds"] + 1)
    )
    first = compared(None, before)["after"]
    lines = [f"{first.count:,} held-out queries: nDCG@10 {first} before"]
    for number, values in enumerate(after, 1):
        found = compared(before, values)
        gain = found["gain"]
        lines.append(
            f"round {number}: nDCG@10 {found['after']}, "
            f"a gain of {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
        )
    return "\n".join(lines)


@init_checked
@dataclass(frozen=True, kw_only=True)
class Rounds(Contrastive):
    """Mine hard negatives and train on them, in rounds, each with the model of the one before.

    The options of training are those of each round.
    """

    rounds: int = field(default=2, metadata={"help": "how often to mine and train"})
    corpus: tuple[str, ...] = field(
        default=(),
        metadata={"help": "files of passages to mine in, beside the positives of the data"},
    )
    mined: int = field(default=7, metadata={"help": "negatives mined for each query"})
    ranks: tuple[int, int] = field(
        default=(1, 100), metadata={"help": "first and last rank of a negative"}
    )
    ratio: float | None = field(
        default=0.95, metadata={"help": "highest score of a negative, as a share of the positive's"}
    )
    hardest: bool = field(
        default=False, metadata={"help": "mine the hardest that fit, instead of random ones"}
    )
    bm25_first: bool = field(
        default=False, metadata={"help": "mine by shared words in the first round"}
    )
    held_out: float = field(
        default=0.05, metadata={"help": "share of queries kept to be scored after each round"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("corpus", "ranks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_option("rounds", self.rounds, self.rounds >= 1, "must be 1 or more")
        check_option("held_out", self.held_out, self.held_out > 0, "leaves nothing to report")
        check_option("ranks", self.ranks, len(self.ranks) == 2, "are not a first and a last one")
        wanted = 1 <= self.negatives <= self.mined
        check_option("negatives", self.negatives, wanted, f"must be 1 to mined={self.mined}")
        alone = self.distillation is None
        check_option("distillation", self.distillation, alone, "has no teacher in rounds: drop it")
        self.mining(0)

    def mining(self, number: int) -> Mining:
        """What is mined before round `number`."""
        return Mining(
            negatives=self.mined,
            ranks=self.ranks,
            ratio=self.ratio,
            choice="hardest" if self.hardest else "random",
            seed=self.seed + number,
        )


def _begin(options: Rounds, sources: Sequence[Source]) -> None:
    """Write what is to be done, or check that it is what was begun.

    Raises:
        ValueError: the output is not empty, or holds rounds of other options or other data.
    """
    output, plan = options.output, options.output / PLAN
    data = [[source.path.name, sha256_of(source.path)] for source in sources]
    values = json.loads(json.dumps({"options": options.to_dict(), "data": data}))
    if not plan.is_file():
        check_output(output, {}, resume=False)
        output.mkdir(parents=True, exist_ok=True)
    elif not options.resume:
        raise ValueError(
            f"output={str(output)!r} holds rounds: go on with resume=True, or name another folder"
        )
    else:
        before = json.loads(plan.read_bytes())
        other = differing(before["options"], values["options"], FREE | {"rounds"})
        if before["data"] != values["data"]:
            other.append("the data files are others")
        if other:
            raise ValueError(
                f"cannot resume the rounds in {output}: {'; '.join(other)}. Resume with "
                "what they were started with, or start anew in another folder"
            )
    _write(plan, values)


def _train(options: Rounds, sources: Sequence[Source], model: str | Path, number: int) -> Path:
    """Train a round, if it was not, and return its model."""
    folder = _round(options.output, number)
    result = folder / _MODEL
    if (result / "llm_embeddings.json").is_file():
        return result
    mined = [
        Source(path, source.weight)
        for source in sources
        if (path := folder / _MINED / f"{source.name}.jsonl").is_file()
    ]
    if not mined:
        raise ValueError(
            f"round {number} found no negative for any query: widen ranks, or raise ratio "
            f"(see {folder / _MINED / REPORT})"
        )
    values = {
        item.name: getattr(options, item.name)
        for item in dataclasses.fields(Contrastive)
        if item.name not in ("model", "output", "data", "held_out", "seed", "recipe")
    }
    return train_contrastive(
        Contrastive(
            **values,
            model=str(model),
            output=result,
            data=tuple(mined),
            seed=options.seed + number - 1,
            recipe=options.recipe if number == 1 else None,
        )
    )


def _mine(
    options: Rounds,
    sources: Sequence[Source],
    held: HeldOut,
    encoder: Encoder,
    number: int,
) -> None:
    """Mine for the queries that are not held out; again, if it was interrupted."""
    mined = _round(options.output, number) / _MINED
    shutil.rmtree(mined, ignore_errors=True)
    mine(
        sources,
        mined,
        None if number == 1 and options.bm25_first else encoder,
        options.mining(number),
        corpus=[Path(path) for path in options.corpus],
        keep=lambda example: example not in held,
    )


def _encode(encoder: Encoder) -> Any:
    """Vectors as `HeldOut` asks for them."""

    def encode(texts: list[str], role: Role, instruction: str | None) -> Vectors:
        found: Vectors = encoder.encode(texts, role, instruction)
        return found

    return encode


def _round(output: Path, number: int) -> Path:
    """The folder of a round; of number 0 that of the model as it came."""
    return output / f"round-{number}"


def _write(path: Path, values: object) -> None:
    """Write JSON that is whole or not there."""
    write_whole(path, json.dumps(values, indent=1).encode() + b"\n")
