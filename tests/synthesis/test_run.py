"""Runs of synthesize: through failures, kills, limits, and mistakes of their users."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import child_environment
from helpers.synthesis import LASTING, FlakyChat, run_virtually, said

from llm_embeddings.synthesis.calls.asking import Manners
from llm_embeddings.synthesis.calls.budget import BudgetLimits
from llm_embeddings.synthesis.calls.generators import (
    ChatGenerator,
    ModelOptions,
    Prompt,
    Reply,
    Unavailable,
)
from llm_embeddings.synthesis.calls.journal import EXAMPLE, recorded
from llm_embeddings.synthesis.calls.providers import open_generator
from llm_embeddings.synthesis.grounding import GroundingPassage
from llm_embeddings.synthesis.placeholders import Sampler
from llm_embeddings.synthesis.rows import rows_of
from llm_embeddings.synthesis.run import Plan, Summary, agenerate, generate

ENGLISH = Sampler(7, languages={"en": 1.0, "fr": 1.0})
QUIET = Manners(timeout=30.0, concurrency=16)


class Scripted:
    """Answers in the test's own words, and counts."""

    name = "scripted"

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer or (lambda prompt: Reply(said(prompt.text, ""), 300, 100))
        self.calls = 0

    async def __call__(self, prompt: Prompt) -> Reply:
        self.calls += 1
        await asyncio.sleep(0)
        found = self.answer(prompt)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Reply)
        return found


def flaky(latency: float = 1.0) -> tuple[FlakyChat, ChatGenerator]:
    chat = FlakyChat(latency=latency)
    return chat, ChatGenerator(chat, name="fake:flaky")


