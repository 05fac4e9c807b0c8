"""Several devices: the same vectors, work for all of them, and no process outlives its use."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import torch
from helpers import assert_close, devices
from helpers.devices import E5

from llm_embeddings import Encoder
from llm_embeddings.engine.processes import DeviceWorker, WorkerDied

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="each CPU worker needs a core"),
]

TEXTS = [f"text number {i} of some" + " and more" * (i % 5) for i in range(200)]
MIDDLE, LONG = "middle " * 36, "long " * 70  # about a token a word


@pytest.fixture(scope="module")
def one() -> Encoder:
    return Encoder.from_pretrained(E5, dtype="float32")


@pytest.fixture(scope="module")
def two() -> Iterator[Encoder]:
    encoder = Encoder.from_pretrained(E5, dtype="float32", devices=["cpu", "cpu"])
    yield encoder
    encoder.close()


def worker_of(encoder: Encoder) -> DeviceWorker:
    worker = encoder.scheduler.workers.dispatch.places[1].runner
    assert isinstance(worker, DeviceWorker)
    return worker


@pytest.fixture(scope="module")
def frail() -> Iterator[Encoder]:
    """An encoder whose two other devices are easily hurt."""
    encoder = devices.load(device="cpu")
    workers = [DeviceWorker("cpu", [0], devices.load_frail) for _ in range(2)]
    for worker in workers:
        worker.ready(encoder.fingerprint("document", ""))
    encoder.scheduler.add_devices(workers)
    yield encoder
    encoder.close()


def ended(process: subprocess.Popen[bytes], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return process.poll() is not None


def test_the_same_vectors(one: Encoder, two: Encoder) -> None:
    assert two.scheduler.devices == ["cpu", "cpu"]
    for role in ("query", "document"):
        assert_close(two.encode(TEXTS, role), one.encode(TEXTS, role))
    for found, expected in zip(two.encode_both(TEXTS), one.encode_both(TEXTS), strict=True):
        assert_close(found, expected)
    for found, expected in zip(
        two.encode_tokens(TEXTS[:9]), one.encode_tokens(TEXTS[:9]), strict=True
    ):
        assert_close(found.vectors, expected.vectors)
    assert_close(list(two.iter_encode(TEXTS, window=17)), one.encode(TEXTS))
    assert_close(two.encode("one text"), one.encode("one text"))
    assert two.encode([]).shape == (0, one.dimension)


async def test_threads_and_coroutines(one: Encoder, two: Encoder) -> None:
    expected = one.encode(TEXTS)
    assert_close(await asyncio.gather(*map(two.aencode, TEXTS)), expected)
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(two.encode, TEXTS, max_batch_tokens=100) for _ in range(6)]
        for call in calls:
            assert_close(call.result(), expected)


def test_both_devices_work(two: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = 0, 0
    worker, local = worker_of(two), two.scheduler.runner
    run_there, run_here = worker.run, local.run

    def counting_there(units: Any, **options: Any) -> Any:
        nonlocal there
        there += len(units)
        return run_there(units, **options)

    def counting_here(units: Any, **options: Any) -> Any:
        nonlocal here
        here += len(units)
        return run_here(units, **options)

    monkeypatch.setattr(worker, "run", counting_there)
    monkeypatch.setattr(local, "run", counting_here)
    two.encode(TEXTS)
    assert there > 0
    assert here > 0
    assert there + here == len(TEXTS), "nothing is computed twice"


def test_out_of_memory_there_makes_packs_smaller(one: Encoder, frail: Encoder) -> None:
    assert_close(frail.encode(TEXTS), one.encode(TEXTS))
    assert len(frail.scheduler.devices) == 3


def test_an_error_there_is_the_callers(frail: Encoder) -> None:
    texts = [f"{MIDDLE} {i}" for i in range(40)]
    with pytest.raises(ZeroDivisionError, match="of the model") as failure:
        [frail.encode(texts, max_batch_tokens=100) for _ in range(50)]
    assert "in a device's process" in "".join(failure.value.__notes__)
    assert len(frail.scheduler.devices) == 3


def test_a_process_that_dies_is_reported_and_its_texts_run_elsewhere(
    one: Encoder, frail: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"{LONG} {i}" for i in range(40)]
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            with suppress(WorkerDied):  # if both die over these texts
                assert_close(frail.encode(texts, max_batch_tokens=100), one.encode(texts))
            if len(frail.scheduler.devices) < 3:
                break
    assert "the process on cpu has died with exit code -9; going on without it" in caplog.text
    assert_close(frail.encode(TEXTS), one.encode(TEXTS))


class Dying:
    """A device whose process dies over whatever it is given."""

    device, packed, packing, budget, alone_above = "cpu", True, "packed", 100, 2**31

    def run(self, units: Any, *, pooled: bool = True) -> Any:
        raise WorkerDied("the process on cpu has died with exit code -9")


def test_texts_over_which_two_processes_die_are_given_up() -> None:
    encoder = devices.load(device="cpu")
    encoder.scheduler.add_devices([Dying(), Dying()])  # type: ignore[list-item]
    local = encoder.scheduler.workers.dispatch.places.pop(0)  # it would survive
    with pytest.raises(WorkerDied, match="exit code -9"):
        encoder.encode("text")
    encoder.scheduler.workers.dispatch.places[0] = local
    assert len(encoder.encode(TEXTS)) == len(TEXTS)


def test_closing_ends_the_processes() -> None:
    encoder = Encoder.from_pretrained(E5, dtype="float32", devices=["cpu", "cpu"])
    process = worker_of(encoder)._process
    encoder.close()
    assert process.returncode == 0
    with pytest.raises(RuntimeError, match="closed"):
        encoder.encode("text")


def test_dropping_the_encoder_ends_the_processes() -> None:
    encoder = Encoder.from_pretrained(E5, dtype="float32", devices=["cpu", "cpu"])
    encoder.encode(TEXTS)
    process = worker_of(encoder)._process
    del encoder
    gc.collect()
    assert ended(process)


def test_a_script_needs_no_main_guard_and_leaves_no_process() -> None:
    program = (
        "import os; from llm_embeddings import Encoder\n"
        f"encoder = Encoder.from_pretrained({str(E5)!r}, dtype='float32', devices=['cpu', 'cpu'])\n"
        "encoder.encode([f'text {i}' for i in range(50)])\n"
        "print(encoder.scheduler.workers.dispatch.places[1].runner.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    deadline = time.monotonic() + 20
    while _is_alive(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_alive(int(done.stdout))


def test_copies_and_pickles_have_one_device(one: Encoder, two: Encoder) -> None:
    for again in (copy.deepcopy(two), pickle.loads(pickle.dumps(two))):
        assert again.scheduler.devices == ["cpu"]
        assert_close(again.encode(TEXTS[:5]), one.encode(TEXTS[:5]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": []}, "names none"),
        ({"devices": ["cuda:7"]}, "cuda:7, and this machine has . CUDA devices"),
        ({"devices": ["cpu", "cuda:0"]}, "several kinds"),
        ({"devices": ["cpu"] * 999}, "devices has 999 CPUs, and this process may use"),
        ({"devices": ["cpu"], "device": "cpu"}, "leave out device and device_map"),
        ({"devices": ["gpu"]}, "gpu"),
    ],
)
def test_bad_devices(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        Encoder.from_pretrained(E5, **options)
    with pytest.raises(TypeError, match="pass a list, or device='cpu'"):
        Encoder.from_pretrained(E5, devices="cpu")


def test_a_model_that_is_not_there_fails_once(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Encoder.from_pretrained("./nowhere", devices=["cpu", "cpu"])
    assert "Traceback" not in capfd.readouterr().err


def test_other_weights_there_are_refused() -> None:
    worker = DeviceWorker("cpu", [0], devices.load_other)
    with pytest.raises(ValueError, match="has loaded other weights"):
        worker.ready(devices.load(device="cpu").fingerprint("document", ""))
    assert ended(worker._process)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def teardown_module() -> None:
    torch.set_num_threads(1)
