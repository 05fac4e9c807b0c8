"""What authors printed: examples with the cosines that their checkpoints gave, to be met again.

`printed.json` has texts, prompts and numbers exactly as the sources show them, white space and
digits included (the summit passage of MS MARCO has two spaces behind its numbers). A checkpoint may
stand there before it has a recipe, and is found once it can be loaded.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..recipe import Role

Prompt = Literal["recipe", "template", "given"]
_FILE = Path(__file__).parent / "printed.json"


@dataclass(frozen=True, slots=True)
class Side:
    """The queries or the documents of an example.

    Attributes:
        texts: Without what stands around them.
        instruction: What the example passes; "" = none, None = the checkpoint's default.
        prefix: What stands before each text; None = the checkpoint's own, which the source leaves
            to its files.
        suffix: What stands behind each text.
    """

    texts: tuple[str, ...]
    instruction: str | None
    prefix: str | None
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Printed:
    """The numbers of one run.

    Attributes:
        by: What the authors ran.
        dtype: What it computed in: a dtype, "half" for one of the two, None = not known.
        scale: 100 where percentages were printed, else 1.
        digits: Significant digits that were printed.
        values: `[queries, documents]`, as printed.
        same: How far a cosine may be off where both runs are in float32.
        half: How far it may be off where either is in half precision.
        relative: Whether both are shares of the printed number.
    """

    by: str
    dtype: str | None
    scale: int
    digits: int
    values: tuple[tuple[float, ...], ...]
    same: float
    half: float
    relative: bool


@dataclass(frozen=True, slots=True)
class Example:
    """Texts, their prompts, and what came out.

    Attributes:
        name: For reports.
        checkpoints: Hub ids.
        query: The rows of the matrix.
        document: Its columns.
        prompt: Where the prefixes come from. "recipe": from the checkpoint's recipe, which must
            render the same. "template": a chat template of the recipe may stand around them.
            "given": from the example alone, as few-shot examples do.
        solid: Whether texts, prompts and numbers were all read in the source. What is not decides
            nothing.
        source: Where they were read.
        note: What else is to be known.
        printed: Runs of these inputs.
    """

    name: str
    checkpoints: tuple[str, ...]
    query: Side
    document: Side
    prompt: Prompt
    solid: bool
    source: str
    note: str
    printed: tuple[Printed, ...]

    def side(self, role: Role) -> Side:
        """The texts of a role."""
        return self.query if role == "query" else self.document


@functools.cache
def examples() -> tuple[Example, ...]:
    """All examples, in the file's order."""
    values = json.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(_example(each, values["texts"]) for each in values["examples"])


def examples_of(checkpoint: str) -> list[Example]:
    """The examples of a hub id; case does not count."""
    lower = checkpoint.lower()
    return [each for each in examples() if lower in map(str.lower, each.checkpoints)]


def _example(values: dict[str, Any], texts: dict[str, dict[str, list[str]]]) -> Example:
    """An entry of the file with its texts put in."""
    lists = dict(zip(get_args(Role), ("queries", "documents"), strict=True))
    key = values["texts"]
    sides = {role: Side(tuple(texts[key][name]), **values[role]) for role, name in lists.items()}
    printed = [
        Printed(**{**run, "values": tuple(map(tuple, run["values"]))}) for run in values["printed"]
    ]
    others = {name: value for name, value in values.items() if name not in (*sides, "texts")}
    return Example(
        **{
            **others,
            **sides,
            "checkpoints": tuple(values["checkpoints"]),
            "printed": tuple(printed),
        }
    )
