"""What all commands share: the model's name, consoles, loading, errors and closed pipes."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from ..families import list_recipes, near_names

if TYPE_CHECKING:
    import torch

    from ..checkpoint.options import LoadOptions
    from ..encoder import Encoder

MODEL_PANEL = "Model"
_CLOSED_PIPE = 141  # exit code 128 + SIGPIPE, as shells report it


def complete_recipe(incomplete: str) -> list[str]:
    """Names of recipes that begin so, for the shell to complete."""
    return list_recipes(f"{incomplete}*")


ModelArgument = Annotated[
    str | None,
    typer.Argument(
        help="Hub id, directory or recipe; the bundled small model if left out.",
        autocompletion=complete_recipe,
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Hub id or directory; the bundled small model if left out.",
        autocompletion=complete_recipe,
        rich_help_panel=MODEL_PANEL,
    ),
]


class Commands(TyperGroup):
    """A group of commands that print errors in one line, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error is printed, and ends it with exit code 1."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal may lack a character
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            end_quietly()
        except (OSError, ValueError, ImportError) as error:
            if ctx.params.get("traceback"):
                raise
            complain(error_text(error))
            raise typer.Exit(1) from error
        return result


class PipeConsole(Console):
    """A console that ends the program quietly when its pipe is closed."""

    def on_broken_pipe(self) -> None:
        """Called by rich while the error is handled."""
        end_quietly()


def output() -> PipeConsole:
    """A console on standard output; in a pipe without colours and without wrapped lines."""
    return PipeConsole(highlight=False, soft_wrap=not sys.stdout.isatty())


def remarks() -> PipeConsole:
    """A console on standard error, for everything that is not the result."""
    return PipeConsole(stderr=True, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error on standard error."""
    remarks().print(f"error: {message}", style="red", markup=False)


def error_text(error: Exception) -> str:
    """The message of an error with its notes; errors of the system without their number."""
    words = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        named = error.filename is not None
        words = f"{os.fsdecode(error.filename)}: {error.strerror}" if named else error.strerror
    return ". ".join([words, *getattr(error, "__notes__", [])])


def suggest(name: str) -> str:
    """A sentence with the recipes of similar names, and the command that lists all."""
    near = near_names(name)
    hint = f"Nearest known: {', '.join(near)}. " if near else ""
    return f"{hint}`llm-embeddings recipes` lists all"


def end_quietly() -> NoReturn:
    """End the program at once, without a message, as its output has no reader any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(_CLOSED_PIPE)


def load_encoder(model: str | None, options: LoadOptions) -> Encoder:
    """`Encoder.from_pretrained`, with a status line in a terminal while it loads.

    Raises:
        FileNotFoundError: a directory, repository or file is missing.
        ValueError: anything else that does not fit.
    """
    with remarks().status(f"loading {model or 'the bundled model'}"):
        from transformers.utils import logging

        from ..encoder import Encoder

        check_device(options.device)
        logging.disable_progress_bar()
        return Encoder.open(model, options)


def check_device(device: str | torch.device | None) -> None:
    """Check that torch can use a device; None is the default one.

    Raises:
        ValueError: it cannot.
    """
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from error