def numbers(run: Path) -> list[int]:
    """Of the examples in the journal's lines, with repetitions."""
    lines = (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    found = [json.loads(line) for line in lines]
    return [line["number"] for line in found if line["kind"] == EXAMPLE and line["value"]]


def adds_up(summary: Summary) -> bool:
    return summary.planned == summary.made + sum(summary.failed.values()) + summary.untried


def test_failures_are_counted_and_nothing_is_lost(tmp_path: Path) -> None:
    chat, generator = flaky()
    plan = Plan(examples=800, sampler=ENGLISH)
    summary, seconds = run_virtually(agenerate(tmp_path, plan, generator, manners=QUIET))
    expected: Counter[str] = Counter()
    for prompt, calls in chat.prompts.items():
        if (fate := chat.fate(prompt)) in LASTING:  # a bad reply is asked for twice
            expected[fate] += calls if fate == "rejected" else calls // 2
    assert summary.failed == expected
    assert len(expected) == len(LASTING)
    assert summary.made == 800 - expected.total()
    assert adds_up(summary)
    assert summary.untried == 0
    assert sorted(numbers(tmp_path)) == [row.number for row in rows_of(tmp_path)]
    assert len(set(numbers(tmp_path))) == summary.made
    # Bound by the endpoint: calls of a second, 16 at once, and what time-outs and limits cost.
    calls = chat.prompts.total()
    late = sum(chat.fate(prompt) == "timeout" for prompt in chat.prompts)
    assert seconds <= 1.2 * (calls + 30 * late) / 16 + 60
    assert chat.most_at_once == 16


def test_rows_say_where_they_come_from_and_train(tmp_path: Path) -> None:
    from llm_embeddings.records.examples import read_examples
    from llm_embeddings.records.sources import sources_of
    from llm_embeddings.synthesis.rows import write_rows

    plan = Plan(examples=60, sampler=ENGLISH, personas=("a nurse", "a sailor"))
    generate(tmp_path / "run", plan, Scripted())
    rows = list(rows_of(tmp_path / "run"))
    counts = write_rows(rows, tmp_path / "train")
    examples = [e for s in sources_of([tmp_path / "train"]) for e in read_examples(s)]
    assert len(examples) == len(rows) == sum(counts.values()) == 60
    assert {(e.query, *e.positives, *e.negatives) for e in examples} == {row.texts for row in rows}
    assert {e.instruction for e in examples if "sts" in e.source} == {
        "Retrieve semantically similar text."
    }
    about = rows[0].provenance
    assert (about["model"], about["prompt_version"], about["seed"]) == ("scripted", "1", 7)
    assert {row.provenance.get("persona") for row in rows if row.group == "short-long"} == {
        "a nurse",
        "a sailor",
    }


KILLED = """
import asyncio, os, signal
from pathlib import Path
from helpers.synthesis import said
from llm_embeddings.synthesis.calls.generators import Reply
from llm_embeddings.synthesis.placeholders import Sampler
from llm_embeddings.synthesis.run import Plan, generate

class Deadly:
    name = "scripted"
    calls = 0
    async def __call__(self, prompt):
        self.calls += 1
        if self.calls == {deadly}:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0)
        return Reply(said(prompt.text, ""), 300, 100)

sampler = Sampler(7, languages={{"en": 1.0, "fr": 1.0}})
generate(Path({run!r}), Plan(examples=300, sampler=sampler), Deadly())
"""


@pytest.mark.parametrize("deadly", [3, 150])
@pytest.mark.slow
def test_a_kill_loses_and_repeats_nothing(tmp_path: Path, deadly: int) -> None:
    plan = Plan(examples=300, sampler=ENGLISH)
    run = tmp_path / "killed"
    code = KILLED.format(deadly=deadly, run=str(run))
    command = [sys.executable, "-c", code]
    killed = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    before = len((run / "journal.jsonl").read_bytes().splitlines()) - 1
    assert before >= deadly - 1 - 16
    generator = Scripted()
    resumed = generate(run, plan, generator)
    whole = Scripted()
    generate(tmp_path / "whole", plan, whole)
    assert resumed.made == 300
    assert sorted(numbers(run)) == list(range(300))
    assert generator.calls == whole.calls - before
    assert list(rows_of(run)) == list(rows_of(tmp_path / "whole"))


def test_a_line_cut_off_is_asked_again(tmp_path: Path) -> None:
    plan = Plan(examples=20, sampler=ENGLISH)
    generate(tmp_path, plan, Scripted())
    before = list(rows_of(tmp_path))
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    generator = Scripted()
    assert generate(tmp_path, plan, generator).made == 20
    assert generator.calls == 1
    assert list(rows_of(tmp_path)) == before


@pytest.mark.parametrize("limit", ["tokens", "money"])
def test_the_budget_is_never_exceeded(tmp_path: Path, limit: str) -> None:
    plan, options = Plan(examples=500, sampler=ENGLISH), ModelOptions(max_reply_tokens=200)
    limits = {
        "tokens": BudgetLimits(tokens=60_000),
        "money": BudgetLimits(money=0.05, price_in=1.0, price_out=2.0),
    }[limit]
    summary = generate(tmp_path, plan, Scripted(), limits=limits, options=options)
    assert summary.spent
    assert "budget" in summary.stopped
    assert adds_up(summary)
    assert 0 < summary.made < 500
    used = summary.tokens_in + summary.tokens_out
    worst = 4000  # what one call reserves: the bytes of its prompt, and the longest reply
    if limit == "tokens":
        assert 60_000 - worst <= used <= 60_000
    else:
        assert 0.05 - worst * 2e-6 <= summary.cost <= 0.05
    more = generate(tmp_path, plan, Scripted(), options=options)  # the budget is raised
    assert (more.made, more.stopped) == (500, "")


def test_rate_limits_make_all_calls_wait(tmp_path: Path) -> None:
    limited = iter([True] * 3)

    def answer(prompt: Prompt) -> Any:
        if next(limited, False):
            return Unavailable("slow down", limited=True, after=100.0)
        return Reply(said(prompt.text, ""), 1, 1)

    plan = Plan(examples=40, sampler=ENGLISH)
    generator = Scripted(answer)
    summary, seconds = run_virtually(agenerate(tmp_path, plan, generator))
    assert summary.made == 40
    assert 300 <= seconds < 301  # three times, one after the other: the first call goes alone


def test_calls_per_minute(tmp_path: Path) -> None:
    plan = Plan(examples=100, sampler=Sampler(0, groups={"sts": 1}))
    paced = agenerate(tmp_path, plan, Scripted(), manners=Manners(per_minute=60.0))
    summary, seconds = run_virtually(paced)
    assert summary.made == 100
    assert 98.9 <= seconds <= 100


def test_an_endpoint_that_goes_down_ends_the_run(tmp_path: Path) -> None:
    generator = Scripted()
    generator.answer = lambda prompt: (
        Reply(said(prompt.text, ""), 1, 1)
        if generator.calls < 50
        else Unavailable("connection refused")
    )
    plan = Plan(examples=1000, sampler=ENGLISH)
    summary, _ = run_virtually(agenerate(tmp_path, plan, generator))
    assert "connection refused" in summary.stopped
    assert not summary.spent
    assert adds_up(summary)
    assert set(summary.failed) == {"unreachable"}
    again = generate(tmp_path, plan, Scripted())
    assert (again.made, again.failed) == (1000, {})


def test_an_endpoint_that_never_answers_shows_at_once(tmp_path: Path) -> None:
    generator = Scripted(lambda prompt: Unavailable("connection refused"))
    plan = Plan(examples=1000, sampler=ENGLISH)
    with pytest.raises(ValueError, match="scripted does not answer: connection refused"):
        run_virtually(agenerate(tmp_path, plan, generator))
    assert generator.calls == 2


def test_an_endpoint_may_need_a_second_call_to_wake_up(tmp_path: Path) -> None:
    asleep = iter([True])
    generator = Scripted(
        lambda prompt: (
            Unavailable("starting") if next(asleep, False) else Reply(said(prompt.text, ""), 1, 1)
        )
    )
    plan = Plan(examples=5, sampler=ENGLISH)
    summary, _ = run_virtually(agenerate(tmp_path, plan, generator))
    assert (summary.made, summary.failed) == (5, {})


def test_a_model_that_talks_nonsense_ends_the_run(tmp_path: Path) -> None:
    generator = Scripted(lambda prompt: Reply("Once upon a time", 10, 10))
    plan = Plan(examples=1000, sampler=Sampler(0, groups={"sts": 1}))
    summary = generate(tmp_path, plan, generator)
    assert "failures in a row" in summary.stopped
    assert generator.calls < 100
    assert adds_up(summary)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    plan = Plan(examples=5, sampler=ENGLISH)
    generate(tmp_path, plan, Scripted())
    other = Plan(examples=5, sampler=Sampler(8, languages={"en": 1.0, "fr": 1.0}))
    with pytest.raises(ValueError, match="was begun with seed = 7, and now it is 8"):
        generate(tmp_path, other, Scripted())
    with pytest.raises(ValueError, match="temperature"):
        generate(tmp_path, plan, Scripted(), options=ModelOptions(temperature=0.5))


def test_a_directory_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear")
    with pytest.raises(ValueError, match="holds other files"):
        generate(tmp_path, Plan(examples=5, sampler=ENGLISH), Scripted())
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_foreign_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="which no run wrote"):
        generate(tmp_path, Plan(examples=5, sampler=ENGLISH), Scripted())
    with pytest.raises(FileNotFoundError, match="is no run"):
        recorded(tmp_path / "none", EXAMPLE)


