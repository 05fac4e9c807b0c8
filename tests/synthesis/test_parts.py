"""What runs of synthesize are made of: placeholders, prompts, replies, documents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from scipy.stats import chisquare

from llm_embeddings.synthesis.calls.budget import BudgetLimits
from llm_embeddings.synthesis.calls.generators import Rejected, Unavailable, sorted_error
from llm_embeddings.synthesis.calls.parsing import ReplyError, parse_example, parse_tasks
from llm_embeddings.synthesis.grounding import in_turn, read_grounding, read_personas
from llm_embeddings.synthesis.placeholders import (
    GROUP_WEIGHTS,
    LANGUAGES,
    VALUES,
    Sampler,
    published_languages,
)
from llm_embeddings.synthesis.prompts import (
    KEYS,
    brainstorm_prompt,
    example_prompt,
    has_tasks,
    reply_schema,
)
from llm_embeddings.synthesis.run import Plan

DRAWN = 20_000


def agrees(found: Counter[str], weights: Mapping[str, float]) -> bool:
    """Whether counts are those of a draw by weights: chi-square at one in a thousand."""
    assert set(found) <= set(weights)
    total = sum(weights.values())
    expected = [found.total() * weight / total for weight in weights.values()]
    return bool(chisquare([found[name] for name in weights], expected).pvalue > 0.001)


def test_groups_follow_the_published_sizes() -> None:
    sampler = Sampler(0)
    found = Counter(sampler.group(number) for number in range(DRAWN))
    assert agrees(found, GROUP_WEIGHTS)
    assert not agrees(found, dict.fromkeys(GROUP_WEIGHTS, 1.0))


@pytest.mark.parametrize("group", ["short-long", "bitext"])
def test_placeholders_and_languages_follow_the_specification(group: str) -> None:
    sampler = Sampler(0)
    drawn = [sampler.values(group, number) for number in range(DRAWN)]
    for name, values in VALUES[group].items():
        assert agrees(Counter(values[name] for values in drawn), dict.fromkeys(values, 1.0)), name
    language = "src_lang" if group == "bitext" else "language"
    assert agrees(Counter(values[language] for values in drawn), published_languages())
    if group == "bitext":
        assert all(values["src_lang"] != values["tgt_lang"] for values in drawn)


def test_languages_of_the_user() -> None:
    weights = {"de": 3.0, "ja": 1.0}
    sampler = Sampler(1, languages=weights)
    drawn = Counter(sampler.values("sts", number)["language"] for number in range(2000))
    assert agrees(drawn, weights)


def test_published_languages_are_all_there() -> None:
    weights = published_languages()
    assert len(weights) == len(LANGUAGES) == 93
    assert sum(weights.values()) == pytest.approx(100)
    assert weights["en"] == 43.1
    assert 2.7 < weights["de"] < 3.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"groups": {"poems": 1}}, "group 'poems' is not known"),
        ({"groups": {"sts": 0}}, "a weight is above 0"),
        ({"groups": {}}, "no group"),
        ({"languages": {"tlh": 1}}, "language 'tlh' is not known"),
        ({"languages": {"en": 1}}, "bitext needs two languages"),
    ],
)
def test_samplers_that_cannot_be(given: dict[str, dict[str, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler(0, **given)


@pytest.mark.parametrize("group", VALUES)
def test_prompts_name_every_placeholder_and_key(group: str) -> None:
    values = Sampler(3).values(group, 5)
    filled = {**values, "task": "Find the {odd} one.", "passage": "Cats {purr}."}
    prompt = example_prompt(group, filled, "a nurse")
    for name, value in values.items():
        assert (LANGUAGES[value] if name.endswith(("lang", "language")) else value) in prompt
    assert all(f'"{key}"' in prompt for key in KEYS[group])
    assert list(reply_schema(group)["required"]) == list(KEYS[group])  # type: ignore[call-overload]
    assert ("Find the {odd} one." in prompt) == has_tasks(group)
    assert ("a nurse" in prompt) == ("user_query" in KEYS[group])
    if has_tasks(group):
        assert "a nurse" in brainstorm_prompt(group, "a nurse")
        assert brainstorm_prompt(group) != brainstorm_prompt(group, "a nurse")


TRIPLE = ("S1", "S2", "S3")
GOOD = '{"S1": "one", "S2": "two", "S3": "three"}'


@pytest.mark.parametrize(
    "reply", [GOOD, f"```json\n{GOOD}\n```", f"Here it is: {GOOD} I hope it helps."]
)
def test_replies_that_parse(reply: str) -> None:
    assert parse_example(reply, TRIPLE) == ("one", "two", "three")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("I'm sorry, but I can't write that.", "refusal"),
        ("I\u2019m sorry, no.", "refusal"),
        ("Sure! S1 is one, S2 is two.", "not JSON"),
        ("{'S1': 'one', 'S2': 'two', 'S3': 'three'}", "not JSON"),
        ('{"S1": "one", "S2": "two"', "truncated"),
        ('{"S1": "one", "S2": "tw', "truncated"),
        ('{"S1": "one", S2: "two", "S3": "three"}', "not JSON"),
        ('{"S1": "one", "S2": "two"}', "wrong keys"),
        (GOOD.replace("}", ', "S4": "four"}'), "wrong keys"),
        ('{"S1": "one", "S2": 2, "S3": "three"}', "wrong values"),
        ('{"S1": "one", "S2": " ", "S3": "three"}', "wrong values"),
        (GOOD + GOOD, "not JSON"),
        ("{" * 100_000, "not JSON"),
        ('{"S1": __import__("os").getcwd(), "S2": "two", "S3": "three"}', "not JSON"),
    ],
)
def test_replies_that_are_refused(reply: str, reason: str) -> None:
    with pytest.raises(ReplyError) as caught:
        parse_example(reply, TRIPLE)
    assert caught.value.reason == reason


def test_replies_that_the_model_cut_off() -> None:
    with pytest.raises(ReplyError) as caught:
        parse_example('{"S1": "one", oops', TRIPLE, truncated=True)
    assert caught.value.reason == "truncated"


def test_halves_of_characters_are_replaced() -> None:
    reply = '{"S1": "a \\ud83d", "S2": "two", "S3": "three"}'
    assert parse_example(reply, TRIPLE)[0] == "a ?"


def test_tasks() -> None:
    tasks = ["Find a  recipe by its\nname.", "Find a recipe by its name.", "short", "x" * 600]
    assert parse_tasks(f"```\n{json.dumps(tasks)}\n```") == ["Find a recipe by its name."]
    for reply in ('["short"]', "[1, 2]", '{"a": 1}', '["Find a recipe", '):
        with pytest.raises(ReplyError):
            parse_tasks(reply)


class StatusError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__("words")
        self.status_code = status_code


def test_errors_are_sorted() -> None:
    limited = sorted_error(StatusError(429), "m")
    assert isinstance(limited, Unavailable)
    assert limited.limited
    assert isinstance(sorted_error(StatusError(503), "m"), Unavailable)
    assert isinstance(sorted_error(StatusError(400), "m"), Rejected)
    assert isinstance(sorted_error(StatusError(401), "m"), ValueError)
    assert isinstance(sorted_error(ConnectionResetError("gone"), "m"), Unavailable)
    assert isinstance(sorted_error(KeyError("choices"), "m"), Rejected)
    named = type("APIConnectionError", (Exception,), {})
    assert isinstance(sorted_error(named("no route"), "m"), Unavailable)
    broke = StatusError(429)
    broke.code = "insufficient_quota"  # type: ignore[attr-defined]
    assert isinstance(sorted_error(broke, "m"), ValueError)


def test_retry_after_is_heard() -> None:
    error = StatusError(429)
    response = type("Response", (), {"headers": {"retry-after": "12"}, "status_code": 429})()
    error.response = response  # type: ignore[attr-defined]
    found = sorted_error(error, "m")
    assert isinstance(found, Unavailable)
    assert found.after == 12


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokens": 0}, "leaves nothing"),
        ({"money": 5.0}, "needs the prices"),
        ({"price_in": -1.0}, "none is below 0"),
    ],
)
def test_limits_that_cannot_be(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BudgetLimits(**given)  # type: ignore[arg-type]


def test_documents_become_passages(tmp_path: Path) -> None:
    text = "The pump needs oil every month. " * 20
    (tmp_path / "pump.md").write_text(f"# Pumps\n\n{text}")
    (tmp_path / "copy.md").write_text(f"# Pumps\n\n{text}")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2" * 100)
    (tmp_path / "short.txt").write_text("Too short.")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.md").write_text(text * 2)
    found = read_grounding([tmp_path], output=tmp_path / "run")
    assert found.found
    assert all(passage.text.startswith("Pumps") for passage in found.found)
    assert {passage.place.split(":")[0] for passage in found.found} == {str(tmp_path / "copy.md")}
    assert found.short >= 1
    assert sorted(reason.rsplit("/", 1)[-1].split(" (")[0] for reason in found.skipped) == [
        "binary.txt: binary",
        "empty.txt: empty",
    ]


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"\0" * 50, "binary"), (b"Short.", "under 200")]
)
def test_documents_with_nothing_to_ask_about(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_grounding([tmp_path / "a.txt"], output=tmp_path / "run")


def test_documents_and_personas_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such document"):
        read_grounding([tmp_path / "none"], output=tmp_path / "run")
    (tmp_path / "people.txt").write_text("\n  \n")
    with pytest.raises(ValueError, match="holds no persona"):
        read_personas(tmp_path / "people.txt")
    (tmp_path / "people.txt").write_text("a nurse\n\na sailor\na nurse\n")
    assert read_personas(tmp_path / "people.txt") == ("a nurse", "a sailor")


def test_plans_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="name some"):
        Plan(examples=1, sampler=Sampler(0, groups={"grounded": 1}))
    with pytest.raises(ValueError, match="at least one"):
        Plan(examples=0)


def test_turns_are_fair() -> None:
    order = in_turn(50, 1)
    assert sorted(order) == list(range(50))
    assert order != in_turn(50, 2)
