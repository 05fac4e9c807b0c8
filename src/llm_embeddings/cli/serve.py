"""`llm-embeddings serve`: a model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..checkpoint.options import LoadOptions
from .console import ModelArgument, load_encoder, remarks
from .loading import with_load_options

KEY_VARIABLE = "LLM_EMBEDDINGS_API_KEY"
_SERVER_PANEL, _VECTORS_PANEL, _LIMITS_PANEL = "Server", "Vectors", "Limits"
_LOCAL = ("127.0.0.1", "::1", "localhost")

_Host = Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=_SERVER_PANEL)]
_Port = Annotated[
    int,
    typer.Option(min=0, max=65535, help="0 = any that is free.", rich_help_panel=_SERVER_PANEL),
]
_ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar=KEY_VARIABLE,
        help="What clients must send. Better in the variable: other users see command lines.",
        rich_help_panel=_SERVER_PANEL,
    ),
]
_ServedName = Annotated[
    str | None,
    typer.Option(
        "--served-model-name",
        help="What clients call the model; MODEL if left out.",
        rich_help_panel=_SERVER_PANEL,
    ),
]
_Grace = Annotated[
    int,
    typer.Option(
        min=0, help="Seconds that requests in hand have at the end.", rich_help_panel=_SERVER_PANEL
    ),
]
_LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option(help="info: a line per request.", rich_help_panel=_SERVER_PANEL),
]
_Instruction = Annotated[
    str | None,
    typer.Option(
        help="Of queries that bring none; the model's if left out.", rich_help_panel=_VECTORS_PANEL
    ),
]
_Normalize = Annotated[
    bool | None,
    typer.Option(
        help="Unit length; as the model wants if left out.", rich_help_panel=_VECTORS_PANEL
    ),
]
_TokenArrays = Annotated[
    bool,
    typer.Option(
        "--token-arrays",
        help="Take arrays of ids of the model's own tokenizer.",
        rich_help_panel=_VECTORS_PANEL,
    ),
]
_MaxLength = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Tokens of a text, beyond which it is cut; the model's if left out.",
        rich_help_panel=_VECTORS_PANEL,
    ),
]
_BatchTokens = Annotated[
    int | None,
    typer.Option(
        min=1, help="Tokens per forward pass; by device if left out.", rich_help_panel=_LIMITS_PANEL
    ),
]
_RankBy = Annotated[
    Literal["vectors", "generation"],
    typer.Option(
        help="/rerank: cosine of vectors, or how likely the model finds it that a document answers "
        "the query, which takes one that generates.",
        rich_help_panel=_VECTORS_PANEL,
    ),
]
_QueueTokens = Annotated[
    int,
    typer.Option(
        "--max-queue-tokens",
        min=1,
        help="Tokens taken on and not answered; more: 429.",
        rich_help_panel=_LIMITS_PANEL,
    ),
]
_QueueRequests = Annotated[
    int,
    typer.Option(
        "--max-queue",
        min=1,
        help="Requests in hand; more: 429.",
        rich_help_panel=_LIMITS_PANEL,
    ),
]
_RequestBytes = Annotated[
    int,
    typer.Option(
        "--max-request-bytes",
        min=1,
        help="Size of a request; more: 413.",
        rich_help_panel=_LIMITS_PANEL,
    ),
]
_Inputs = Annotated[
    int,
    typer.Option(
        "--max-inputs", min=1, help="Texts in a request; more: 400.", rich_help_panel=_LIMITS_PANEL
    ),
]
_Timeout = Annotated[
    float,
    typer.Option(
        min=0.001, help="Seconds for a request; more: 503.", rich_help_panel=_LIMITS_PANEL
    ),
]


@with_load_options()
def serve_command(
    model: ModelArgument = None,
    host: _Host = "127.0.0.1",
    port: _Port = 8000,
    api_key: _ApiKey = None,
    served_model_name: _ServedName = None,
    grace: _Grace = 30,
    log_level: _LogLevel = "info",
    instruction: _Instruction = None,
    normalize: _Normalize = None,
    token_arrays: _TokenArrays = False,
    max_length: _MaxLength = None,
    rank_by: _RankBy = "vectors",
    max_queue_tokens: _QueueTokens = 2**20,
    max_queue: _QueueRequests = 256,
    max_request_bytes: _RequestBytes = 8 * 2**20,
    max_inputs: _Inputs = 2048,
    timeout: _Timeout = 120.0,
    batch_tokens: _BatchTokens = None,
    *,
    load: LoadOptions,
) -> None:
    """Serve a model to OpenAI's clients: POST /v1/embeddings.

    Example: llm-embeddings serve intfloat/e5-mistral-7b-instruct --port 8000
    """
    from ..serving import Limits, serve

    _check_key(api_key, host)
    serve(
        partial(load_encoder, model, load),
        host=host,
        port=port,
        name=served_model_name or _name(model),
        api_key=api_key,
        instruction=instruction,
        normalize=normalize,
        token_arrays=token_arrays,
        max_length=max_length,
        max_batch_tokens=batch_tokens,
        rank_by=rank_by,
        limits=Limits(
            queue_tokens=max_queue_tokens,
            queue_requests=max_queue,
            request_bytes=max_request_bytes,
            inputs=max_inputs,
            timeout=timeout,
        ),
        grace=grace,
        log_level=log_level,
    )


def _check_key(api_key: str | None, host: str) -> None:
    """Check the API key: an empty variable is a mistake, no key but on this machine a risk.

    Raises:
        ValueError: the variable is empty.
    """
    if os.environ.get(KEY_VARIABLE) == "":
        raise ValueError(f"{KEY_VARIABLE} is empty: set it to the key, or unset it")
    if api_key is None and host not in _LOCAL:
        remarks().print(f"no API key: whoever reaches {host} can use this server", style="yellow")


def _name(model: str | None) -> str | None:
    """The name to serve a model by: its directory's, or its hub id; None = its recipe's name."""
    if model is None or not Path(model).is_dir():
        return model
    return Path(model).resolve().name
