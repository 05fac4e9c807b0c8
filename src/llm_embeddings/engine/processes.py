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

from .devices import check_devices, share_cores, use_cores

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

    def fingerprint(self, role: str = "document", instruction: str | None = None) -> str:
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


class DeviceWorker:
    """A process that runs packs, used like a `Runner`, by one thread.

    Attributes:
        device: Where it runs.
        packed: As `Runner.packed`; this and the next three are known once it is `ready`.
        packing: As `Runner.packing`.
        budget: As `Runner.budget`.
        alone_above: As `Runner.alone_above`.
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
        """The number that the system has given the process."""
        return self._process.pid

    def ready(self, fingerprint: str) -> None:
        """Wait until the model is loaded.

        Args:
            fingerprint: Fingerprint of the model in this process.

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
        use_cores(cores)
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
