"""More devices than one: behind each but the first, a process with a model of its own.

A process reads the checkpoint itself, takes packs from standard input and writes vectors to
standard output, pickled. It ends when its input does, which is when this process does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from ..recipe import Role

if TYPE_CHECKING:
    import torch

    from ..batching import Unit

_SECONDS_TO_END = 10.0
_QUIET = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from llm_embeddings.engine.processes import work; work()"
)


class Opened(Protocol):
    """An `Encoder`, as far as devices are concerned."""

    scheduler: Any

    def fingerprint(self, role: Role = "document", instruction: str | None = None) -> str:
        """A name for its weights."""


AnEncoder = TypeVar("AnEncoder", bound=Opened)


class WorkerDied(RuntimeError):
    """A device's process has ended without being asked to."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """What a process says of the model it has loaded."""

    fingerprint: str
    packed: bool
    packing: str
    budget: int
    alone_above: int


def open_on(devices: Sequence[str], load: Callable[..., AnEncoder]) -> AnEncoder:
    """An encoder on the first device, in this process, that shares its work with the others.

    On CPUs each gets an even part of the cores, and torch in this process no more threads than
    that.

    Args:
        devices: Names as torch has them, of one kind; one may come more than once.
        load: `Encoder.from_pretrained` but for its device; can be pickled.

    Raises:
        ValueError: a device that is not there, or what `load` raises, there or here.
        WorkerDied: a process ended while it loaded.
    """
    names = check_devices(devices)
    cores = share_cores(names)
    workers = [DeviceWorker(*place, load) for place in zip(names[1:], cores[1:], strict=True)]
    try:
        if names[0].startswith("cpu"):
            import torch

            torch.set_num_threads(min(len(cores[0]), torch.get_num_threads()))
        encoder = load(device=names[0])
        for worker in workers:
            worker.ready(encoder.fingerprint("document", ""))
    except BaseException:
        for worker in workers:
            worker.close()
        raise
    encoder.scheduler.add_devices(workers)
    return encoder


def check_devices(devices: Sequence[str]) -> list[str]:
    """Names of devices, each with its number.

    Raises:
        TypeError: not a list of names.
        ValueError: none, of several kinds, or one that this machine does not have.
    """
    import torch

    if isinstance(devices, str):
        raise TypeError(f"devices={devices!r} is one name: pass a list, or device={devices!r}")
    if not devices:
        raise ValueError("devices=[] names none: leave it out, or name one or more")
    found = [torch.device(device) for device in devices]
    if len({device.type for device in found}) > 1:
        raise ValueError(f"devices={list(devices)} are of several kinds: vectors would differ")
    if found[0].type == "cuda":
        count = torch.cuda.device_count()
        missing = [str(device) for device in found if (device.index or 0) >= count]
        if missing:
            raise ValueError(
                f"devices names {', '.join(missing)}, and this machine has {count} CUDA devices"
            )
        return [f"cuda:{device.index or 0}" for device in found]
    return list(map(str, found))


def share_cores(devices: Sequence[str]) -> list[list[int]]:
    """The processor cores of each device: all of them on a GPU, an even part each on CPUs."""
    import torch

    cores = sorted(_own_cores())
    if torch.device(devices[0]).type != "cpu":
        return [cores] * len(devices)
    count = len(devices)
    if count > len(cores):
        raise ValueError(f"devices has {count} CPUs, and this process may use {len(cores)} cores")
    return [cores[len(cores) * i // count : len(cores) * (i + 1) // count] for i in range(count)]


class DeviceWorker:
    """A process that runs packs, used like a `Runner`, by one thread.

    Attributes:
        device: Where it runs.
        packed: As of `Runner`, known once the process is `ready`.
        packing: The same.
        budget: The same.
        alone_above: The same.
    """

    packed: bool
    packing: str
    budget: int
    alone_above: int

    def __init__(self, device: str, cores: Sequence[int], load: Callable[..., Opened]) -> None:
        """Start the process; it loads while this one goes on.

        Args:
            device: Where it is to run.
            cores: Processor cores it may use.
            load: What it is to call with `device`.
        """
        self.device = device
        # Not multiprocessing: its children import the caller's script again.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _QUIET,
        )
        self._finalizer = weakref.finalize(self, _end, self._process)
        self._send((device, list(cores)))  # read before torch is imported
        self._send(load)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ready(self, fingerprint: str) -> None:
        """Wait until the model is loaded.

        Args:
            fingerprint: Of the model in this process.

        Raises:
            WorkerDied: the process has ended.
            ValueError: it has loaded another model.
        """
        found: _Ready = self._receive()
        if found.fingerprint != fingerprint:
            self.close()
            raise ValueError(
                f"the process on {self.device} has loaded other weights: the checkpoint has changed"
            )
        self.packed, self.packing = found.packed, found.packing
        self.budget, self.alone_above = found.budget, found.alone_above

    def run(self, units: Sequence[Unit], *, pooled: bool = True) -> Sequence[torch.Tensor]:
        """As `Runner.run`; the results are on the CPU.

        Raises:
            WorkerDied: the process has ended.
        """
        import torch

        self._send((units, pooled))
        return [torch.from_numpy(one) for one in self._receive()]

    def close(self) -> None:
        """End the process."""
        self._finalizer()

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        try:
            _write(self._process.stdin, message)
        except OSError as error:
            raise self._died() from error

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        try:
            found = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise self._died() from error
        if isinstance(found, BaseException):
            raise found
        return found

    def _died(self) -> WorkerDied:
        self.close()
        return WorkerDied(
            f"the process on {self.device} has died with exit code {self._process.returncode}"
        )


def work() -> None:
    """The process: load a model, then run packs until there is no more input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    messages, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is not a result
    with contextlib.suppress(EOFError, OSError), results:  # the other side has gone
        device, cores = pickle.load(messages)
        _use_cores(cores)
        try:
            encoder = pickle.load(messages)(device=device)
            runner = encoder.scheduler.runner
            fingerprint = encoder.fingerprint("document", "")
            sizes = runner.packed, runner.packing, runner.budget, runner.alone_above
        except Exception as error:
            _write_error(results, error)
            return
        _write(results, _Ready(fingerprint, *sizes))
        while True:
            units, pooled = pickle.load(messages)
            try:
                states = [one.cpu().numpy() for one in runner.run(units, pooled=pooled)]
            except Exception as error:
                _write_error(results, error)
                _free_memory()
            else:
                _write(results, states)


def _own_cores() -> Sequence[int]:
    if hasattr(os, "sched_getaffinity"):
        return list(os.sched_getaffinity(0))
    return range(os.cpu_count() or 1)


def _use_cores(cores: Sequence[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # before torch counts them
    import torch

    torch.set_num_threads(len(cores))


def _write(file: IO[bytes], message: object) -> None:
    pickle.dump(message, file, protocol=pickle.HIGHEST_PROTOCOL)
    file.flush()


def _write_error(results: IO[bytes], error: Exception) -> None:
    """The error itself where it can be pickled; with it, where it was raised."""
    error.add_note("in a device's process:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    _write(results, error)


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):  # what was not sent yet cannot be any more
            pipe.close()
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
