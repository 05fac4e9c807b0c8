"""The cache of vectors: never a wrong one, whole after a kill, shared by threads and processes."""

from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import BUNDLED, assert_close

from llm_embeddings import Encoder
from llm_embeddings.vector_cache.store import VectorCache

E5 = BUNDLED / "e5-mistral/model"
TEXTS = [f"text number {i} of some" for i in range(20)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.sqlite"


@pytest.fixture
def encoder(path: Path) -> Iterator[Encoder]:
    encoder = Encoder.from_pretrained(E5, dtype="float32", vector_cache=path)
    yield encoder
    encoder.close()


def computed(encoder: Encoder) -> list[int]:
    """Grows by the rows of each pass."""
    passes: list[int] = []
    run = encoder.scheduler.runner.run

    def counting(units: Any, **options: Any) -> Any:
        passes.append(len(units))
        return run(units, **options)

    encoder.scheduler.runner.run = counting  # type: ignore[method-assign]
    return passes


def cache_of(encoder: Encoder) -> VectorCache:
    assert encoder.vector_cache is not None
    return encoder.vector_cache


def state(value: float, size: int = 4) -> Any:
    return np.full(size, value, np.float32)


# -- what comes back -------------------------------------------------------------------------------


def test_known_texts_are_not_computed_again(encoder: Encoder) -> None:
    plain = Encoder.from_pretrained(E5, dtype="float32").encode(TEXTS)
    passes = computed(encoder)
    assert_close(encoder.encode(TEXTS[:12]), plain[:12])
    assert sum(passes) == 12
    assert_close(encoder.encode([*TEXTS[5:], *TEXTS[:5]]), np.roll(plain, -5, 0))
    assert sum(passes) == 20
    assert_close(encoder.encode(TEXTS[3]), plain[3])
    assert sum(passes) == 20
    cache = cache_of(encoder)
    assert (cache.hits, cache.misses, len(cache)) == (13, 20, 20)
    assert cache.hit_rate == pytest.approx(13 / 33)


def test_every_way_in_uses_it(encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS)
    passes = computed(encoder)
    assert_close(list(encoder.iter_encode(TEXTS, window=3)), expected)
    assert not passes
    queries, documents = encoder.encode_both(TEXTS)
    assert sum(passes) == len(TEXTS), "a text is known when it is in both roles"
    assert_close(documents, expected)
    assert_close(encoder.encode_both(TEXTS)[0], queries)
    assert_close(encoder.encode_query(TEXTS), queries)
    assert sum(passes) == len(TEXTS)


async def test_coroutines_use_it(encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS)
    passes = computed(encoder)
    assert_close(await encoder.aencode(TEXTS), expected)
    assert not passes
    new = await encoder.aencode("not seen yet")
    assert_close(await encoder.aencode("not seen yet"), new)
    assert sum(passes) == 1


def test_one_entry_serves_all_options_of_a_call(encoder: Encoder, path: Path) -> None:
    plain = Encoder.from_pretrained(E5, dtype="float32")
    encoder.encode(TEXTS)
    passes = computed(encoder)
    for options in (
        {"normalize": False},
        {"truncate_dim": 8},
        {"truncate_dim": 8, "normalize": False},
        {"precision": "float16"},
        {"precision": "ubinary"},
    ):
        found: Any = encoder.encode(TEXTS, **options)  # type: ignore[call-overload]
        expected: Any = plain.encode(TEXTS, **options)  # type: ignore[call-overload]
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert not passes


@pytest.mark.slow
def test_what_changes_a_vector_is_another_entry(encoder: Encoder, path: Path) -> None:
    encoder.encode(TEXTS)
    passes = computed(encoder)
    calls: list[dict[str, Any]] = [
        {"role": "query"},
        {"role": "query", "instruction": "Find what it is about"},
        {"max_length": 6},
    ]
    for number, call in enumerate(calls, 1):
        expected = Encoder.from_pretrained(E5, dtype="float32").encode(TEXTS, **call)
        assert_close(encoder.encode(TEXTS, **call), expected)
        assert sum(passes) == number * len(TEXTS)
    with torch.no_grad():
        encoder.backbone.layers[0].self_attn.k_proj.weight.mul_(1.5)
    encoder.encode(TEXTS)
    assert sum(passes) == (len(calls) + 1) * len(TEXTS), "the weights have changed"
    other = Encoder.from_pretrained(E5, dtype="bfloat16", vector_cache=path)
    passes = computed(other)
    other.encode(TEXTS)
    assert sum(passes) == len(TEXTS), "bfloat16 rounds otherwise"


def test_a_bad_call_stays_an_error(encoder: Encoder) -> None:
    encoder.encode(TEXTS)
    with pytest.raises(ValueError, match="max_length=0"):
        encoder.encode(TEXTS, max_length=0)
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        encoder.encode([TEXTS[0], 3])  # type: ignore[list-item]
    assert encoder.encode([]).shape == (0, encoder.dimension)


# -- the file --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_process_finds_it(encoder: Encoder, path: Path) -> None:
    expected = encoder.encode(TEXTS)
    encoder.close()
    cache_of(encoder).close()
    again = Encoder.from_pretrained(E5, dtype="float32", vector_cache=path)
    passes = computed(again)
    np.testing.assert_array_equal(again.encode(TEXTS), expected)
    assert not passes


def test_threads_share_it(encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: encoder.encode(TEXTS), range(32)):
            np.testing.assert_array_equal(found, expected)


_WRITER = """
import sys
import numpy as np
from llm_embeddings.vector_cache import VectorCache

cache = VectorCache(sys.argv[1])
for number in range(int(sys.argv[2]), 10**6):
    states = {b"%d %d" % (number, i): np.full(64, number + i, np.float32) for i in range(40)}
    cache.put(states)
    print(number, flush=True)
"""


@pytest.mark.slow
def test_writers_may_be_killed_at_any_moment(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, path, str(start)], stdout=subprocess.PIPE, text=True
        )
        for start in (0, 500_000)
    ]
    written: list[int] = []
    for count, writer in zip((5, 9), writers, strict=True):
        assert writer.stdout is not None
        written += [int(writer.stdout.readline()) for _ in range(count)]
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    with VectorCache(path) as cache:
        for number in written:
            found = cache.get([b"%d %d" % (number, i) for i in range(40)])
            assert len(found) == 40
            for i in range(40):
                np.testing.assert_array_equal(found[b"%d %d" % (number, i)], state(number + i, 64))
        assert len(cache) % 40 == 0, "a window is there whole or not at all"


