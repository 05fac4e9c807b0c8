"""How the authors of each family embedded MTEB's tasks: roles, instructions, normalisation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from ..recipe import Recipe, Role
from .mteb.instructions import GENERAL, published

# Tasks with queries on one side and passages on the other.
SEARCHES = frozenset({"Retrieval", "InstructionRetrieval"})
_RERANKINGS = frozenset({"Reranking", "InstructionReranking"})
_CLASSIFICATIONS = frozenset({"Classification", "MultilabelClassification"})


class InstructionWarning(UserWarning):
    """No instruction is published for a task, so a general one is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the authors of a family evaluated it.

    Attributes:
        one_sided: Types of tasks whose documents get no instruction. In all other tasks (the
            symmetric ones) both sides get it.
        symmetric: Role of all texts of symmetric tasks, where the query template has no place for
            an instruction.
        raw: Types of tasks whose vectors are not normalised; None = all.
        ending: What instructions end in, instead of a full stop.
        wording: Instructions that differ from E5's, by task.
        max_length: Most tokens of a text in the published scores; None = the recipe's limit.
        source: Where this is documented.
    """

    one_sided: frozenset[str] = SEARCHES | _RERANKINGS
    symmetric: Role = "document"
    raw: frozenset[str] | None = frozenset()
    ending: str = ""
    wording: Mapping[str, str] | None = None
    max_length: int | None = None
    source: str = ""


RULES = {
    "e5-mistral": Rules(
        one_sided=SEARCHES,
        raw=_CLASSIFICATIONS,
        max_length=512,
        source="microsoft/unilm e5/ 59d0483: documents of reranking tasks are instructed too",
    ),
    "gritlm": Rules(
        one_sided=SEARCHES,
        raw=None,
        max_length=512,
        source="ContextualAI/gritlm 9710681: normalising harms classification, so nothing is",
    ),
    "llm2vec": Rules(
        ending=":",
        wording={
            "AmazonCounterfactualClassification": "Classify a given Amazon customer review text as "
            "either counterfactual or notcounterfactual:"
        },
        max_length=512,
        source="McGill-NLP/llm2vec 312adcf: test_configs/mteb, experiments",
    ),
    "llara": Rules(
        symmetric="query",
        source="Llama2Vec: two short texts of one kind both predict what follows (NEXT, NEXT)",
    ),
}
DEFAULT = Rules()


@dataclass(frozen=True, slots=True)
class Side:
    """How the texts of one side of a task are embedded.

    Attributes:
        role: The role whose template they are put in.
        instruction: Their instruction; "" = none.
    """

    role: Role
    instruction: str


@dataclass(frozen=True, slots=True)
class Prompts:
    """How the texts of a task are embedded.

    Attributes:
        query: For queries; in symmetric tasks for all texts.
        document: For documents; in symmetric tasks the same as `query`.
        normalize: Whether vectors get unit length; None = as the recipe says.
    """

    query: Side
    document: Side
    normalize: bool | None


def rules_of(recipe: Recipe) -> Rules:
    """The rules of a recipe's family."""
    return RULES.get(recipe.family, DEFAULT)


def prompts_of(
    recipe: Recipe,
    kind: str,
    name: str,
    *,
    instructions: Mapping[str, str] | None = None,
    own: str | None = None,
) -> Prompts:
    """Roles and instructions with which a recipe embeds a task.

    Args:
        recipe: The encoder's recipe.
        kind: MTEB's type of the task, such as "Retrieval" or "STS".
        name: MTEB's name of the task, or the name of a set of one's own.
        instructions: The user's instructions, by task name or type; they are used unchanged.
        own: The instruction that the task itself brings along, used if none is published.

    Raises:
        ValueError: an instruction is given, and the recipe takes none.

    Warns:
        InstructionWarning: none is given, published or brought along, so a general one for the
            type of task or the recipe's default is used.
    """
    rules = rules_of(recipe)
    instruction = _instruction(recipe, rules, kind, name, instructions or {}, own)
    normalize = False if rules.raw is None or kind in rules.raw else None
    if kind in rules.one_sided:
        query, document = Side("query", instruction), Side("document", "")
    else:
        placed = recipe.query.takes_instruction
        query = document = Side("query" if placed else rules.symmetric, instruction)
    return Prompts(query, document, normalize)


def _instruction(
    recipe: Recipe,
    rules: Rules,
    kind: str,
    name: str,
    instructions: Mapping[str, str],
    own: str | None,
) -> str:
    """A task's instruction: the user's, else the family's, E5's, the task's or a general one."""
    given = instructions.get(name, instructions.get(kind))
    if not recipe.query.takes_instruction:
        if given:
            raise ValueError(
                f"{name}: {recipe.name} takes no instruction, and {given!r} is given: leave it out"
            )
        return ""
    if given is not None:
        return given
    if rules.wording and name in rules.wording:
        return rules.wording[name]
    found = published(name, kind) or own
    if found is None:
        found = GENERAL.get(kind, recipe.instruction)
        warnings.warn(
            f"{name}: no published instruction, so {found!r} stands in: give your own",
            InstructionWarning,
            stacklevel=2,
        )
    if rules.ending and found and not found.endswith(rules.ending):
        found = found.rstrip(".") + rules.ending
    return found
