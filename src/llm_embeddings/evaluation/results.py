"""Scores of one's own sets, set by set, in a file that a second run takes them from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage.blocks import changed_values, seal_values
from ..storage.files import locked, write_whole
from .measures import CUTS, Scores, bm25, measure
from .own import encode_by, kind_of, prompts_for
from .rules import Prompts
from .scores import Bootstrap, Score
from .sets import AnySet, Retrieval

if TYPE_CHECKING:
    from ..encoder import Encoder

FILE = "scores.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What was found on one set.

    Attributes:
        name: The set's.
        kind: MTEB's type of the task that it is.
        model: Name of the recipe.
        instruction: Of texts that ask, or of all texts; "" = none.
        scores: By metric.
        bm25: Those of BM25 on the same retrieval set.
        key: Hash of everything that decides the scores.
    """

    name: str
    kind: str
    model: str
    instruction: str
    scores: Scores
    bm25: Scores | None
    key: str

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Result:
        """Read what `dataclasses.asdict` made."""
        fields = {name: value for name, value in values.items() if name != "seal"}
        for field in ("scores", "bm25"):
            if fields[field] is not None:
                fields[field] = {name: Score(**score) for name, score in fields[field].items()}
        return cls(**fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How sets are measured.

    Attributes:
        instructions: By set or type of task, instead of the published ones.
        cuts: Metrics of retrieval and their ranks.
        resamples: Number of resamples for confidence intervals.
        seed: Seed of the resamples.
        bm25: Measure BM25 on retrieval sets, too.
        max_length: Limit in tokens; None = the recipe's.
        show_progress: Show progress bars while texts are embedded.
    """

    instructions: Mapping[str, str] | None = None
    cuts: Sequence[tuple[str, int]] = CUTS
    resamples: int = 1000
    seed: int = 0
    bm25: bool = True
    max_length: int | None = None
    show_progress: bool = False


def measured(
    encoder: Encoder, sets: Sequence[AnySet], options: Options, *, output: Path | None = None
) -> Iterator[Result]:
    """Measure sets one by one; what `output` has of the same model, files and options is kept.

    Args:
        encoder: Makes the vectors.
        sets: From `read_sets`.
        options: How.
        output: Directory of `scores.json`, which is whole after each set; None = no file.

    Raises:
        ImportError: bm25s or scikit-learn is needed and not installed.
        ValueError: `scores.json` is damaged, or another process writes it.
    """
    if output is None:
        for data in sets:
            yield _measure(encoder, data, options, prompts_for(encoder, data, options.instructions))
        return
    output.mkdir(parents=True, exist_ok=True)
    with locked(output / FILE, output):
        known = read_results(output)
        for data in sets:
            prompts = prompts_for(encoder, data, options.instructions)
            key = _key(encoder, data, options, prompts)
            if key not in known:
                known[key] = _measure(encoder, data, options, prompts)
                _write(output / FILE, list(known.values()))
            yield known[key]


def read_results(output: Path) -> dict[str, Result]:
    """The results in a directory, by key; none if there is no file.

    Results that are not as they were written are left out, so that they are measured again.

    Raises:
        ValueError: the file is damaged.
    """
    path = output / FILE
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_bytes())
        whole = [each for each in values["results"] if not changed_values(each)]
        results = [Result.from_dict(each) for each in whole]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a file of scores ({error}): move it away, or give another --output"
        ) from error
    return {result.key: result for result in results}


def _measure(encoder: Encoder, data: AnySet, options: Options, prompts: Prompts) -> Result:
    bootstrap = Bootstrap(options.resamples, options.seed)
    lexical = None
    if options.bm25 and isinstance(data, Retrieval):
        lexical = bm25(data, cuts=options.cuts, bootstrap=bootstrap)
    encode = encode_by(
        encoder, prompts, max_length=options.max_length, show_progress=options.show_progress
    )
    scores = measure(encode, data, cuts=options.cuts, bootstrap=bootstrap)
    return Result(
        data.name,
        kind_of(data),
        encoder.recipe.name,
        prompts.query.instruction,
        scores,
        lexical,
        _key(encoder, data, options, prompts),
    )


def _key(encoder: Encoder, data: AnySet, options: Options, prompts: Prompts) -> str:
    from .. import __version__

    decides = asdict(options)
    del decides["show_progress"], decides["instructions"]
    whole = [
        __version__,
        encoder.fingerprint("query"),
        encoder.fingerprint("document"),
        data.name,
        data.digest,
        asdict(prompts),
        decides,
    ]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def _write(path: Path, results: Sequence[Result]) -> None:
    sealed = [seal_values(json.loads(json.dumps(asdict(each)))) for each in results]
    text = json.dumps({"format": _FORMAT, "results": sealed}, indent=1)
    write_whole(path, text.encode() + b"\n")
