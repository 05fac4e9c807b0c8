"""The index of `llm-embeddings search`: what is kept, what is embedded again, what is refused."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import child_environment
from helpers.searching import STORY, dump, refresh, words_to_vectors
from numpy.typing import NDArray

from llm_embeddings.ranking.fusion import SearchMode
from llm_embeddings.searching.hits import Query
from llm_embeddings.searching.index import Index
from llm_embeddings.searching.places import FILE
from llm_embeddings.searching.sources import scan
from llm_embeddings.searching.updating import Changes, WatchUpdate, update


def test_only_what_changes_is_embedded(folder: Path, directory: Path) -> None:
    calls: list[str] = []

    def encode(texts: list[str]) -> NDArray[np.float32]:
        calls.extend(texts)
        return words_to_vectors(texts)

    first = refresh(folder, directory, encode=encode)
    assert (first.read, first.embedded, len(first.files)) == (2, 4, 2)
    assert (refresh(folder, directory, encode=encode).read, len(calls)) == (0, 4)

    (folder / "garden.txt").rename(folder / "moved.txt")
    (folder / "copy.md").write_text(STORY)
    os.utime(folder / "kitchen.md", ns=(1, 1))
    moved = refresh(folder, directory, encode=encode)
    assert (moved.read, moved.dropped, len(calls)) == (3, 1, 4)

    (folder / "moved.txt").write_text("Nothing but weeds.")
    (folder / "copy.md").unlink()
    changed = refresh(folder, directory, encode=encode)
    assert (changed.read, changed.dropped, calls[4:]) == (1, 1, ["Nothing but weeds."])
    fresh = directory.with_name("fresh")
    refresh(folder, fresh)
    assert dump(directory) == dump(fresh)


def test_files_outside_the_search_stay(folder: Path, directory: Path) -> None:
    refresh(folder, directory)
    some = refresh(folder, directory, globs=("*.txt",))
    assert [Path(path).name for path in some.files] == ["garden.txt"]
    assert refresh(folder, directory).read == 0


def test_skipped_files_are_told_once(folder: Path, directory: Path) -> None:
    (folder / "binary.md").write_bytes(b"\0")
    (folder / "photo.png").write_bytes(b"\0")
    (folder / "shop.md").write_bytes("Größe".encode("cp1252"))
    told: list[str] = []
    first = refresh(folder, directory, told=told)
    assert told == ["binary.md: binary (a NUL at byte 0)", "shop.md: read as cp1252"]
    assert [Path(skip.file.path).name for skip in first.news] == ["photo.png"]
    second = refresh(folder, directory, told=told)
    assert (second.read, second.news, len(told)) == (0, [], 2)
    assert second.skipped == first.skipped
    (folder / "binary.md").write_text("text now")
    third = refresh(folder, directory)
    assert len(third.files) == 4
    assert [Path(skip.file.path).name for skip in third.skipped] == ["photo.png"]


def test_skipped_files_are_told_before_an_interrupt(folder: Path, directory: Path) -> None:
    def interrupt(texts: list[str]) -> None:
        raise KeyboardInterrupt

    (folder / "binary.md").write_bytes(b"\0")
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        refresh(folder, directory, encode=interrupt, told=told)
    assert told == ["binary.md: binary (a NUL at byte 0)"]


def test_limits_and_globs_can_change(folder: Path, directory: Path) -> None:
    (folder / "code.py").write_text("bake()")
    (folder / "data.py").write_bytes(b"\0")
    (folder / "large.md").write_text("word " * 30_000)
    assert len(refresh(folder, directory).files) == 2
    for _ in range(2):
        code = refresh(folder, directory, globs=("*.py",))
        assert [Path(path).name for path in code.files] == ["code.py"]
        assert [skip.reason for skip in code.skipped] == ["binary (a NUL at byte 0)"]
        assert len(refresh(folder, directory).skipped) == 3
    assert refresh(folder, directory, globs=("code.py",)).read == 0
    assert len(refresh(folder, directory, max_bytes=200_000).files) == 3
    assert len(refresh(folder, directory).files) == 2
    assert refresh(folder, directory, max_bytes=200_000).read == 0


def test_unreadable_now_is_tried_again(
    folder: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        for _ in range(2):
            assert refresh(folder, directory, told=told).files == {}
    reason = "cannot be read (Permission denied)"
    assert told == [f"garden.txt: {reason}", f"kitchen.md: {reason}"]
    assert len(refresh(folder, directory).files) == 2


def test_a_file_that_vanishes_meanwhile_is_named(folder: Path, directory: Path) -> None:
    found = scan([folder], max_bytes=999, index=directory)
    (folder / "garden.txt").unlink()
    with Index(directory, "m", "m") as index:
        changes = update(index, found, words_to_vectors)
    (skip,) = changes.skipped
    assert skip.reason == "cannot be read (No such file or directory)"


def test_what_is_written_while_it_is_read_is_named_and_read_next_time(
    folder: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def growing(path: Path) -> bytes:
        data = read(path)
        if path.name == "garden.txt":
            with path.open("ab") as file:
                file.write(b"\nFeed the yak.\n")
        return data

    found = scan([folder], max_bytes=999, index=directory)
    (folder / "kitchen.md").write_text("Wash up.")  # written before it is read, and whole
    told: list[str] = []
    watch = WatchUpdate(note=lambda file, note: told.append(f"{Path(file.path).name}: {note}"))
    with monkeypatch.context() as patch, Index(directory, "m", "m") as index:
        patch.setattr(Path, "read_bytes", growing)
        update(index, found, words_to_vectors, watch)
    assert told == ["garden.txt: changed while it was read: search again for the rest"]
    assert [row[-1] for row in dump(directory) if "yak" in row[-1]] == []
    assert refresh(folder, directory).read == 1
    assert [row[-1] for row in dump(directory) if "yak" in row[-1]] != []


def test_half_a_surrogate_pair_is_kept_out(folder: Path, directory: Path) -> None:
    (folder / "odd.jsonl").write_text('{"title": "\\ud800", "text": "half \\udc00 pair"}')
    assert len(refresh(folder, directory).files) == 3
    assert "half ? pair" in {row[-1] for row in dump(directory)}


def test_best_is_exact_and_joins_copies(folder: Path, directory: Path) -> None:
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"number {number} of {number % 7} things")
    (folder / "copy.md").write_text(STORY)
    changes = refresh(folder, directory)
    query = words_to_vectors(["Oven heat it well."])[0]
    with Index(directory, "m", "m") as index:
        hits, compared = index.best(Query("", query, "vector"), 3, changes.files)
    texts = [text for *_, text in dump(directory) if text]
    passages = {text: words_to_vectors([text])[0] @ query for text in texts}
    assert compared == 40 + 3 + 1
    assert hits[0].chunk.heading == "Kitchen > Oven"
    assert [Path(path).name for path in sorted(hits[0].paths)] == ["copy.md", "kitchen.md"]
    assert hits[0].score >= max(passages.values())
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def found(directory: Path, changes: Changes, query: str, mode: SearchMode = "words") -> list[str]:
    """Texts of hits."""
    vector = words_to_vectors([query])[0]
    with Index(directory, "m", "m") as index:
        return [
            hit.chunk.text for hit in index.best(Query(query, vector, mode), 9, changes.files)[0]
        ]


def test_words_find_names_and_are_in_step_with_the_files(folder: Path, directory: Path) -> None:
    (folder / "codes.txt").write_text("QX-7741 is the lock.\n\n猫が好きです")
    changes = refresh(folder, directory)
    codes = "QX-7741 is the lock.\n\n猫が好きです"
    assert found(directory, changes, "what is qx-7741") == [codes]
    assert found(directory, changes, "猫") == found(directory, changes, "好き") == [codes]
    assert found(directory, changes, "baking") == ["We bake bread."]  # by its stem
    assert found(directory, changes, "zebra") == []
    assert found(directory, changes, "what is qx-7741", "hybrid")[0] == codes
    (folder / "codes.txt").write_text("A zebra.")
    (folder / "kitchen.md").unlink()
    changes = refresh(folder, directory)
    assert found(directory, changes, "qx-7741") == found(directory, changes, "bread") == []
    assert found(directory, changes, "zebra") == ["A zebra."]


def test_a_hit_has_the_scores_of_both(folder: Path, directory: Path) -> None:
    changes = refresh(folder, directory)
    vector = words_to_vectors(["bread"])[0]
    with Index(directory, "m", "m") as index:
        hits = {
            mode: index.best(Query("bread", vector, mode), 9, changes.files)[0]
            for mode in ("hybrid", "vector", "words")
        }
    cosines = {hit.chunk.text: hit.score for hit in hits["vector"]}
    assert {hit.chunk.text: hit.cosine for hit in hits["hybrid"]} == cosines
    (bread,) = hits["words"]
    assert [hit.words for hit in hits["hybrid"]] == [bread.score, 0, 0, 0]
    assert (bread.cosine, hits["vector"][0].words) == (None, None)


def test_another_model_is_refused_and_rebuild_obeyed(folder: Path, directory: Path) -> None:
    refresh(folder, directory)
    with pytest.raises(ValueError, match=r"made by m, not by other: --rebuild .* another --index"):
        refresh(folder, directory, maker="other")
    assert refresh(folder, directory, maker="other", rebuild=True).read == 2
    with pytest.raises(ValueError, match="made by other, not by m"):
        refresh(folder, directory)


def test_an_index_of_a_later_version_is_left_alone(folder: Path, directory: Path) -> None:
    refresh(folder, directory)
    with sqlite3.connect(directory / FILE) as connection:
        connection.execute("UPDATE facts SET key = '4:1000:150:m'")
    connection.close()
    before = (directory / FILE).read_bytes()
    remedy = r"later version of this package: pip install -U llm-embeddings; or --rebuild"
    with pytest.raises(ValueError, match=f"{directory} was made by a {remedy}"):
        refresh(folder, directory)
    assert (directory / FILE).read_bytes() == before
    with sqlite3.connect(directory / FILE) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(ValueError, match=r"of version 7, and this package writes 0: --rebuild"):
        refresh(folder, directory)
    assert refresh(folder, directory, rebuild=True).read == 2


def test_a_rebuild_meanwhile_is_noticed(folder: Path, directory: Path) -> None:
    refresh(folder, directory)
    with Index(directory, "m", "m") as index:
        refresh(folder, directory, maker="other", rebuild=True)
        with pytest.raises(ValueError, match="made by other"):
            index.drop([])
        with pytest.raises(ValueError, match="made by other"):
            index.best(Query("bread", np.ones(64, np.float32)), 1, {})


@pytest.mark.parametrize("rebuild", [False, True])
def test_another_programs_directory_is_left_alone(folder: Path, rebuild: bool) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(ValueError, match=r"not an index .* garden.txt, kitchen.md"):
        Index(folder, "m", "m", rebuild=rebuild)
    assert sorted(folder.iterdir()) == before


def test_a_damaged_index_can_be_rebuilt(folder: Path, directory: Path) -> None:
    refresh(folder, directory)
    (directory / FILE).write_bytes(b"no database at all" * 99)
    with pytest.raises(ValueError, match=r"index\.sqlite cannot be read as .*--rebuild makes"):
        refresh(folder, directory)
    assert refresh(folder, directory, rebuild=True).read == 2


def quick_vectors(texts: list[str]) -> NDArray[np.float32]:
    return np.eye(64, dtype=np.float32)[[zlib.crc32(text.encode()) % 64 for text in texts]]


class Interrupting:
    """An encoder that is interrupted before a batch, and knows what it has embedded."""

    def __init__(self) -> None:
        self.embedded: list[str] = []
        self.left = 0

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.embedded += texts
        return quick_vectors(texts)


def test_the_bytes_that_are_told_add_up(folder: Path, directory: Path) -> None:
    paragraphs = [f"part {number} " + "word " * 150 for number in range(300)]
    (folder / "large.txt").write_text("\n\n".join(paragraphs))
    encode, told = Interrupting(), [0.0, 0.0]

    def embedded(passages: list[str], size: float) -> None:
        told[0] += size

    def spared(size: float) -> None:
        told[1] += size

    found = scan([folder], max_bytes=10**6, index=directory)
    encode.left = 1
    with Index(directory, "m", "m") as index:
        with pytest.raises(KeyboardInterrupt):
            update(index, found, encode)
        encode.left = 9
        update(index, found, encode, WatchUpdate(embedded, spared))
    size = (folder / "large.txt").stat().st_size  # the others were finished before
    assert sum(told) == pytest.approx(size)
    assert size * 0.8 < told[1] < size


@pytest.mark.parametrize("where", ["put_part", "insert_content"])
def test_what_is_embedded_is_kept_by_an_interrupt_while_it_is_written(
    folder: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    paragraphs = [f"part {number} " + "word " * 150 for number in range(300)]
    (folder / "large.txt").write_text("\n\n".join(paragraphs))
    module = "llm_embeddings.searching.index"
    write, struck = getattr(sys.modules[module], where), []

    def interrupted(*arguments: object) -> object:
        written = write(*arguments)
        if not struck:
            struck.append(where)
            raise KeyboardInterrupt
        return written

    encode = Interrupting()
    encode.left = 99
    monkeypatch.setattr(f"{module}.{where}", interrupted)
    with pytest.raises(KeyboardInterrupt):
        refresh(folder, directory, encode=encode, max_bytes=10**7)
    refresh(folder, directory, encode=encode, max_bytes=10**7)
    assert len(encode.embedded) == len(set(encode.embedded)) == 304


@pytest.mark.slow
def test_a_large_file_goes_on_where_it_was_interrupted(folder: Path, directory: Path) -> None:
    paragraphs = [f"part {number} " + "word " * 150 for number in range(600)]
    (folder / "large.txt").write_text("\n\n".join(paragraphs))
    encode, draw = Interrupting(), random.Random(3)
    interrupts, resumed = 0, []
    for _ in range(15):
        encode.left = draw.randrange(3)
        try:
            changes = refresh(folder, directory, encode=encode, max_bytes=10**7)
            break
        except KeyboardInterrupt:
            interrupts += 1
            resumed.append(len(encode.embedded))
    assert interrupts > 1
    assert resumed == sorted(resumed)
    assert changes.resumed > 200
    assert len(encode.embedded) == len(set(encode.embedded)) == 604
    fresh = directory.with_name("fresh")
    refresh(folder, fresh, encode=quick_vectors, max_bytes=10**7)
    assert dump(directory) == dump(fresh)
    with sqlite3.connect(directory / FILE) as connection:
        assert connection.execute("SELECT count(*) FROM unfinished").fetchone() == (0,)
    connection.close()


INDEXER = """
import sys, time
from pathlib import Path
from helpers.searching import refresh, words_to_vectors

