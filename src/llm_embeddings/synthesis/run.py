"""The two steps of E5's synthetic data: think of tasks, then write an example of each.

What an example is about depends on the seed and its number alone, so a run that was interrupted
goes on as if it had not been; its texts repeat too where the model gives the same reply to the same
prompt.
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

from . import prompts
from .calls.asking import Asker, Job, Manners, OutOfBudget, Stopped
from .calls.budget import Budget, Limits
from .calls.generators import Generator, ModelOptions, Prompt, Reply
from .calls.journal import EXAMPLE, TASKS, Journal
from .calls.parsing import parse_example, parse_tasks
from .grounding import Passage, digest, in_turn
from .placeholders import GROUNDED, SYMMETRIC, Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run makes.

    Attributes:
        examples: How many.
        sampler: Groups, languages and seed.
        passages: Of the user's documents, for the group "grounded".
        personas: Who types queries; none = anybody.
        instruction: Of grounded examples; None = rows without one, "" = none.
        examples_per_task: How often a task is used on average. The paper has 312 k examples of
            asymmetric groups and 150 k instructions.
    """

    examples: int
    sampler: Sampler = field(default_factory=lambda: Sampler(0))
    passages: Sequence[Passage] = ()
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
        """All that rows depend on: a run goes on only if none of it has changed."""
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
    """What came of a run, with its earlier parts.

    Attributes:
        planned: Examples wanted.
        made: Examples there are.
        failed: How many failed, by reason. What did so for want of an endpoint is tried again
            when the run is continued.
        untried: Examples nobody asked for yet.
        tasks: Tasks thought of, by group.
        tokens_in: Of all prompts.
        tokens_out: Of all replies.
        cost: By the prices given.
        stopped: Why the run ended before its end; "" = it did not.
        spent: Whether it was for the budget.
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
    generator: Generator,
    *,
    limits: Limits | None = None,
    manners: Manners | None = None,
    options: ModelOptions | None = None,
    watch: Callable[[Journal], None] = lambda journal: None,
) -> Summary:
    """Make the examples of a plan, or those that earlier calls left; see `agenerate`."""
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
    generator: Generator,
    *,
    limits: Limits | None = None,
    manners: Manners | None = None,
    options: ModelOptions | None = None,
    watch: Callable[[Journal], None] = lambda journal: None,
) -> Summary:
    """Make the examples of a plan, or those that earlier calls left.

    Args:
        output: Directory of the run; its journal holds every answer. `read_rows` reads it.
        plan: What is made.
        generator: Who answers; from `open_generator`, or any callable of that kind.
        limits: What may be used, over all parts of the run; None = no limits.
        manners: How the endpoint is treated.
        options: How the model is asked: what the generator was opened with.
        watch: Called after every answer.

    Returns:
        What there is. `stopped` says why not all, if the budget or the endpoint gave out.

    Raises:
        OSError: the directory cannot be written.
        ValueError: the directory is another run's, or the model will never answer.
    """
    options = options or ModelOptions()
    limits = limits or Limits()
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


def _brainstorming(plan: Plan) -> Iterator[Job]:
    """Jobs for as many tasks as the examples need; numbered over all groups."""
    number = 0
    for group in _groups_with_tasks(plan):
        for _ in range(_calls(plan, group)):
            persona = _persona(plan, "task persona", number)
            yield Job(
                TASKS,
                number,
                Prompt(
                    prompts.brainstorm_prompt(group, persona),
                    seed=_seed(plan, "tasks", number),
                ),
                _read_tasks,
                {"group": group},
            )
            number += 1


def _examples(plan: Plan, tasks: Mapping[str, Sequence[str]]) -> Iterator[Job]:
    sampler = plan.sampler
    order = in_turn(len(plan.passages), sampler.seed)
    asked = 0  # of the passages, so far
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
        yield Job(EXAMPLE, number, prompt, reading, about | {"instruction": instruction})


def _tasks(plan: Plan, journal: Journal) -> dict[str, list[str]]:
    """The tasks of each group, each once, in the order of the calls.

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
    """Brainstormings of a group, by the number of examples that is expected of it."""
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


def _summary(plan: Plan, journal: Journal, limits: Limits, stopped: Stopped | None) -> Summary:
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
