"""The one worker: shared passes, the right result for each caller, and work never done twice."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import pickle
import random
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from helpers import BUNDLED, assert_close

from llm_embeddings import Encoder
from llm_embeddings.call import Call
from llm_embeddings.packed.attention import tokens_in

E5 = BUNDLED / "e5-mistral/model"
GRITLM = BUNDLED / "gritlm-7b/model"
WORDS = "rain fell over quiet hills while the cat sat on a mat and nobody spoke of it".split()
TEXTS = [" ".join(WORDS[i % 11 : i % 11 + 1 + i % 6]) + f" {i}" for i in range(64)]


@pytest.fixture
def fresh() -> Iterator[Encoder]:
    encoder = Encoder.from_pretrained(E5, dtype="float32")
    yield encoder
    encoder.close()


@contextmanager
def passes(encoder: Encoder, before: Callable[[int], None] | None = None) -> Iterator[list[int]]:
    """Tokens of texts in each pass; `before` is called with the number of the pass."""
    sizes: list[int] = []

    def hook(module: Any, arguments: Any, options: Any) -> None:
        sizes.append(tokens_in(options))
        if before is not None:
            before(len(sizes))

    handle = encoder.backbone.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()


# -- no work twice ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_padding_is_computed(fresh: Encoder) -> None:
    with passes(fresh) as sizes:
        fresh.encode(TEXTS)
    assert sum(sizes) == sum(map(len, fresh.tokenize(TEXTS)))


def test_equal_texts_are_computed_once(fresh: Encoder) -> None:
    with passes(fresh) as sizes:
        vectors = fresh.encode([*TEXTS[:5], *TEXTS[2:9], *TEXTS[:3]])
    assert sum(sizes) == sum(map(len, fresh.tokenize(TEXTS[:9])))
    assert_close(vectors, fresh.encode(TEXTS)[[*range(5), *range(2, 9), *range(3)]])


def test_an_instruction_is_computed_once(fresh: Encoder) -> None:
    rows = fresh.tokenize(TEXTS, "query")
    shared = 0
    while len({row[shared] for row in rows}) == 1:
        shared += 1
    assert shared > 15
    own = sum(len(row) - shared for row in rows)
    with passes(fresh) as sizes:
        first = fresh.encode_query(TEXTS)
        assert sum(sizes) == shared + own
        sizes.clear()
        assert_close(fresh.encode_query(TEXTS), first)
        assert sum(sizes) == own
        sizes.clear()
        assert_close(fresh.encode_query(TEXTS[7]), first[7])
        assert sum(sizes) == len(rows[7]) - shared
        sizes.clear()
        fresh.encode_query(TEXTS, "Another instruction, which nobody has given yet")
        assert sum(sizes) > own
        sizes.clear()
        assert_close(fresh.encode_query(TEXTS, max_batch_tokens=40), first)
        assert sum(sizes) == own


def test_an_instruction_is_forgotten_when_weights_change(fresh: Encoder) -> None:
    before = fresh.encode_query(TEXTS[:4])
    with torch.no_grad():
        fresh.backbone.layers[0].self_attn.k_proj.weight.mul_(1.5)
    after = fresh.encode_query(TEXTS[:4])
    assert np.abs(after - before).max() > 1e-3
    again = Encoder(copy.deepcopy(fresh.backbone), fresh.tokenizer, fresh.recipe)
    assert_close(after, again.encode_query(TEXTS[:4]))


def test_what_both_roles_share_is_computed_once() -> None:
    recipe = Encoder.from_pretrained(E5).recipe
    both = recipe.replace(
        query=recipe.document.__class__("text: ", ", and so the next one is"),
        document=recipe.document.__class__("text: ", ", and in short it is"),
        instruction="",
    )
    encoder = Encoder.from_pretrained(E5, recipe=both, dtype="float32")
    rows = [encoder.tokenize(TEXTS, role) for role in ("query", "document")]
    expected = encoder.encode_query(TEXTS), encoder.encode_document(TEXTS)
    with passes(encoder) as sizes:
        found = encoder.encode_both(TEXTS)
    assert sum(sizes) < 0.8 * sum(len(row) for side in rows for row in side)
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


# -- calls that meet -------------------------------------------------------------------------------


def test_small_calls_run_in_the_main_thread(fresh: Encoder) -> None:
    where: list[threading.Thread] = []
    before = set(threading.enumerate())
    with passes(fresh, lambda number: where.append(threading.current_thread())):
        fresh.encode("one text")
        fresh.encode(TEXTS[:3])
        assert set(where) == {threading.main_thread()}
        assert set(threading.enumerate()) <= before
        where.clear()
        fresh.encode(TEXTS, max_batch_tokens=40)  # several passes
        with ThreadPoolExecutor(1) as pool:
            pool.submit(fresh.encode, "another").result()
        asyncio.run(fresh.aencode("a third"))
        assert where
        assert threading.main_thread() not in where


def test_calls_that_come_while_the_main_thread_computes(fresh: Encoder) -> None:
    expected = fresh.encode(TEXTS[:9])
    with ThreadPoolExecutor(8) as pool:
        others: list[Any] = []

        def meanwhile(number: int) -> None:
            if number == 1:
                others.extend(pool.submit(fresh.encode, text) for text in TEXTS[1:9])
                time.sleep(0.2)

        with passes(fresh, meanwhile):
            first = fresh.encode(TEXTS[0])
            assert_close([first, *(other.result(10) for other in others)], expected)


async def test_a_burst_of_coroutines_is_few_passes(fresh: Encoder) -> None:
    expected = fresh.encode_query(TEXTS)
    with passes(fresh) as sizes:
        found = await asyncio.gather(*(fresh.aencode(text, "query") for text in TEXTS))
    assert len(sizes) <= 2
    assert_close(found, expected)


def test_threads_share_passes(fresh: Encoder) -> None:
    expected = fresh.encode(TEXTS)
    gate = threading.Event()
    with passes(fresh, lambda number: gate.wait(10) and None if number == 1 else None) as sizes:
        with ThreadPoolExecutor(len(TEXTS)) as pool:
            found = [pool.submit(fresh.encode, text) for text in TEXTS]
            _wait_until(lambda: len(fresh.scheduler.workers.dispatch.jobs) == len(TEXTS))
            gate.set()
            assert_close([future.result() for future in found], expected)
    assert len(sizes) == 2


def test_a_query_does_not_wait_for_a_bulk_job(fresh: Encoder) -> None:
    order: list[str] = []
    started = threading.Event()
    with passes(fresh, lambda number: (started.set(), time.sleep(0.005)) and None) as sizes:
        with ThreadPoolExecutor(2) as pool:
            bulk = pool.submit(fresh.encode, TEXTS, max_batch_tokens=1)
            bulk.add_done_callback(lambda _: order.append("bulk"))
            assert started.wait(10)
            query = pool.submit(fresh.encode, "a single query")
            query.add_done_callback(lambda _: order.append("query"))
            before = len(sizes)
            query.result()
            assert len(sizes) - before <= 4
    assert order == ["query", "bulk"]


def test_a_bulk_job_goes_on_among_queries(fresh: Encoder) -> None:
    done = threading.Event()

    def ask() -> int:
        asked = 0
        while not done.is_set():
            fresh.encode("a single query")
            asked += 1
        return asked

    with ThreadPoolExecutor(4) as pool:
        questions = [pool.submit(ask) for _ in range(3)]
        bulk = pool.submit(fresh.encode, TEXTS, max_batch_tokens=1)
        assert len(bulk.result(timeout=60)) == len(TEXTS)
        done.set()
        assert all(future.result() > 0 for future in questions)


def test_hidden_states_and_vectors_side_by_side(fresh: Encoder) -> None:
    expected, tokens = fresh.encode(TEXTS), fresh.encode_tokens(TEXTS)
    with ThreadPoolExecutor(6) as pool:
        calls = [
            pool.submit(fresh.encode_tokens if i % 2 else fresh.encode, TEXTS) for i in range(6)
        ]
        for number, future in enumerate(calls):
            if number % 2:
                for ours, theirs in zip(future.result(), tokens, strict=True):
                    assert_close(ours.vectors, theirs.vectors)
            else:
                assert_close(future.result(), expected)


# -- calls that end otherwise ----------------------------------------------------------------------


async def test_cancelling_frees_the_work(fresh: Encoder) -> None:
    expected = fresh.encode(TEXTS[:1])
    with passes(fresh, lambda number: time.sleep(0.01)) as sizes:
        call = asyncio.create_task(fresh.aencode(TEXTS, max_batch_tokens=1))
        while not sizes:
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert_close(await fresh.aencode(TEXTS[:1]), expected)
    assert len(sizes) < len(TEXTS) / 2


@pytest.mark.parametrize("as_tokens", [False, True])
async def test_cancelling_waits_for_the_thread_that_tokenises(
    fresh: Encoder, monkeypatch: pytest.MonkeyPatch, as_tokens: bool
) -> None:
    text, begun, rows = "word " * 2000, threading.Event(), Call.rows
    prepared = fresh.prepare([text])

    def slow(*arguments: Any, **options: Any) -> Any:
        begun.set()
        time.sleep(0.1)
        return rows(*arguments, **options)

    monkeypatch.setattr(Call, "rows", slow)
    work = prepared.atokens() if as_tokens else fresh.aencode(text)
    call = asyncio.ensure_future(work)
    assert await asyncio.to_thread(begun.wait, 20)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await fresh.aencode(text)


def test_leaving_a_stream_frees_the_work(fresh: Encoder) -> None:
    with passes(fresh) as sizes:
        stream = fresh.iter_encode((f"text {i}" for i in range(10**9)), window=4)
        next(stream)
        stream.close()
        fresh.encode("after")
    assert len(sizes) <= 4


def test_a_stream_gives_what_it_has_before_it_fails(fresh: Encoder) -> None:
    stream = fresh.iter_encode(["a", "b", "c", 4, "e"], window=1)  # type: ignore[list-item]
    assert len([next(stream) for _ in range(3)]) == 3
    with pytest.raises(TypeError, match=r"texts\[3\] is int"):
        next(stream)


def test_an_error_of_the_model_is_raised_at_once(fresh: Encoder) -> None:
    def fails(number: int) -> None:
        raise ZeroDivisionError("of the model")

    with passes(fresh, fails) as sizes, pytest.raises(ZeroDivisionError, match="of the model"):
        fresh.encode(TEXTS, max_batch_tokens=1)
    assert len(sizes) == 1
    assert np.isfinite(fresh.encode(TEXTS)).all()


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_out_of_memory_makes_packs_smaller(error: Exception) -> None:
    encoder = Encoder.from_pretrained(GRITLM, dtype="float32")
    rows = encoder.tokenize(TEXTS)
    expected = encoder.encode(TEXTS)
    computed = 0
    with passes(encoder) as sizes:

        def limited(number: int) -> None:
            nonlocal computed
            if sizes[-1] > 100:
                raise error
            computed += sizes[-1]

        encoder.backbone.register_forward_pre_hook(lambda *_: limited(0))
        assert_close(encoder.encode(TEXTS), expected)
        assert computed == sum(map(len, rows)), "nothing that was finished ran again"
        failed = sum(size > 100 for size in sizes)
        assert 1 <= failed <= 4
        assert_close(encoder.encode(TEXTS), expected)
        assert sum(size > 100 for size in sizes) <= failed + 1, "what was learnt is kept"


def test_a_text_that_never_fits_is_an_error(fresh: Encoder) -> None:
    def fails(number: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with passes(fresh, fails), pytest.raises(torch.OutOfMemoryError):
        fresh.encode(TEXTS)


# -- life and death --------------------------------------------------------------------------------


def test_close(fresh: Encoder) -> None:
    threads = set(threading.enumerate())
    fresh.encode(TEXTS, max_batch_tokens=40)  # several passes
    assert len(set(threading.enumerate()) - threads) == len(fresh.scheduler.workers.dispatch.places)
    fresh.close()
    fresh.close()
    assert set(threading.enumerate()) <= threads
    with pytest.raises(RuntimeError, match="this encoder is closed"):
        fresh.encode("text")


@pytest.mark.slow
def test_an_encoder_nobody_holds_is_freed() -> None:
    threads = set(threading.enumerate())
    encoder = Encoder.from_pretrained(E5, dtype="float32")
    encoder.encode(TEXTS)
    backbone = weakref.ref(encoder.backbone)
    del encoder
    _wait_until(lambda: set(threading.enumerate()) <= threads)
    gc.collect()
    assert backbone() is None


def test_copies_and_pickles_work(fresh: Encoder) -> None:
    expected = fresh.encode_query(TEXTS[:4])
    for again in (copy.deepcopy(fresh), pickle.loads(pickle.dumps(fresh))):
        assert_close(again.encode_query(TEXTS[:4]), expected)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_works(fresh: Encoder) -> None:
    expected = fresh.encode(TEXTS[:4])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=lambda: queue.put(fresh.encode(TEXTS[:4])))
    process.start()
    assert_close(queue.get(timeout=60), expected)
    process.join(30)
    assert process.exitcode == 0
    assert_close(fresh.encode(TEXTS[:4]), expected)


@pytest.mark.slow
def test_the_interpreter_ends() -> None:
    code = f"""
