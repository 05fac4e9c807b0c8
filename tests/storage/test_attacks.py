"""The attacks of `python -m benchmarks.attack` in small: nothing that is kept is wrong or lost."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.attack import disks, flips, interrupts, kills
from benchmarks.attack.runs import RUNS
from benchmarks.attack.stores import STORES

KINDS = {**STORES, **RUNS}
forks = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def wrong(found: Counter[str]) -> list[str]:
    return [what for what in found if what.startswith("WRONG")]


@pytest.mark.parametrize("name", KINDS)
def test_flipped_bits_are_never_believed(tmp_path: Path, name: str) -> None:
    found = flips.attack(KINDS[name], tmp_path, 8, seed=1)
    assert wrong(found) == []
    assert found.total() == 8


@forks
@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_kills_cost_nothing_that_was_finished(tmp_path: Path, name: str) -> None:
    found = kills.attack(KINDS[name], tmp_path, 3, seed=1)
    assert wrong(found) == []
    assert found["stores that went on"] > 0


@forks
@pytest.mark.slow
def test_interrupts_lose_no_passage_and_embed_none_twice(tmp_path: Path) -> None:
    found = interrupts.attack(tmp_path, 3, megabytes=2, seed=1)
    assert wrong(found) == []
    assert found["interrupts"] == 3
    assert found["passages embedded"] > 1000


@forks
@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_clocks_may_go_back(tmp_path: Path, name: str) -> None:
    assert disks.clocks(KINDS[name], tmp_path, 2) == {"stores that went on": 2}


@forks
@pytest.mark.slow
@pytest.mark.skipif(not disks.can_mount(), reason="needs Linux and root")
@pytest.mark.parametrize("name", KINDS)
def test_full_disks_and_disks_to_be_read_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "full").mkdir()
    found = disks.full(KINDS[name], tmp_path / "full", 2)
    assert wrong(found) == []
    assert found["stores that went on"] == 2
    assert wrong(disks.read_only(KINDS[name], tmp_path)) == []
