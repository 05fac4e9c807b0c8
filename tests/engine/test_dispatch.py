"""Two passes at once on a CPU: the same vectors, no more memory, and every core in use."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from helpers import BUNDLED, assert_close

from llm_embeddings import Encoder

pytestmark = pytest.mark.slow
E5 = BUNDLED / "e5-mistral/model"
TEXTS = [f"text number {i} of some" + " and more" * (i % 5) for i in range(200)]


@pytest.fixture
def cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=[E5, BUNDLED / "gritlm-7b/model"], ids=["causal", "both ways"])
def encoder(request: pytest.FixtureRequest, cores: None) -> Iterator[Encoder]:
    encoder = Encoder.from_pretrained(request.param, dtype="float32")
    encoder.scheduler.runner.budget = 400
    yield encoder
    encoder.close()


class Watch:
    """What runs when: tokens in flight, torch's threads, passes at once."""

    def __init__(self, encoder: Encoder, seconds: float = 0.0) -> None:
        self.lock, self.seconds = threading.Lock(), seconds
        self.now: list[int] = []
        self.most_at_once = self.most_tokens = self.computed = 0
        self.threads: list[tuple[int, int]] = []
        self.run = encoder.scheduler.runner.run
        encoder.scheduler.runner.run = self.watched  # type: ignore[method-assign]

    def watched(self, units: Any, *, pooled: bool = True) -> Any:
        tokens = sum(unit.tokens for unit in units)
        with self.lock:
            self.now.append(tokens)
            self.computed += len(units)
            self.most_at_once = max(self.most_at_once, len(self.now))
            self.most_tokens = max(self.most_tokens, sum(self.now))
        time.sleep(self.seconds)
        try:
            return self.run(units, pooled=pooled)
        finally:
            with self.lock:
                self.threads.append((len(self.now), torch.get_num_threads()))
                self.now.remove(tokens)


def test_two_passes_are_one(encoder: Encoder) -> None:
    encoder.scheduler.passes_at_once = 1
    expected = encoder.encode(TEXTS)
    encoder.scheduler.passes_at_once = 2
    watch = Watch(encoder, 0.01)
    assert_close(encoder.encode(TEXTS), expected)
    assert watch.computed == len(TEXTS), "nothing is computed twice"
    assert watch.most_at_once == 2
    assert watch.most_tokens <= 400, "two packs are no larger than one alone"
    assert {threads for running, threads in watch.threads if running == 2} == {1}


@pytest.mark.slow
def test_instructions_are_shared(cores: None) -> None:
    encoder = Encoder.from_pretrained(E5, dtype="float32")
    encoder.scheduler.runner.budget = 400
    expected = encoder.encode(TEXTS, "query", max_batch_tokens=50)
    watch = Watch(encoder, 0.005)
    for _ in range(3):
        assert_close(encoder.encode(TEXTS, "query"), expected)
    assert watch.most_at_once == 2


def test_one_pass_has_all_cores(encoder: Encoder) -> None:
    watch = Watch(encoder)
    for _ in range(5):
        encoder.encode("one text")
    assert watch.threads == [(1, 2)] * 5
    assert torch.get_num_threads() == 2


def test_long_texts_run_alone_with_all_cores(encoder: Encoder) -> None:
    texts = ["long " * 250 + str(i) for i in range(6)]
    watch = Watch(encoder, 0.01)
    encoder.encode(texts)
    assert watch.most_at_once == 1
    assert {threads for _, threads in watch.threads} == {2}


def test_the_callers_setting_holds(encoder: Encoder) -> None:
    torch.set_num_threads(1)
    watch = Watch(encoder, 0.005)
    encoder.encode(TEXTS)
    assert watch.most_at_once == 1
    assert {threads for _, threads in watch.threads} == {1}


async def test_coroutines_threads_and_bulk_jobs(encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS)
    watch = Watch(encoder)
    with ThreadPoolExecutor(4) as pool:
        bulk = [pool.submit(encoder.encode, TEXTS) for _ in range(4)]
        assert_close(await asyncio.gather(*map(encoder.aencode, TEXTS)), expected)
        for call in bulk:
            assert_close(call.result(), expected)
    assert watch.most_tokens <= 400


def test_out_of_memory_beside_another(encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS)
    run = encoder.scheduler.runner.run

    def limited(units: Any, *, pooled: bool = True) -> Any:
        if sum(unit.tokens for unit in units) > 90:
            raise torch.OutOfMemoryError("injected")
        return run(units, pooled=pooled)

    encoder.scheduler.runner.run = limited  # type: ignore[method-assign]
    assert_close(encoder.encode(TEXTS), expected)
