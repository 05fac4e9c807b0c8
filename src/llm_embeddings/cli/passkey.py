"""`llm-embeddings passkey`: how long a document may be for one sentence in it to be found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..checkpoint.options import LoadOptions
from ..storage.progress import bar
from .console import ModelArgument, load_encoder, remarks
from .loading import with_load_options
from .tables import show_lengths

_Lengths = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        help="Tokens in a document; 256 to 32768, as far as the model reads, if left out.",
    ),
]
_Documents = Annotated[int, typer.Option(min=1, help="To choose from.")]
_Queries = Annotated[int, typer.Option(min=1, help="Of each length.")]
_Instruction = Annotated[
    str | None, typer.Option(help="Of the queries; the model's own if left out.")
]
_Seed = Annotated[int, typer.Option(help="Of names, keys and places.")]
_Plot = Annotated[Path | None, typer.Option(help="Picture: .png, .svg, .pdf.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")]


@with_load_options()
def passkey_command(
    model: ModelArgument = None,
    lengths: _Lengths = None,
    documents: _Documents = 100,
    queries: _Queries = 50,
    instruction: _Instruction = None,
    seed: _Seed = 0,
    plot: _Plot = None,
    as_json: _Json = False,
    *,
    load: LoadOptions,
) -> None:
    """Find the document with one person's pass key, among documents that get longer.

    Each document repeats the same five sentences and says in one place what one person's pass key
    is, as in the E5-Mistral paper. A query asks for one of them.

    Example: llm-embeddings passkey --lengths 128,256,512 --plot passkey.png
    """
    from ..evaluation.passkey import passkey

    wanted = None if lengths is None else _lengths(lengths)
    encoder = load_encoder(model, load)
    with bar(remarks()) as progress:
        task = progress.add_task("", total=documents)

        def watch(length: int, done: int, total: int) -> None:
            progress.update(task, description=f"{length:,} tokens", completed=done, total=total)

        found = passkey(
            encoder,
            wanted,
            instruction=instruction,
            documents=documents,
            queries=queries,
            seed=seed,
            watch=watch,
        )
    show_lengths(found, as_json=as_json)
    if plot is not None:
        from ..evaluation.plots import plot_passkey

        plot_passkey(found, plot)
        remarks().print(f"{plot}: the plot", markup=False)


def _lengths(text: str) -> list[int]:
    """The numbers of "N,N,..."."""
    try:
        return sorted({int(each) for each in text.split(",")})
    except ValueError as error:
        raise typer.BadParameter(f"--lengths {text}: write numbers, such as 256,512") from error
