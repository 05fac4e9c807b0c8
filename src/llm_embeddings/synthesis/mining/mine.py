"""Hard negatives from a corpus, for pairs of queries and positives.

A passage that scores nearly as high as the positive often answers the query too. Such false
negatives are left out if they score above a share of the positive's score (95 % in NV-Retriever,
arXiv 2407.15831, the best rule found there) or too near to it.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...faces import init_checked
from ...records.examples import Example, read_examples
from ...records.sources import Source, sources_of
from ..filters.consistency import embed_queries
from .candidates import Candidates, WatchMining, dense, lexical
from .pool import Pool, read_corpus
from .scores import teacher_scores

if TYPE_CHECKING:
    from ...encoder import Encoder

NegativeChoice = Literal["random", "hardest"]
TOO_GOOD, TOO_BAD = "too near the positive", "below the lowest score"
REPORT = "mining.json"


@init_checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Mining:
    """Which negatives are mined.

    Attributes:
        negatives: How many negatives a query gets, those it already has included.
        ranks: First and last rank of a negative among passages that are no positives; E5 takes its
            negatives from the first hundred.
        ratio: Highest score of a negative, as a share of the positive's; None = no such limit.
        margin: By how much a negative must score below the positive; None = no such limit.
        lowest: Lowest score of a negative; None = no such limit.
        choice: Which of the passages within these limits are taken: "random" ones or the "hardest".
        seed: Seed of the random choice.
    """

    negatives: int = 7
    ranks: tuple[int, int] = (1, 100)
    ratio: float | None = 0.95
    margin: float | None = None
    lowest: float | None = None
    choice: NegativeChoice = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one that cannot be.
        """
        first, last = self.ranks
        if self.negatives < 1:
            raise ValueError(f"negatives={self.negatives}: mine at least one")
        if not 1 <= first <= last:
            raise ValueError(f"ranks {first}-{last}: give the first and the last, from 1")
        if last - first + 1 < self.negatives:
            raise ValueError(
                f"ranks {first}-{last} are fewer than the {self.negatives} negatives asked for: "
                "widen them"
            )
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise ValueError(f"ratio={self.ratio} is not in (0, 1]: 0.95 is usual")
        if self.margin is not None and self.margin < 0:
            raise ValueError(f"margin={self.margin} must be 0 or more")
        if self.choice not in ("random", "hardest"):
            raise ValueError(f"choice={self.choice!r} is not random or hardest")


@dataclass(frozen=True, slots=True)
class Mined:
    """How mining went, in numbers.

    Attributes:
        queries: Rows read.
        passages: Different passages compared.
        full: Rows with as many negatives as asked for.
        short: Rows with fewer.
        dropped: Rows without any, which are not written.
        refused: Passages within the ranks that were left out, by reason.
        seconds: Seconds from the first file read to the last row chosen.
    """

    queries: int
    passages: int
    full: int
    short: int
    dropped: int
    refused: dict[str, int]
    seconds: float


def mine(
    data: Iterable[str | Path | Source],
    output: Path,
    encoder: Encoder | None,
    options: Mining | None = None,
    *,
    corpus: Sequence[Path] = (),
    scores: bool = False,
    keep: Callable[[Example], bool] = lambda example: True,
    watch: WatchMining = lambda what, done, total: None,
) -> Mined:
    """Write pairs with negatives, one file per source, for the contrastive stage.

    Args:
        data: What `records.sources.sources_of` takes: files of pairs, or of rows with too few
            negatives.
        output: A new or empty directory.
        encoder: Scores passages; None = BM25 does.
        options: Which negatives are mined.
        corpus: Files of passages, or directories in BEIR's form. The positives of all pairs are
            candidates too, and the only ones if there is no corpus.
        scores: Whether rows get the encoder's cosines, in `pos_scores` and `neg_scores`, from which
            another model learns (`Contrastive.distillation`).
        keep: Which rows are mined for, and written.
        watch: Told how far it is.

    Raises:
        OSError: a file is missing, or the output cannot be written.
        ValueError: rows that do not fit, an output that holds files, a corpus too small, or scores
            without an encoder.
    """
    if scores and encoder is None:
        raise ValueError("scores=True needs an encoder: BM25's scores are no teacher")
    started = time.monotonic()
    options = options or Mining()
    sources = sources_of(data)
    _check_output(sources, output)
    named = [(s.name, example) for s in sources for example in filter(keep, read_examples(s))]
    pairs = [example for _, example in named]
    if not pairs:
        raise ValueError(f"no pair of {', '.join(str(s.path) for s in sources)} is positive")
    pool = Pool()
    pool.add_all(read_corpus(corpus))
    positives = pool.add_positives(pairs)
    if len(pool.texts) <= options.negatives:
        raise ValueError(
            f"{len(pool.texts)} different passages cannot give {options.negatives} negatives to "
            "each query: name a larger corpus, or ask for fewer"
        )
    found = _candidates(pairs, pool, positives, encoder, options, watch)
    chosen, refused = _choose_all(pairs, pool, positives, found, options)
    sizes = Counter(min(len(negatives), options.negatives) for negatives in chosen)
    full, none = sizes[options.negatives], sizes[0]
    short, seconds = len(pairs) - full - none, time.monotonic() - started
    mined = Mined(len(pairs), len(pool.texts), full, short, none, refused, seconds)
    taught: Iterable[Any] = repeat(())
    if scores and encoder is not None:
        taught = teacher_scores(encoder, pairs, chosen)
    rows = [
        (name, pair, negatives, given)
        for (name, pair), negatives, given in zip(named, chosen, taught, strict=False)
    ]
    _write(output, rows, _about(mined, options, encoder))
    return mined


