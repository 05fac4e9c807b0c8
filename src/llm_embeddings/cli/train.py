"""`llm-embeddings train STAGE`: a command per stage, its options the fields of a dataclass."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from .console import remarks
from .fields import from_json, merged, options_of
from .loading import read_json, read_recipe
from .wording import in_options

# Each command's module, which has its `train_NAME`.
_MODULES = {
    "mntp": "training.mntp",
    "simcse": "training.simcse",
    "contrastive": "training.contrastive",
    "distill": "training.distill",
    "rounds": "synthesis.rounds",
    "llara": "training.llara",
    "grit": "training.grit",
}
STAGES = tuple(_MODULES)
_REQUIRED = ("model", "output", "data")
# In the order in which `--help` shows them.
_PANELS = ("What is trained", "Presets and files", "This stage", "Adapters", "Every stage")


class Stages(TyperGroup):
    """The commands of all stages, each imported when it is asked for, as that imports torch."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the stages, in the order in which a model goes through them."""
        return list(STAGES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a stage; None = there is no such stage."""
        if cmd_name not in STAGES:
            return None
        app = typer.Typer(rich_markup_mode="rich", add_completion=False)
        app.command(cmd_name)(stage_command(cmd_name))
        return typer.main.get_command(app)


train = typer.Typer(cls=Stages, no_args_is_help=True)


@train.callback()
def stages() -> None:
    """Turn a decoder LLM into an embedder, or a better one: one stage after the other.

    Example: llm-embeddings train mntp --model ./llm --data texts.txt --output ./mntp
    """


def stage_command(stage: str) -> Callable[..., None]:
    """The function of a stage's command, with a parameter for each field of its options.

    Its help is the first paragraph of the docstring of the options' class.
    """
    from ..training.held_out import summary

    module = importlib.import_module(f"...{_MODULES[stage]}", __name__)
    start = getattr(module, f"train_{stage}")
    kind: Any = next(iter(get_type_hints(start).values()))
    presets: Mapping[str, Any] = getattr(module, "PRESETS", {})

    spoken = {option.keyword: option.flag for option in options_of(kind)}

    def run(**given: Any) -> None:
        with in_options(spoken):
            train_as(given)

    def train_as(given: dict[str, Any]) -> None:
        config, preset = given.pop("config"), given.pop("preset", None)
        only_print = given.pop("print_config")
        base = dict(_preset(presets, preset))
        if config is not None:
            base |= from_json(kind, read_json(config), str(config))
        values = merged(kind, base, given)
        if missing := [f"--{name}" for name in _REQUIRED if not values.get(name)]:
            raise ValueError(f"{', '.join(missing)} missing: give it here or in a --config file")
        if str(values.get("recipe", "")).endswith(".json"):
            values["recipe"] = read_recipe(Path(values["recipe"]))
        options = kind(**values)
        if only_print:
            sys.stdout.write(json.dumps(options.to_dict(), indent=2) + "\n")
        else:
            _start(stage, start, options, getattr(module, "summary", summary))

    run.__doc__ = (inspect.getdoc(kind) or "").split("\n\n")[0]
    run.__signature__ = inspect.Signature(_parameters(kind, presets))  # type: ignore[attr-defined]
    return run


def _parameters(kind: type, presets: Mapping[str, Any]) -> list[inspect.Parameter]:
    """The parameters of a stage's command, in the order of `--help`."""
    from ..training.options import StageOptions

    shared = set(inspect.signature(StageOptions).parameters)
    files = _PANELS[1]
    extra: dict[str, Any] = {
        "config": Annotated[
            Path | None,
            typer.Option(help="JSON file of options; those given here win.", rich_help_panel=files),
        ],
        "print_config": Annotated[
            bool,
            typer.Option(
                "--print-config",
                help="Print all options as JSON, as --config takes them, and end.",
                rich_help_panel=files,
            ),
        ],
    }
    if presets:
        text = f"Published hyper-parameters: {', '.join(presets)}."
        extra["preset"] = Annotated[str | None, typer.Option(help=text, rich_help_panel=files)]
    found = [option.parameter(_panel(option.field, shared)) for option in options_of(kind)]
    for name, annotation in extra.items():
        default = False if name == "print_config" else None
        keyword = inspect.Parameter.KEYWORD_ONLY
        found.append(inspect.Parameter(name, keyword, default=default, annotation=annotation))
    return sorted(found, key=lambda parameter: _PANELS.index(_panel(parameter.name, shared)))


def _panel(field: str, shared: Collection[str]) -> str:
    """The heading under which `--help` shows a field."""
    if field in (*_REQUIRED, "recipe"):
        return _PANELS[0]
    if field in ("config", "preset", "print_config"):
        return _PANELS[1]
    if field.removeprefix("no_").split("_")[0] == "lora":
        return _PANELS[3]
    return _PANELS[4] if field.removeprefix("no_") in shared else _PANELS[2]


def _preset(presets: Mapping[str, Any], name: str | None) -> Mapping[str, Any]:
    """The values of a preset; none without a name."""
    if name is None:
        return {}
    if name not in presets:
        raise ValueError(f"--preset {name!r} is not one of {', '.join(presets)}")
    values: Mapping[str, Any] = presets[name]
    return values


def _start(
    stage: str, start: Callable[[Any], Path], options: Any, summary: Callable[[Path], str]
) -> None:
    """Train, and print where the result is; a `TrainingError` is printed without a traceback."""
    from transformers.utils import logging

    from ..training.run.stage import TrainingError

    logging.disable_progress_bar()
    try:
        result = start(options)
    except TrainingError as error:
        raise ValueError(str(error)) from error  # printed without a traceback
    if os.environ.get("RANK", "0") == "0":
        lines = [
            f"{result}: made by {stage}, ready for Encoder.from_pretrained",
            summary(result),
            f"in LangChain: LLMEmbeddings(model={str(result)!r})",
        ]
        remarks().print("\n".join(filter(None, lines)), markup=False, soft_wrap=True)
