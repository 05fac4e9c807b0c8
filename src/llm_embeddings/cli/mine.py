"""`llm-embeddings mine`: hard negatives for pairs, from a corpus."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..checkpoint.options import LoadOptions
from ..storage.progress import bar
from .console import ModelOption, load_encoder, remarks
from .loading import named, with_load_options

if TYPE_CHECKING:
    from rich.console import Console

    from ..synthesis.mining.mine import Mined

_WHICH = "Which negatives"

_Data = Annotated[
    list[str],
    typer.Argument(help="Pairs or triplets: files or directories, as `train contrastive` reads."),
]
_Output = Annotated[
    Path, typer.Option("--output", "-o", help="New or empty directory for the result.")
]
_Corpus = Annotated[
    list[Path] | None,
    typer.Option(
        help="Passages: .jsonl, .txt, .parquet, or a directory in BEIR's form; with the positives "
        "of the data, and only those if left out. Repeatable."
    ),
]
_Bm25 = Annotated[bool, typer.Option("--bm25", help="Score by shared words, without a model.")]
_Negatives = Annotated[
    int,
    typer.Option(
        "--negatives",
        "-n",
        min=1,
        help="Per query, with those it has.",
        rich_help_panel=_WHICH,
    ),
]
_Ranks = Annotated[
    str,
    typer.Option(
        metavar="FIRST-LAST",
        help="Among passages that are no positives of the query.",
        rich_help_panel=_WHICH,
    ),
]
_Ratio = Annotated[
    float,
    typer.Option(
        help="Score at most this share of the positive's; 0 = no such limit.",
        rich_help_panel=_WHICH,
    ),
]
_Margin = Annotated[
    float | None,
    typer.Option(help="Score so much below the positive at least.", rich_help_panel=_WHICH),
]
_Lowest = Annotated[
    float | None, typer.Option(help="Score at least this much.", rich_help_panel=_WHICH)
]
_Choice = Annotated[
    Literal["random", "hardest"],
    typer.Option("--choice", help="Of those that fit.", rich_help_panel=_WHICH),
]
_Scores = Annotated[
    bool,
    typer.Option(
        "--scores", help="Also write the model's scores, for `train contrastive --distillation`."
    ),
]
_Seed = Annotated[int, typer.Option(help="Of the random choice.", rich_help_panel=_WHICH)]


@with_load_options()
def mine_command(
    data: _Data,
    output: _Output,
    corpus: _Corpus = None,
    model: ModelOption = None,
    bm25: _Bm25 = False,
    negatives: _Negatives = 7,
    ranks: _Ranks = "1-100",
    ratio: _Ratio = 0.95,
    margin: _Margin = None,
    lowest: _Lowest = None,
    choice: _Choice = "random",
    seed: _Seed = 0,
    scores: _Scores = False,
    *,
    load: LoadOptions,
) -> None:
    """Give pairs hard negatives: passages that score high for the query and are no positives.

    Example: llm-embeddings mine run/train -o mined --corpus passages.jsonl
    """
    from ..synthesis.mining.mine import REPORT, Mining, mine

    needless = [*(["--model"] if model else []), *named(load)]
    if bm25 and needless:
        raise typer.BadParameter(f"--bm25 scores without a model: drop {', '.join(needless)}")
    if bm25 and scores:
        raise typer.BadParameter("--scores are those of a model: drop --bm25")
    options = Mining(
        negatives=negatives,
        ranks=_ranks(ranks),
        ratio=ratio or None,
        margin=margin,
        lowest=lowest,
        choice=choice,
        seed=seed,
    )
    told = remarks()
    encoder = None if bm25 else load_encoder(model, load)
    with bar(told) as progress:
        task = progress.add_task("reading", total=None)

        def watch(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        mined = mine(
            data, output, encoder, options, corpus=corpus or (), scores=scores, watch=watch
        )
    _tell(mined, negatives, told)
    told.print(f"{output} is for `train contrastive`, {output / REPORT} says how", markup=False)


def _tell(mined: Mined, negatives: int, told: Console) -> None:
    short = f", {mined.short:,} have fewer" if mined.short else ""
    dropped = f", {mined.dropped:,} have none and are left out" if mined.dropped else ""
    told.print(
        f"{mined.queries:,} queries over {mined.passages:,} passages in {mined.seconds:,.0f} s: "
        f"{mined.full:,} have {negatives}{short}{dropped}"
    )
    for reason, count in mined.refused.items():
        told.print(f"{count:,} passages left out: {reason}")


def _ranks(text: str) -> tuple[int, int]:
    """The first and last rank of "FIRST-LAST"."""
    match = re.fullmatch(r"(\d+)-(\d+)", text)
    if match is None:
        raise typer.BadParameter(f"--ranks {text}: write FIRST-LAST, such as 10-100")
    return int(match[1]), int(match[2])
