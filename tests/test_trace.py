"""The story stays short: what one query enters, and how often it turns from file to file."""

from __future__ import annotations

import pytest

from scripts.trace import Trace, core, langchain


@pytest.fixture(scope="module")
def query() -> Trace:
    return core()


def test_a_query_goes_a_short_way(query: Trace) -> None:
    assert len(query.calls) <= 14
    assert query.steps <= 50
    assert sum(query.calls.values()) <= 250
    assert query.lines <= 2650


def test_what_a_trace_sees(query: Trace) -> None:
    """The bounds would hold of nothing: the way begins and ends where it should."""
    names = {path.name for path in query.calls}
    assert {"base_encoder.py", "tokens.py", "forward.py", "vectors.py"} <= names


def test_langchain_adds_two_files_at_most(query: Trace) -> None:
    assert len(langchain().calls.keys() - query.calls.keys()) <= 2
