"""The options of `encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...arithmetic.precision import Precision
from ...recipe import Role
from .read import MOST_ROWS, Format

INPUT_PANEL, VECTORS_PANEL, RUN_PANEL = "Input", "Vectors", "Run"

Input = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="Texts: .txt (one a line), .jsonl, .csv, .tsv, .parquet; stdin if left out.",
        show_default=False,
    ),
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="Vectors: .npy, .parquet or .jsonl; - = lines to stdout."),
]
Column = Annotated[
    str, typer.Option(help="Column that holds the texts.", rich_help_panel=INPUT_PANEL)
]
FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="If its name does not say.", rich_help_panel=INPUT_PANEL),
]
Encoding = Annotated[
    str | None, typer.Option(help="If it is not UTF-8.", rich_help_panel=INPUT_PANEL)
]
RoleOption = Annotated[
    Role, typer.Option("--role", help="What the texts are.", rich_help_panel=VECTORS_PANEL)
]
Instruction = Annotated[
    str | None,
    typer.Option(
        help="Goes before each text, if the model takes one; '' = none.",
        rich_help_panel=VECTORS_PANEL,
    ),
]
PromptName = Annotated[
    str | None,
    typer.Option(
        help="A prompt of the checkpoint by name, in place of the role's.",
        rich_help_panel=VECTORS_PANEL,
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option("--precision", help="Type of the numbers.", rich_help_panel=VECTORS_PANEL),
]
Dimensions = Annotated[
    int | None, typer.Option(min=1, help="All if left out.", rich_help_panel=VECTORS_PANEL)
]
Normalize = Annotated[
    bool | None,
    typer.Option(
        help="Unit length; as the model wants if left out.", rich_help_panel=VECTORS_PANEL
    ),
]
MaxLength = Annotated[
    int | None, typer.Option(min=1, help="Tokens per text.", rich_help_panel=VECTORS_PANEL)
]
BatchTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens per forward pass.", rich_help_panel=RUN_PANEL)
]
ChunkSize = Annotated[
    int,
    typer.Option(
        "--chunk",
        min=1,
        max=MOST_ROWS,
        help="Texts between two saves: what a kill can cost.",
        rich_help_panel=RUN_PANEL,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace an output that exists.", rich_help_panel=RUN_PANEL),
]
Restart = Annotated[
    bool,
    typer.Option("--restart", help="Drop what an earlier run finished.", rich_help_panel=RUN_PANEL),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Say nothing unless it fails.", rich_help_panel=RUN_PANEL),
]
