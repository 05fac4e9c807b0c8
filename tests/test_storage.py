"""What is written while it runs: journals, locks, progress."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from llm_embeddings.storage.files import lock_of, locked
from llm_embeddings.storage.journal import JournalFile, check_settings, whole_lines
from llm_embeddings.storage.progress import Meter

# -- journals --------------------------------------------------------------------------------------


def test_a_line_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = JournalFile(path, path)
    assert [journal.append({"n": n, "text": "é\ud800"}) for n in range(3)] == [0, 26, 52]
    journal.close()
    path.write_bytes(path.read_bytes()[:-3])
    journal = JournalFile(path, path)
    places = [place for place, _ in journal.lines()]
    assert (places, journal.at(26)) == ([0, 26], {"n": 1, "text": "é\ud800"})
    journal.truncate(52)
    assert journal.append({"n": 9}) == 52
    with path.open("rb") as reader:
        assert len(list(whole_lines(reader))) == 3
    journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_settings_are_compared_by_name() -> None:
    check_settings("run", {"seed": 1, "old": 2}, {"seed": 1, "new": None}, "begin again")
    with pytest.raises(ValueError, match="run was begun with seed = 1, and now it is 2: begin"):
        check_settings("run", {"seed": 1}, {"seed": 2}, "begin again")


# -- locks -----------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from llm_embeddings.storage.files import locked

with locked(Path(sys.argv[1]), Path("it")):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "file"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="another process is writing it"), locked(path, Path("it")):
        pass
    holder.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    holder.communicate()
    with locked(path, Path("it")):
        assert lock_of(path).is_file()
    assert not path.exists()


# -- progress --------------------------------------------------------------------------------------


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
        clock[0] = 40.0
        meter.add(90, 2000, left_out=10)
    words = "600 of 1,000 rows, 10/s, 200 tokens/s, 0:00:40 left"
    assert (meter.count, meter.tokens, meter.seconds) == (390, 8000, 40.0)
    assert shown.getvalue().count(words) == 1 if not terminal else words in shown.getvalue()


def test_a_meter_without_a_total_goes_by_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("llm_embeddings.storage.progress.time.monotonic", lambda: clock[0])
    shown = io.StringIO()
    with Meter(Console(file=shown, width=100), "texts", begun=7) as meter:
        meter.skip(0.5)
        clock[0] = 31.0
        meter.add(31, 62, 0.75)
        clock[0] = 62.0
        meter.add(31, 62)
    lines = shown.getvalue().splitlines()
    assert lines == ["38 texts, 1/s, 2 tokens/s, 0:00:31 left", "69 texts, 1/s, 2 tokens/s"]
