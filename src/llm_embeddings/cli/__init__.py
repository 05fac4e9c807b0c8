"""`llm-embeddings`: the command line, one file per command."""

from __future__ import annotations

from typing import Annotated

import typer

from .ask import ask
from .console import Commands
from .demo import demo
from .encode.command import encode
from .evaluate import evaluate_command
from .export import export
from .info import info
from .mine import mine_command
from .passkey import passkey_command
from .recipes import recipes
from .search import search
from .serve import serve_command
from .synthesize import synthesize_command
from .train import train
from .verify import verify

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    """Print the version and exit, if it is wanted."""
    if wanted:
        from .. import __version__

        typer.echo(f"llm-embeddings {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code an error came from.")
    ] = False,
) -> None:
    """Text embeddings from decoder LLMs: LLM2Vec, E5-Mistral, LLaRA, GritLM and siblings."""


START, USE, TRAIN, HAND_ON = "Get to know", "Embed and search", "Train", "Hand on"
MEASURE = "Measure"
app.command(rich_help_panel=START)(demo)
app.command(rich_help_panel=START)(recipes)
app.command(rich_help_panel=START)(info)
app.command(rich_help_panel=START)(verify)
app.command(rich_help_panel=USE)(encode)
app.command(rich_help_panel=USE)(search)
app.command(rich_help_panel=USE)(ask)
app.command("evaluate", rich_help_panel=MEASURE)(evaluate_command)
app.command("passkey", rich_help_panel=MEASURE)(passkey_command)
app.command("synthesize", rich_help_panel=TRAIN)(synthesize_command())
app.command("mine", rich_help_panel=TRAIN)(mine_command)
app.add_typer(train, name="train", rich_help_panel=TRAIN)
app.command(rich_help_panel=HAND_ON)(export)
app.command("serve", rich_help_panel=HAND_ON)(serve_command)
