"""What a long run tells of itself."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from llm_embeddings.storage.progress import Meter


@pytest.mark.parametrize("terminal", [False, True])
def test_a_meter_says_how_far_it_is(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("llm_embeddings.storage.progress.time.monotonic", lambda: clock[0])
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=100, soft_wrap=True)
    with Meter(console, "rows", begun=200, total=1000) as meter:
        clock[0] = 10.0
        meter.add(300, 6000)
        assert terminal or not shown.getvalue()
        clock[0] = 80.0
        meter.add(90, 2000, left_out=10)
    words = "600 of 1,000 rows, 5/s, 100 tokens/s, 0:01:20 left"
    assert (meter.count, meter.tokens, meter.seconds) == (390, 8000, 80.0)
    assert shown.getvalue().count(words) == 1 if not terminal else words in shown.getvalue()


def test_a_meter_without_a_total_goes_by_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("llm_embeddings.storage.progress.time.monotonic", lambda: clock[0])
    shown = io.StringIO()
    with Meter(Console(file=shown, width=100), "texts", begun=7) as meter:
        meter.skip(0.5)
        clock[0] = 60.0
        meter.add(60, 120, 0.75)
        clock[0] = 119.0
        meter.add(59, 118, 0.8)
        clock[0] = 120.0
        meter.add(1, 2)
    lines = shown.getvalue().splitlines()
    assert lines == ["67 texts, 1/s, 2 tokens/s, 0:01:00 left", "127 texts, 1/s, 2 tokens/s"]