def test_queries_go_round_all_passages(tmp_path: Path) -> None:
    passages = tuple(GroundingPassage(f"file:{i}", f"What passage {i} says.") for i in range(7))
    sampler = Sampler(0, groups={"grounded": 1})
    plan = Plan(examples=21, sampler=sampler, passages=passages, instruction="Find it.")
    generate(tmp_path, plan, Scripted())
    rows = list(rows_of(tmp_path))
    assert Counter(row.positive for row in rows) == {p.text: 3 for p in passages}
    assert {row.instruction for row in rows} == {"Find it."}
    assert all(row.provenance["place"].startswith("file:") for row in rows)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gpt-4.1", "names no provider"),
        ("nosuch:model", "cannot be used"),
        ("openai:gpt-4.1-mini", "OPENAI_API_KEY"),
    ],
)
def test_models_that_cannot_be(model: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match=message):
        open_generator(model)


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, r"refuses \(401\)"), (404, r"refuses \(404\)")],
)
def test_a_refused_key_or_model_ends_at_once(tmp_path: Path, status: int, message: str) -> None:
    class Refusing(FlakyChat):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            from helpers.synthesis import EndpointError

            self._prompts["any"] += 1
            raise EndpointError(status, "no")

    chat = Refusing()
    generator = ChatGenerator(chat, name="fake:refusing")
    with pytest.raises(ValueError, match=message):
        generate(tmp_path, Plan(examples=5, sampler=ENGLISH), generator)
    assert chat.prompts.total() == 1


async def test_structured_output_is_used_where_the_model_has_it() -> None:
    asked: list[Any] = []

    class Structured(FlakyChat):
        def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
            from langchain_core.messages import AIMessage
            from langchain_core.runnables import RunnableLambda

            asked.append((schema, kwargs))
            parsed = {"user_query": "from a schema"}
            return RunnableLambda(lambda _: {"raw": AIMessage(""), "parsed": parsed})

    schema = {"title": "Example", "type": "object", "properties": {}}
    generator = ChatGenerator(Structured(), name="fake:structured", structured="always")
    reply = await generator(Prompt("Ask.", schema))
    assert json.loads(reply.text) == {"user_query": "from a schema"}
    assert asked == [(schema, {"include_raw": True})]
    plain = ChatGenerator(Structured(), name="fake:structured", structured="auto")
    assert "from a schema" not in (await plain(Prompt("JSON list", schema))).text


@pytest.mark.slow
async def test_a_local_model_repeats_itself(tmp_path: Path) -> None:
    from helpers import BUNDLED, SMALL
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from llm_embeddings.checkpoint.loading import load_tokenizer

    tokenizer = load_tokenizer(BUNDLED / "e5-mistral/model")
    tokenizer.save_pretrained(tmp_path)
    LlamaForCausalLM(LlamaConfig(**SMALL, max_position_embeddings=64)).save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template is None
    generator = open_generator(f"local:{tmp_path}", ModelOptions(max_reply_tokens=5))
    one, again, other = [await generator(Prompt("Cats purr.", None, s)) for s in (1, 1, 2)]
    assert one == again
    assert one != other
    assert one.tokens_out == 5
    assert one.truncated
    assert (await generator(Prompt("word " * 100))).truncated