def encode(texts):
    print(len(texts), flush=True)
    time.sleep(0.02)
    return words_to_vectors(texts)

refresh(Path(sys.argv[1]), Path(sys.argv[2]), encode=encode, max_bytes=int(sys.argv[3]))
"""


def start(folder: Path, directory: Path, most: str = "100000") -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", INDEXER, folder, directory, most]
    return subprocess.Popen(arguments, env=child_environment(), stdout=subprocess.PIPE, text=True)


@pytest.fixture
def many(folder: Path) -> Path:
    for number in range(300):
        paragraphs = (f"note {number} part {part} " + "word " * 150 for part in range(5))
        (folder / f"{number}.txt").write_text("\n\n".join(paragraphs))
    return folder


@pytest.mark.slow
def test_a_kill_keeps_what_is_finished(many: Path, directory: Path) -> None:
    for batches in (1, 3):
        process = start(many, directory)
        assert process.stdout
        for _ in range(batches):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    kept = len({row[0] for row in dump(directory)})
    assert 50 < kept < 302
    changes = refresh(many, directory)
    assert (changes.read, len(changes.files)) == (302 - kept, 302)
    fresh = directory.with_name("fresh")
    refresh(many, fresh)
    assert dump(directory) == dump(fresh)


@pytest.mark.slow
def test_kills_within_a_large_file_lose_a_batch_at_most(folder: Path, directory: Path) -> None:
    paragraphs = [f"part {number} " + "word " * 150 for number in range(1500)]
    (folder / "large.txt").write_text("\n\n".join(paragraphs))
    kept = 0
    for batches in (3, 2):
        process = start(folder, directory, "10000000")
        assert process.stdout
        sizes = [int(process.stdout.readline()) for _ in range(batches)]
        process.kill()
        sizes += map(int, process.stdout.read().split())
        process.stdout.close()
        process.wait()
        with sqlite3.connect(directory / FILE) as connection:
            (now,) = connection.execute("SELECT sum(passages) FROM unfinished").fetchone()
        connection.close()
        assert sum(sizes[:-1]) <= now + 4 - kept <= sum(sizes) + 4
        kept = now
    changes = refresh(folder, directory, max_bytes=10**7)
    assert (changes.resumed, changes.resumed + changes.embedded) == (kept, 1500)
    assert len(dump(directory)) == 1504


@pytest.mark.slow
def test_two_processes_at_once(many: Path, directory: Path) -> None:
    processes = [start(many, directory) for _ in range(2)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    fresh = directory.with_name("fresh")
    refresh(many, fresh)
    assert dump(directory) == dump(fresh)