@pytest.mark.slow
def test_processes_may_begin_it_together(path: Path) -> None:
    program = (
        "import sys; from llm_embeddings.vector_cache.store import VectorCache as V; V(sys.argv[1])"
    )
    beginners = [subprocess.Popen([sys.executable, "-c", program, path]) for _ in range(4)]
    assert [beginner.wait(60) for beginner in beginners] == [0] * 4
    assert len(VectorCache(path)) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is a POSIX call")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_opens_its_own(path: Path) -> None:
    cache = VectorCache(path)
    cache.put({b"parent": state(1)})
    child = os.fork()
    if not child:
        cache.put({b"child": state(2)})
        os._exit(0 if b"parent" in cache.get([b"parent"]) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert cache.get([b"child", b"parent"]).keys() == {b"child", b"parent"}


def test_a_copy_and_a_pickle_use_the_same_file(encoder: Encoder) -> None:
    cache = cache_of(encoder)
    again: VectorCache = pickle.loads(pickle.dumps(cache))
    cache.put({b"a": state(1)})
    assert again.get([b"a"])
    assert again.max_bytes == cache.max_bytes


def test_it_stays_within_its_bound_and_drops_the_oldest(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = VectorCache(path, max_bytes=2**20)
    monkeypatch.setattr("time.time", lambda: 86400.0 * 10)
    old = [b"old %d" % i for i in range(100)]
    cache.put({key: state(1, 1024) for key in old})
    monkeypatch.setattr("time.time", lambda: 86400.0 * 11)
    cache.get(old[:50])  # used today
    for number in range(14):
        cache.put({b"new %d %d" % (number, i): state(2, 1024) for i in range(10)})
        assert cache.nbytes <= 2**20
    assert len(cache.get(old[50:])) < 25
    assert len(cache.get(old[:50])) == 50
    assert len(cache.get([b"new 13 %d" % i for i in range(10)])) == 10
    cache.clear()
    assert len(cache) == 0


def test_a_file_that_is_no_cache_is_refused_and_kept(path: Path) -> None:
    path.write_text("a letter to my mother, of more than a hundred bytes " * 4)
    with pytest.raises(ValueError, match=r"vectors\.sqlite.*not a database.*name another"):
        VectorCache(path)
    assert path.read_text().startswith("a letter")
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE customers (name TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not a cache of vectors"):
        VectorCache(path)
    assert path.read_bytes() == before


def test_another_version_is_refused(path: Path) -> None:
    VectorCache(path).close()
    with sqlite3.connect(path) as later:
        later.execute("PRAGMA user_version = 7")
    later.close()
    with pytest.raises(ValueError, match="version 7, and this package writes 2: delete it"):
        VectorCache(path)


def test_half_a_file_is_an_error_that_names_it(path: Path) -> None:
    with VectorCache(path) as cache:
        cache.put({b"%d" % i: state(i, 512) for i in range(200)})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"vectors\.sqlite cannot be read .*delete it"):
        VectorCache(path).get([b"%d" % i for i in range(200)])


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        VectorCache(tmp_path / "nowhere" / "vectors.sqlite")
    with pytest.raises(ValueError, match="max_bytes=10"):
        VectorCache(tmp_path / "vectors.sqlite", max_bytes=10)


def test_a_cache_that_cannot_be_written_loses_no_vector(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Encoder.from_pretrained(E5, dtype="float32").encode(TEXTS)
    cache = cache_of(encoder)
    with cache._file.used() as connection:
        connection.execute("PRAGMA query_only = 1")
    with pytest.warns(RuntimeWarning, match="20 vectors are not kept in .*vectors.sqlite"):
        assert_close(encoder.encode(TEXTS), expected)


def test_threads_of_one_cache_do_not_mix(path: Path) -> None:
    cache, failures = VectorCache(path), []

    def work(name: int) -> None:
        for number in range(30):
            cache.put({b"%d %d" % (name, number): state(name)})
            found = cache.get([b"%d %d" % (name, number)])
            if not np.array_equal(found[b"%d %d" % (name, number)], state(name)):
                failures.append((name, number))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
