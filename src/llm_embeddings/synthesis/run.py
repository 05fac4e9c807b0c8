"""A run of E5's two steps: the model thinks of tasks, then writes examples for them.

What an example is about depends on the seed and its number alone, so an interrupted run goes on as
if it had not been. Its texts repeat in another run if the model answers a prompt alike.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from ..faces import init_checked
from . import prompts
from .calls.asking import Asker, Manners, OutOfBudget, PromptJob, Stopped
from .calls.budget import Budget, BudgetLimits
from .calls.generators import ModelOptions, Prompt, Reply, TextGenerator
from .calls.journal import EXAMPLE, TASKS, Journal
from .calls.parsing import parse_example, parse_tasks
from .grounding import GroundingPassage, digest, in_turn
from .placeholders import GROUNDED, SYMMETRIC, Sampler


@init_checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is to make.

    Attributes:
        examples: How many examples.
        sampler: Draws groups, languages and other values, by its seed.
        passages: Passages of one's own documents, for the group "grounded".
        personas: Descriptions of the people who type queries; empty = anybody.
        instruction: Instruction of grounded examples; None = their rows do not say, "" = none.
        examples_per_task: For how many examples a task is used on average. The paper has 312 k
            examples of asymmetric groups and 150 k instructions.
    """

    examples: int
    sampler: Sampler = field(default_factory=lambda: Sampler(0))
    passages: Sequence[GroundingPassage] = ()
    personas: Sequence[str] = ()
    instruction: str | None = None
    examples_per_task: float = 2.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one that cannot be, or queries for passages without any.
        """
        if self.examples < 1:
            raise ValueError(f"examples={self.examples}: ask for at least one")
        if not self.examples_per_task > 0:
            raise ValueError(f"examples_per_task={self.examples_per_task} must be above 0")
        if GROUNDED in self.sampler.groups and not self.passages:
            raise ValueError("the group grounded asks about documents: name some")
        if self.passages and GROUNDED not in self.sampler.groups:
            groups = ", ".join(self.sampler.groups)
            raise ValueError(f"documents are given, but no group asks about them: {groups}")

    def settings(self, model: str, options: ModelOptions) -> dict[str, Any]:
        """All that a run's rows depend on; a run is continued only if none of it has changed."""
        return {
            "model": model,
            "prompt_version": prompts.VERSION,
            "examples": self.examples,
            "examples_per_task": self.examples_per_task,
            "seed": self.sampler.seed,
            "groups": dict(self.sampler.groups),
            "languages": dict(self.sampler.languages),
            "documents": digest([passage.text for passage in self.passages]),
            "personas": digest(self.personas),
            "instruction": self.instruction,
            "temperature": options.temperature,
            "top_p": options.top_p,
            "max_reply_tokens": options.max_reply_tokens,
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run has made, all its parts together.

    Attributes:
        planned: How many examples are wanted.
        made: How many examples there are.
        failed: How many failed, by reason; a continued run asks again where nobody answered.
        untried: How many examples the model was not asked for yet.
        tasks: How many tasks the model thought of, by group.
        tokens_in: Tokens of all prompts.
        tokens_out: Tokens of all replies.
        cost: What they cost by the prices given.
        stopped: Why the run stopped early; "" = it did not.
        spent: Whether it stopped because the budget is spent.
    """

    planned: int
    made: int
    failed: Mapping[str, int]
    untried: int
    tasks: Mapping[str, int]
    tokens_in: int
    tokens_out: int
    cost: float
    stopped: str
    spent: bool


def generate(
    output: Path,
    plan: Plan,
    generator: TextGenerator,
    *,
    limits: BudgetLimits | None = None,
    manners: Manners | None = None,
    options: ModelOptions | None = None,
    watch: Callable[[Journal], None] = lambda journal: None,
) -> Summary:
    """Make the examples of a plan that are not made yet; `agenerate` for code that is not async."""
    return asyncio.run(
        agenerate(
            output,
            plan,
            generator,
            limits=limits,
            manners=manners,
            options=options,
            watch=watch,
        )
    )


async def agenerate(
    output: Path,
    plan: Plan,
    generator: TextGenerator,
    *,
    limits: BudgetLimits | None = None,
    manners: Manners | None = None,
    options: ModelOptions | None = None,
    watch: Callable[[Journal], None] = lambda journal: None,
) -> Summary:
    """Make the examples of a plan that are not made yet.

    Args:
        output: Directory of the run; its journal holds every answer. `rows_of` reads it.
        plan: What is to be made.
        generator: The language model, from `open_generator` or a callable like it.
        limits: What the run may use, all its parts together; None = no limits.
        manners: How the endpoint is treated: concurrency, waiting, repetitions.
        options: The options that the generator was opened with.
        watch: Called after every answer.

    Returns:
        What the run has made. `stopped` tells if the budget or the endpoint ended it early.

    Raises:
        OSError: the directory cannot be written.
        ValueError: the directory is another run's, or the model will never answer.
    """
    options = options or ModelOptions()
    limits = limits or BudgetLimits()
    with Journal(output, plan.settings(generator.name, options)) as journal:
        budget = Budget(limits, journal.tokens_in, journal.tokens_out)
        asker = Asker(
            generator,
            journal,
            budget,
            manners or Manners(),
            options.max_reply_tokens,
            partial(watch, journal),
        )
        stopped: Stopped | None = None
        try:
            await asker.ask_all(_brainstorming(plan))
            unsure = [number for kind, number in journal.failures if kind == TASKS]
            if not all(journal.is_final(TASKS, number) for number in unsure):
                raise Stopped("the endpoint did not answer all prompts for tasks")
            await asker.ask_all(_examples(plan, _tasks(plan, journal)))
        except Stopped as reason:
            stopped = reason
        return _summary(plan, journal, limits, stopped)


def _brainstorming(plan: Plan) -> Iterator[PromptJob]:
    """Prompts for as many tasks as the examples need; numbered over all groups."""
    number = 0
    for group in _groups_with_tasks(plan):
        for _ in range(_calls(plan, group)):
            text = prompts.brainstorm_prompt(group, _persona(plan, "task persona", number))
            prompt = Prompt(text, seed=_seed(plan, "tasks", number))
            yield PromptJob(TASKS, number, prompt, _read_tasks, {"group": group})
            number += 1


def _examples(plan: Plan, tasks: Mapping[str, Sequence[str]]) -> Iterator[PromptJob]:
    """Prompts for the examples, numbered from 0; `tasks` by group."""
    sampler = plan.sampler
    order = in_turn(len(plan.passages), sampler.seed)
    asked = 0  # how many passages were asked about so far
    for number in range(plan.examples):
        group = sampler.group(number)
        values = sampler.values(group, number)
        about: dict[str, Any] = {"group": group, "values": values}
        filled = dict(values)
        instruction: str | None = SYMMETRIC.get(group)
        if group == GROUNDED:
            passage = plan.passages[order[asked % len(order)]]
            asked += 1
            filled["passage"], instruction = passage.text, plan.instruction
            about |= {"place": passage.place, "passage": passage.text}
        elif prompts.has_tasks(group):
            instruction = filled["task"] = sampler.rng("task", number).choice(tasks[group])
        persona = _persona(plan, "persona", number)
        if persona and "user_query" in prompts.KEYS[group]:
            about["persona"] = persona
        schema = prompts.reply_schema(group)
        text = prompts.example_prompt(group, filled, persona)
        prompt = Prompt(text, schema, _seed(plan, "example", number))
        reading = partial(_read_example, prompts.KEYS[group])
        yield PromptJob(EXAMPLE, number, prompt, reading, about | {"instruction": instruction})


def _tasks(plan: Plan, journal: Journal) -> dict[str, list[str]]:
    """The tasks that the model thought of, by group, without repetitions, in the order of calls.

    Raises:
        Stopped: a group has none, because no reply could be used.
    """
    found: dict[str, dict[str, None]] = {group: {} for group in _groups_with_tasks(plan)}
    for line in journal.values(TASKS):
        found[line["group"]] |= dict.fromkeys(line["value"])
    for group, tasks in found.items():
        if not tasks:
            raise Stopped(f"the model thought of no task for {group}: no reply could be used")
    return {group: list(tasks) for group, tasks in found.items()}


def _groups_with_tasks(plan: Plan) -> list[str]:
    return [group for group in plan.sampler.groups if prompts.has_tasks(group)]


def _calls(plan: Plan, group: str) -> int:
    """How many prompts for tasks a group needs, by its expected number of examples."""
    weights = plan.sampler.groups
    expected = plan.examples * weights[group] / sum(weights.values())
    return max(1, ceil(expected / plan.examples_per_task / prompts.TASKS_PER_CALL))


def _persona(plan: Plan, what: str, number: int) -> str:
    return plan.sampler.rng(what, number).choice(plan.personas) if plan.personas else ""


def _seed(plan: Plan, what: str, number: int) -> int:
    return plan.sampler.rng("seed", what, number).getrandbits(31)


def _read_tasks(reply: Reply) -> list[str]:
    return parse_tasks(reply.text, truncated=reply.truncated)


def _read_example(keys: Sequence[str], reply: Reply) -> tuple[str, ...]:
    return parse_example(reply.text, keys, truncated=reply.truncated)


def _summary(
    plan: Plan, journal: Journal, limits: BudgetLimits, stopped: Stopped | None
) -> Summary:
    failed = Counter(
        reason for (kind, _), reason in sorted(journal.failures.items()) if kind == EXAMPLE
    )
    tasks: Counter[str] = Counter()
    for line in journal.values(TASKS):
        tasks[line["group"]] += len(line["value"])
    made = journal.count(EXAMPLE)
    return Summary(
        plan.examples,
        made,
        dict(failed),
        plan.examples - made - failed.total(),
        dict(tasks),
        journal.tokens_in,
        journal.tokens_out,
        limits.cost(journal.tokens_in, journal.tokens_out),
        "" if stopped is None else str(stopped),
        isinstance(stopped, OutOfBudget),
    )