import asyncio, threading
from llm_embeddings import Encoder
encoder = Encoder.from_pretrained({str(E5)!r})
encoder.encode(["a", "b"])
def later():
    threading.main_thread().join()
    print(encoder.encode(["late"]).shape)
threading.Thread(target=encoder.encode, args=(["a", "b"] * 999,), daemon=True).start()
threading.Thread(target=later).start()
async def main():
    task = asyncio.create_task(encoder.aencode("abandoned"))
    await asyncio.sleep(0)
asyncio.run(main())
print("end")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "end\n(1, 32)\n"), done.stderr
    assert "Error" not in done.stderr


def test_a_daemon_starts_no_daemon(fresh: Encoder) -> None:
    """The interpreter waits for the worker whoever called it first."""
    before = set(threading.enumerate())
    caller = threading.Thread(target=fresh.encode, args=(["a"],), daemon=True)
    caller.start()
    caller.join()
    started = set(threading.enumerate()) - before
    assert started
    assert not any(thread.daemon for thread in started)


# -- all at once -----------------------------------------------------------------------------------


@pytest.mark.slow
async def test_stress() -> None:  # noqa: C901
    """Threads, coroutines, cancellations, errors, a full memory: nobody hangs or is mixed up."""
    encoder = Encoder.from_pretrained(E5, dtype="float32")
    expected = {role: encoder.encode(TEXTS, role) for role in ("query", "document")}
    dice = random.Random(0)
    fail_at, full = {40, 90}, 3

    def hook(number: int) -> None:
        nonlocal full
        if full and sizes[-1] > 60:  # several texts
            full -= 1
            raise torch.OutOfMemoryError("injected")
        if number in fail_at:
            raise ZeroDivisionError("injected")

    def thread(seed: int) -> int:
        own, failed = random.Random(seed), 0
        for _ in range(6):
            which = [own.randrange(len(TEXTS)) for _ in range(own.randint(1, 12))]
            role: Any = own.choice(["query", "document"])
            budget = own.choice([None, 8, 64])
            try:
                found = encoder.encode([TEXTS[i] for i in which], role, max_batch_tokens=budget)
            except ZeroDivisionError:
                failed += 1
            else:
                assert_close(found, expected[role][which])
        return failed

    async def coroutine(delay: float) -> int:
        await asyncio.sleep(delay)
        which, role = dice.randrange(len(TEXTS)), dice.choice(["query", "document"])
        try:
            found = await encoder.aencode(TEXTS[which], role)  # type: ignore[arg-type]
        except ZeroDivisionError:
            return 1
        assert_close(found, expected[role][which])
        return 0

    tracemalloc.start()
    with passes(encoder, hook) as sizes, ThreadPoolExecutor(32) as pool:
        loop = asyncio.get_running_loop()
        work = [loop.run_in_executor(pool, thread, seed) for seed in range(32)]
        tasks = [asyncio.create_task(coroutine(dice.random())) for _ in range(200)]
        cancelled = dice.sample(tasks, 40)
        for task in cancelled:
            loop.call_later(dice.random(), task.cancel)
        async with asyncio.timeout(50):
            results = await asyncio.gather(*work, *tasks, return_exceptions=True)
    wrong = [r for r in results if isinstance(r, BaseException)]
    assert all(isinstance(error, asyncio.CancelledError) for error in wrong), wrong
    assert len(wrong) <= len(cancelled)
    assert len(sizes) > max(fail_at)
    assert not full
    assert sum(r for r in results if isinstance(r, int)) >= len(fail_at)
    assert not encoder.scheduler.workers.dispatch.jobs
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 20e6
    assert_close(encoder.encode(TEXTS), expected["document"])


def _wait_until(holds: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)
