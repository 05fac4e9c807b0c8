"""`llm-embeddings verify`: is a model what its authors published?"""

from __future__ import annotations

import gc
import json
from typing import Annotated, Any

import typer

from ..checkpoint.options import LoadOptions
from ..verifying import Verification
from .console import (
    ModelArgument,
    complain,
    complete_recipe,
    error_text,
    load_encoder,
    output,
    remarks,
)
from .loading import with_load_options

_CODES = {"VERIFIED": 0, "DIFFERENT": 1, "NOTHING TO COMPARE WITH": 2}


@with_load_options("vector_cache")  # a test of the model must not be answered from a file
def verify(
    context: typer.Context,
    model: ModelArgument = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="HUB_ID",
            help="The published checkpoint of which a directory is a copy.",
            autocompletion=complete_recipe,
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a report.")] = False,
    *,
    load: LoadOptions,
) -> None:
    """Compare a model with what its authors printed, with sentence-transformers, with itself.

    The report is made to be pasted. Ends with 0 if VERIFIED, 1 if DIFFERENT, and 2 if there was
    nothing to compare with, or the model cannot be loaded.

    Example: llm-embeddings verify ./my-copy --as Salesforce/SFR-Embedding-Mistral
    """
    try:
        found = _verified(model, checkpoint, load)
    except (OSError, ValueError, ImportError) as error:
        parent: Any = context.parent
        if parent is not None and parent.params.get("traceback"):
            raise
        complain(error_text(error))
        raise typer.Exit(2) from error
    if as_json:
        output().print(json.dumps(found.to_dict(), indent=1), markup=False, soft_wrap=True)
    else:
        output().print(str(found), markup=False, soft_wrap=True)
    raise typer.Exit(_CODES[found.verdict])


def _verified(model: str | None, checkpoint: str | None, load: LoadOptions) -> Verification:
    """All checks; one copy of the weights makes room for the other."""
    from ..verifying.run import check_alone, check_peer, origin_of

    encoder = load_encoder(model, load)
    origin = origin_of(encoder.opened, checkpoint)
    with remarks().status("checking"):
        verification, made = check_alone(encoder, origin)
    encoder.close()
    del encoder
    if made is None:
        return verification
    _make_room(made.device)
    with remarks().status("comparing with sentence-transformers"):
        return check_peer(verification, made, origin)


def _make_room(device: str) -> None:
    """Give back what only collected garbage still holds."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
