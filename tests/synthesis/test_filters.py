"""Filters keep what is good and say why they refuse the rest."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.synthesis import GERMAN, TRANSIENT, FlakyChat, run_virtually

from llm_embeddings import Encoder
from llm_embeddings.synthesis.calls.asking import Manners
from llm_embeddings.synthesis.calls.generators import ChatGenerator
from llm_embeddings.synthesis.filters.chain import Filters, apply_filters
from llm_embeddings.synthesis.filters.consistency import ranks
from llm_embeddings.synthesis.filters.duplicates import NearDuplicates, normalized, shingles
from llm_embeddings.synthesis.filters.languages import LanguageJudge
from llm_embeddings.synthesis.filters.report import rejected_by, write_report
from llm_embeddings.synthesis.placeholders import Sampler
from llm_embeddings.synthesis.rows import SyntheticRow, rows_of
from llm_embeddings.synthesis.run import Plan, Summary, agenerate

LONG = (
    "The lighthouse keeper climbs the stairs every evening, lights the lamp and writes into a book "
    "which ships have passed, what the weather was like and who came to visit him on the rock."
)
CHINESE = "灯塔看守人每天晚上爬上楼梯,点亮灯,在一本书里写下哪些船经过、天气怎样、谁来看过他。"


def row(number: int = 0, group: str = "short-long", **more: Any) -> SyntheticRow:
    values: dict[str, Any] = {
        "query": f"who lights lamp {number}",
        "positive": f"Lamp {number}. {LONG}",
        "negative": f"No lamp at all but {number} candles.",
        "instruction": None,
        "languages": ("en", "en"),
    }
    values |= more
    return SyntheticRow(group=group, provenance={"number": number}, **values)


def refused(rows: list[SyntheticRow], **filters: Any) -> list[tuple[int, str]]:
    found = apply_filters(rows, Filters(**filters))
    assert len(found.kept) + len(found.rejected) == len(rows)
    return [(rejected.row.number, rejected.filter) for rejected in found.rejected]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"query": " ", "positive": "x y z"}, "schema"),
        ({"positive": "Who lights LAMP  0"}, "schema"),
        ({"query": "a"}, "length"),
        ({"positive": "word " * 5000}, "length"),
        ({"positive": GERMAN.format(1)}, "language"),
        ({"negative": CHINESE}, "language"),
        ({"query": LONG[:53], "positive": f"It is said: {LONG}"}, "leakage"),
        ({"group": "long-short", "query": "What a nice day it is", "positive": "Nice"}, "leakage"),
    ],
)
def test_each_filter_refuses(given: dict[str, Any], name: str) -> None:
    assert refused([row(**given), row(1, query="how long does it burn")]) == [(0, name)]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"group": "long-short", "query": "What a niceness it is", "positive": "Nice"},
        {"group": "long-short", "query": LONG, "positive": "气象", "negative": "航海"},
        {"group": "bitext", "query": LONG, "positive": CHINESE, "languages": ("en", "zh")},
        {"positive": CHINESE, "languages": ("zh", "zh"), "negative": ""},
        {"group": "grounded", "positive": GERMAN.format(2), "languages": ()},
        {"query": "lamp", "positive": f"The lamp. {LONG}"},  # one word may well come up again
    ],
)
def test_good_rows_are_kept(given: dict[str, Any]) -> None:
    assert refused([row(**given)]) == []


@pytest.mark.slow
def test_duplicates() -> None:
    first = row(0)
    same = row(1, query=first.query.upper(), positive=first.positive, negative="Another one.")
    near = row(2, query=first.query, positive=f"{first.positive} Indeed.")
    assert refused([first, same, near]) == [(1, "duplicate"), (2, "near duplicate")]
    assert refused([first, same, near], near=None) == [(1, "duplicate")]


def test_queries_for_one_passage_are_no_duplicates() -> None:
    rows = [row(i, "grounded", query=q, positive=LONG) for i, q in enumerate(("lamp", "book"))]
    assert refused(rows) == []


def test_near_duplicates_of_scripts_without_spaces() -> None:
    near = NearDuplicates(0.7)
    assert near.add(CHINESE, "a") == ""
    assert near.add(CHINESE.replace("灯塔", "塔楼"), "b") == "a"
    assert near.add(LONG, "c") == ""
    assert near.add("short", "d") == near.add("short", "e") == ""
    assert all(len(shingle) == 5 for shingle in shingles(CHINESE))
    assert normalized(" A b\tC\n") == "abc"
    with pytest.raises(ValueError, match=r"not in \(0, 1\]"):
        NearDuplicates(1.5)


def test_languages_are_judged_where_it_is_sure() -> None:
    judge = LanguageJudge()
    assert judge.other_than(GERMAN, "en") == "de"
    assert judge.other_than(CHINESE, "ja") == "zh"
    for text, language in ((LONG, "en"), (GERMAN, "de"), (CHINESE, "zh"), ("Bonjour", "en")):
        assert judge.other_than(text, language) == ""
    assert judge.other_than(LONG, "su") == ""  # not among its languages


@pytest.mark.slow
def test_contamination(tmp_path: Path) -> None:
    beir = tmp_path / "set"
    beir.mkdir()
    (beir / "queries.jsonl").write_text(json.dumps({"_id": "1", "text": "Who lights  lamp 3"}))
    (beir / "corpus.jsonl").write_text(json.dumps({"_id": "1", "text": row(4).positive}))
    pairs = tmp_path / "sts.jsonl"
    pairs.write_text(json.dumps({"a": f"{LONG} Indeed.", "b": "none", "score": 1}))
    rows = [row(i, positive=f"Passage {i} {'abcdefgh'[i] * 9}") for i in range(5)]
    rows.append(row(5, positive=f"{LONG} Indeed!"))
    found = refused(rows, against=(beir, pairs))
    assert found == [(3, "contamination"), (5, "contamination")]
    with pytest.raises(FileNotFoundError, match="no such evaluation set"):
        refused(rows, against=(tmp_path / "none",))
    (tmp_path / "wrong.jsonl").write_text('{"x": 1}')
    with pytest.raises(ValueError, match="has the columns x"):
        refused(rows, against=(tmp_path / "wrong.jsonl",))


@pytest.mark.slow
def test_round_trip() -> None:
    encoder = Encoder.from_pretrained(dtype="float32")
    texts = ("Paris is the capital of France.", "Cats purr when happy.", "Iron rusts in water.")
    queries = ("French capital city", "why does my cat purr", "which animal says miaow")
    rows = [
        row(i, query=query, positive=text, negative="", instruction="Find it.")
        for i, (query, text) in enumerate(zip(queries, texts, strict=True))
    ]
    assert ranks(rows, encoder)[:2] == [1, 1]
    assert ranks(rows, encoder)[2] > 1
    assert refused(rows, encoder=encoder, round_trip=1) == [(2, "round trip")]
    assert refused(rows, encoder=encoder, round_trip=3) == []
    assert ranks([], encoder) == []
    other = [row(0, "sts", query=queries[2], positive=texts[0])]
    assert refused(other, encoder=encoder, round_trip=1) == []


@pytest.mark.parametrize("given", [{"shortest": 0}, {"longest": 2}, {"round_trip": 0}])
def test_filters_that_cannot_be(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"keep no text|must be 1"):
        Filters(**given)  # type: ignore[arg-type]


@pytest.mark.slow
def test_counts_of_a_whole_run_add_up(tmp_path: Path) -> None:
    chat = FlakyChat(latency=0.1)
    groups = {"short-long": 1.0, "long-long": 1.0}
    plan = Plan(examples=400, sampler=Sampler(1, groups=groups, languages={"en": 1.0}))
    manners = Manners(timeout=9.0)
    generator = ChatGenerator(chat, name="fake:flaky")
    summary, _ = run_virtually(agenerate(tmp_path, plan, generator, manners=manners))
    assert isinstance(summary, Summary)
    found = apply_filters(rows_of(tmp_path), Filters())
    counts = rejected_by(found)
    assert summary.made == len(found.kept) + sum(counts.values())
    calls: Counter[str] = Counter()
    for prompt, count in chat.prompts.items():
        calls[chat.fate(prompt)] += count
    assert counts["language"] == calls["language"]
    # Prompts that came twice have equal replies; those meant to be duplicates have one per group.
    good = {"", *TRANSIENT}
    different = sum(chat.fate(p) in good and "JSON list" not in p for p in chat.prompts) + 2
    assert counts["duplicate"] == summary.made - counts["language"] - different
    assert len(found.kept) == different
    write_report(tmp_path, summary, found)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["filters"] == counts
    assert sum(report["kept"].values()) == len(found.kept)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"| **kept** | **{len(found.kept)}** |" in page
    assert "# Refused by the filter language: samples" in page


def test_samples_in_the_report_are_no_markup(tmp_path: Path) -> None:
    nasty = row(0, query="# A heading", positive="</details>\n\n```\ncode")
    found = apply_filters([nasty], Filters(language=False))
    summary = Summary(1, 1, {}, 0, {}, 0, 0, 0.0, "", False)
    write_report(tmp_path, summary, found)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "\n    # A heading\n" in page
    assert "\n    ```\n" in page
