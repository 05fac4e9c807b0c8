"""The options of loading a model, one set for all commands, as fields of `LoadOptions`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..checkpoint.options import LoadOptions
from .console import MODEL_PANEL, complete_recipe


@dataclass(frozen=True, slots=True)
class _Option:
    """How a field of `LoadOptions` is given on the command line."""

    name: str
    kind: Any
    help: str
    complete: Callable[[str], list[str]] | None = None

    @property
    def parameter(self) -> str:
        """The name of the parameter of a command's function."""
        return self.name.removeprefix("--").replace("-", "_")


# By field. `token` is left out, as other users of a machine see command lines: `hf auth login` or
# the variable HF_TOKEN is where it belongs.
OPTIONS: Mapping[str, _Option] = {
    "recipe": _Option(
        "--recipe",
        str | None,
        "How the model embeds, if its files do not say: a name of `recipes`.",
        complete_recipe,
    ),
    "adapters": _Option(
        "--adapter", list[str] | None, "LoRA adapter to apply on top. Repeatable, in order."
    ),
    "device": _Option("--device", str | None, "cpu, cuda, cuda:1, mps; the best if left out."),
    "devices": _Option(
        "--devices",
        list[str] | None,
        "One of several that share the work, instead of --device. Repeatable.",
    ),
    "dtype": _Option("--dtype", str, "What is computed in: auto, float32, bfloat16, float16."),
    "attn_implementation": _Option(
        "--attn-implementation", str | None, "eager, sdpa, ...: as in transformers."
    ),
    "quantization": _Option(
        "--quantization",
        Literal["int8", "fp8"] | None,
        "Compute in 8 bits: faster, a little less exact; fp8 on a GPU only.",
    ),
    "device_map": _Option(
        "--device-map", str | None, "auto, ...: as in transformers, for a model larger than a GPU."
    ),
    "revision": _Option("--revision", str | None, "Branch, tag or commit of the model."),
    "cache_dir": _Option("--cache-dir", Path | None, "Cache of what comes from the hub."),
    "local_files_only": _Option("--local-files-only", bool, "Never ask the network."),
    "trust_remote_code": _Option(
        "--trust-remote-code", bool, "Run code from the repository; no listed model needs it."
    ),
    "vector_cache": _Option(
        "--vector-cache", Path | None, "File that keeps vectors for the next call, run or process."
    ),
}


def with_load_options(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a command of a function that takes `LoadOptions` as its keyword `load`.

    Args:
        *without: Fields for which the command has no option.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            load = taken(given)
            command(**given, load=load)

        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.name != "load"]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*own, *parameters(*without)]
        )
        return run

    return decorate


def parameters(*without: str, panel: str = MODEL_PANEL) -> list[inspect.Parameter]:
    """The parameters of a typer command for all fields but some, under a heading of its help."""
    defaults = {field.name: field.default for field in fields(LoadOptions)}
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(
            option.parameter,
            keyword,
            default=defaults[name],
            annotation=Annotated[
                option.kind,
                typer.Option(
                    option.name,
                    help=option.help,
                    autocompletion=option.complete,
                    rich_help_panel=panel,
                ),
            ],
        )
        for name, option in OPTIONS.items()
        if name not in without
    ]


def taken(given: dict[str, Any]) -> LoadOptions:
    """What the command line gives, taken out of the arguments of a command.

    Raises:
        ValueError: options that exclude each other.
    """
    found: dict[str, Any] = {
        name: given.pop(option.parameter)
        for name, option in OPTIONS.items()
        if option.parameter in given
    }
    for name in ("adapters", "devices"):
        found[name] = found.get(name) or None  # an empty list where the option was not given
    return LoadOptions(**found)


def named(load: LoadOptions) -> list[str]:
    """The options of the command line that differ from their defaults."""
    usual = LoadOptions()
    return [
        option.name
        for name, option in OPTIONS.items()
        if getattr(load, name) != getattr(usual, name)
    ]
