"""How each family's own evaluation embeds the two sides of a task: a table, and what reads it."""

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
    """Nobody published an instruction for a task, so a general one stands in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a family's published evaluation does.

    Attributes:
        one_sided: Types of tasks whose documents stay bare. In all others both sides get the
            instruction.
        symmetric: Role of all texts of the others, where the query template has no place for an
            instruction.
        raw: Types of tasks whose vectors are not normalised; None = all.
        ending: What instructions end in, instead of a full stop.
        wording: Tasks whose instruction differs from E5's.
        max_length: Limit in tokens of the published scores; None = the recipe's.
        source: Where this is from.
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
    """How the texts of one side are embedded.

    Attributes:
        role: Whose template.
        instruction: "" = none.
    """

    role: Role
    instruction: str


@dataclass(frozen=True, slots=True)
class Prompts:
    """How a task is embedded.

    Attributes:
        query: Texts that ask; in symmetric tasks all texts.
        document: Texts that are found; in symmetric tasks the same as `query`.
        normalize: Unit length; None = as the recipe says.
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
    """How a recipe embeds a task.

    Args:
        recipe: Of the encoder.
        kind: MTEB's type of the task, such as "Retrieval" or "STS".
        name: MTEB's name of the task, or that of the user's own set.
        instructions: The user's, by task name or type; they are taken as they are.
        own: What the task itself brings along; used if nobody published one.

    Warns:
        InstructionWarning: neither, so the type of the task or the recipe decides.
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
    """The user's, the family's, E5's, the task's or the type's."""
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