def _check_output(sources: Sequence[Source], output: Path) -> None:
    """Check that no file would be overwritten.

    Raises:
        ValueError: one would.
    """
    if len({source.name for source in sources}) < len(sources):
        raise ValueError("two data files have the same name, and so would their results: rename")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file: name a new or empty directory")
    if output.is_dir() and any(output.iterdir()):
        raise ValueError(f"{output} holds files: name a new or empty directory")


def _choose_all(
    pairs: Sequence[Example],
    pool: Pool,
    positives: Sequence[set[int]],
    found: Candidates,
    options: Mining,
) -> tuple[list[list[str]], dict[str, int]]:
    """The negatives of each pair, its own first, and how many passages were refused, by reason."""
    refused: Counter[str] = Counter()
    chosen = []
    for number, (pair, known) in enumerate(zip(pairs, positives, strict=True)):
        taken = _choose(number, pair, pool, known, found, options, refused)
        chosen.append(list(dict.fromkeys([*pair.negatives, *taken])))
    return chosen, dict(sorted(refused.items()))


def _candidates(
    examples: Sequence[Example],
    pool: Pool,
    positives: Sequence[set[int]],
    encoder: Encoder | None,
    options: Mining,
    watch: WatchMining,
) -> Candidates:
    """The best passages of each query, enough to leave `ranks` after its positives."""
    # The positives, and the query itself if it is a passage, take ranks that do not count.
    depth = options.ranks[1] + max(map(len, positives)) + 1
    own = [sorted(known) for known in positives]
    if encoder is None:
        return lexical([example.query for example in examples], pool.texts, own, depth, watch)
    queries = embed_queries(encoder, [(e.query, e.instruction) for e in examples])
    return dense(encoder, queries, pool.texts, own, depth, watch)


def _choose(
    number: int,
    example: Example,
    pool: Pool,
    positives: set[int],
    found: Candidates,
    options: Mining,
    refused: Counter[str],
) -> list[str]:
    """The negatives that query `number` still lacks; `positives` are places in the pool."""
    known = positives | {-1, pool.number(example.query), *map(pool.number, example.negatives)}
    ranked = [
        (int(place), float(score))
        for place, score in zip(found.places[number], found.scores[number], strict=True)
        if place not in known
    ]
    first, last = options.ranks
    highest = _highest(float(found.positive[number]), options)
    fitting = []
    for place, score in ranked[first - 1 : last]:
        if score > highest:
            refused[TOO_GOOD] += 1
        elif options.lowest is not None and score < options.lowest:
            refused[TOO_BAD] += 1
        else:
            fitting.append(pool.texts[place])
    wanted = max(0, options.negatives - len(example.negatives))
    if options.choice == "hardest" or len(fitting) <= wanted:
        return fitting[:wanted]
    return random.Random(f"mine {options.seed} {number}").sample(fitting, wanted)


def _highest(positive: float, options: Mining) -> float:
    """The highest score that a negative may have, by the positive's score."""
    highest = float("inf")
    if options.ratio is not None:
        highest = positive - (1 - options.ratio) * abs(positive)
    if options.margin is not None:
        highest = min(highest, positive - options.margin)
    return highest


def _line(example: Example, negatives: list[str], scores: Sequence[list[float]]) -> str:
    """A row as a line of training data; a document's instruction stands beside its text."""
    inner = example.document_instruction

    def passages(texts: Iterable[str]) -> list[Any]:
        return [[inner, text] if inner else text for text in texts]

    row = {
        "instruction": example.instruction,
        "query": example.query,
        "positive": passages(example.positives),
        "negative": passages(negatives),
        "source": example.source,
    }
    given = {name: value for name, value in row.items() if value is not None}
    given |= dict(zip(("pos_scores", "neg_scores"), scores, strict=False))
    return json.dumps(given, ensure_ascii=False) + "\n"


def _about(mined: Mined, options: Mining, encoder: Encoder | None) -> dict[str, Any]:
    """The content of mining.json: what scored, the options and the numbers."""
    scorer = "BM25" if encoder is None else f"{encoder.recipe.name} {encoder.fingerprint()}"
    return {"scorer": scorer, "options": asdict(options), "result": asdict(mined)}


def _write(
    output: Path, rows: Iterable[tuple[str, Example, list[str], Any]], about: Mapping[str, Any]
) -> None:
    """Write rows that have negatives, one file per source, and mining.json."""
    lines: dict[str, list[str]] = {}
    for name, example, negatives, scores in rows:
        if negatives:
            lines.setdefault(name, []).append(_line(example, negatives, scores))
    output.mkdir(parents=True, exist_ok=True)
    for name, found in lines.items():
        (output / f"{name}.jsonl").write_text("".join(found), encoding="utf-8")
    (output / REPORT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
