"""What all commands share: options, consoles, loading, and how a mistake or a closed pipe ends."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from ..families import list_recipes, near_names

if TYPE_CHECKING:
    from ..encoder import Encoder

MODEL_PANEL = "Model"
_CLOSED_PIPE = 141  # 128 + SIGPIPE: what a shell reports of a program that such a pipe ended


def complete_recipe(incomplete: str) -> list[str]:
    """Names of recipes for the shell to complete."""
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
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="How the model embeds, if its files do not say: a name of `recipes`.",
        autocompletion=complete_recipe,
        rich_help_panel=MODEL_PANEL,
    ),
]
AdapterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        help="LoRA adapter to apply on top. Repeatable, in order.",
        rich_help_panel=MODEL_PANEL,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="cpu, cuda, cuda:1, mps; the best if left out.",
        rich_help_panel=MODEL_PANEL,
    ),
]
DtypeOption = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="What is computed in: auto, float32, bfloat16, float16.",
        rich_help_panel=MODEL_PANEL,
    ),
]
QuantizationOption = Annotated[
    Literal["int8", "fp8"] | None,
    typer.Option(
        "--quantization",
        help="Compute in 8 bits: faster, a little less exact; fp8 on a GPU only.",
        rich_help_panel=MODEL_PANEL,
    ),
]


class Commands(TyperGroup):
    """A group of commands whose users see no traceback for a mistake of theirs."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error that names value and remedy is printed and ends with code 1."""
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
            complain(describe(error))
            raise typer.Exit(1) from error
        return result


class PipeConsole(Console):
    """A console that leaves a closed pipe to `Commands`."""

    def on_broken_pipe(self) -> None:
        """Called by rich while the error is handled."""
        end_quietly()


def output() -> PipeConsole:
    """Standard output; in a pipe without colours and with lines as long as they are."""
    return PipeConsole(highlight=False, soft_wrap=not sys.stdout.isatty())


def remarks() -> PipeConsole:
    """Standard error, for everything that is not the result."""
    return PipeConsole(stderr=True, highlight=False, soft_wrap=True)


def complain(message: str) -> None:
    """Print an error."""
    remarks().print(f"error: {message}", style="red", markup=False)


def describe(error: Exception) -> str:
    """An error and its notes in words; the system's errors without their number."""
    words = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        named = error.filename is not None
        words = f"{os.fsdecode(error.filename)}: {error.strerror}" if named else error.strerror
    return ". ".join([words, *getattr(error, "__notes__", [])])


def suggest(name: str) -> str:
    """Near names, and the command that lists all."""
    near = near_names(name)
    hint = f"Nearest known: {', '.join(near)}. " if near else ""
    return f"{hint}`llm-embeddings recipes` lists all"


def end_quietly() -> NoReturn:
    """End as a program does whose reader has gone: at once, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(_CLOSED_PIPE)


def load(
    model: str | None,
    *,
    recipe: str | None = None,
    adapters: list[str] | None = None,
    device: str | None = None,
    dtype: str = "auto",
    quantization: Literal["int8", "fp8"] | None = None,
    devices: list[str] | None = None,
    vector_cache: Path | None = None,
) -> Encoder:
    """`Encoder.from_pretrained`; while it loads, a terminal says so.

    Raises:
        FileNotFoundError: a directory, repository or file is missing.
        ValueError: anything else that does not fit.
    """
    with remarks().status(f"loading {model or 'the bundled model'}"):
        from transformers.utils import logging

        from ..encoder import Encoder

        check_device(device)
        logging.disable_progress_bar()
        return Encoder.from_pretrained(
            model,
            recipe=recipe,
            adapters=adapters,
            device=device,
            dtype=dtype,
            quantization=quantization,
            devices=devices or None,
            vector_cache=vector_cache,
        )


def check_device(device: str | None) -> None:
    """Raise `ValueError` for a device that torch does not know or that is not here."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from error
