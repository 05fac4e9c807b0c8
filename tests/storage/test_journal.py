"""Journals and locks: files that one process writes at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llm_embeddings.storage.files import lock_of, locked
from llm_embeddings.storage.journal import JournalFile, check_settings, written_lines

# -- journals --------------------------------------------------------------------------------------


def test_a_line_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = JournalFile(path, path)
    places = [journal.append({"n": n, "text": "é\ud800"}) for n in range(3)]
    journal.close()
    path.write_bytes(path.read_bytes()[:-3])
    journal = JournalFile(path, path)
    assert [place for place, _, _ in journal.lines()] == places[:2]
    assert journal.at(places[1]) == {"n": 1, "text": "é\ud800"}
    journal.truncate(places[2])
    assert journal.append({"n": 9}) == places[2]
    with path.open("rb") as reader:
        assert len(list(written_lines(reader, path))) == 3
    journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_a_disk_has_changed_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = JournalFile(path, path)
    places = [journal.append({"n": n}) for n in range(3)]
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"n": 1', b'"n": 7'))
    journal = JournalFile(path, path)
    assert [values for _, _, values in journal.lines()] == [{"n": 0}, None, {"n": 2}]
    with pytest.raises(ValueError, match=r"journal\.jsonl has changed on the disk at byte"):
        journal.at(places[1])
    journal.close()
    path.write_bytes(whole.replace(b"seal", b"seam", 2).replace(b"seam", b"seal", 1))
    journal = JournalFile(path, path)
    assert [values for _, _, values in journal.lines()] == [{"n": 0}, None, {"n": 2}]
    journal.close()
    path.write_bytes(b'{"n": 0}\n{"n": 1}\n')
    with path.open("rb") as older:
        found = [values for _, _, values in written_lines(older, path)]
    assert found == [{"n": 0}, {"n": 1}], "a version without checksums wrote it"


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
