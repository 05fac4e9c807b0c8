"""The options of loading a model, one set for all commands, as fields of `LoadOptions`."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..checkpoint.options import LoadOptions
from ..recipe import Recipe
from .console import MODEL_PANEL, complete_recipe
from .wording import in_options


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
        "How the model embeds, if its files do not say: a name of `recipes`, or a .json file of a "
        "recipe's fields.",
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
            with in_options(keywords()):
                load = taken(given)
                command(**given, load=load)

        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.name != "load"]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*own, *parameters(*without)]
        )
        return run

    return decorate


def keywords() -> dict[str, str]:
    """The option of each field of `LoadOptions`, for messages."""
    return {name: option.name for name, option in OPTIONS.items()}


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
        OSError: a file with a recipe cannot be read.
        ValueError: options that exclude each other, or a file that holds no recipe.
    """
    found: dict[str, Any] = {
        name: given.pop(option.parameter)
        for name, option in OPTIONS.items()
        if option.parameter in given
    }
    if str(found.get("recipe")).endswith(".json"):
        found["recipe"] = read_recipe(Path(found["recipe"]))
    for name in ("adapters", "devices"):
        found[name] = found.get(name) or None  # an empty list where the option was not given
    return LoadOptions(**found)


def read_recipe(path: Path) -> Recipe:
    """A recipe from a JSON file of its fields, or from the one beside saved weights.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no recipe.
    """
    values = read_json(path)
    fields = values.get("recipe", values) if isinstance(values, dict) else None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} is not a JSON object with the fields of a recipe")
    try:
        return Recipe.from_dict(fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a recipe: {error}") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def named(load: LoadOptions) -> list[str]:
    """The options of the command line that differ from their defaults."""
    usual = LoadOptions()
    return [
        option.name
        for name, option in OPTIONS.items()
        if getattr(load, name) != getattr(usual, name)
    ]
