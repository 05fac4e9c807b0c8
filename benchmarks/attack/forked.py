"""Work in a process of its own that can be ended at any moment, and that tells what it has done."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .stores import Done


@dataclass(frozen=True)
class Outcome:
    """What became of a process.

    Attributes:
        done: What it said was done.
        killed: Whether it was ended from outside.
        error: The error that ended it; "" = none.
        named: Whether that is an error for users: a `ValueError` or `OSError` with words.
    """

    done: list[str]
    killed: bool
    error: str
    named: bool


def run(
    work: Callable[[Done], None],
    seconds: float | None = None,
    *,
    ended_by: signal.Signals = signal.SIGKILL,
) -> Outcome:
    """Fork, let the child work, and end it after so many seconds.

    Args:
        work: Gets a function that is told what is done.
        seconds: None = the child may end by itself.
        ended_by: The signal that it gets.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _child(work, writer)
    os.close(writer)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, ended_by)
    with os.fdopen(reader, "r", encoding="utf-8") as lines:
        said = [line[:-1] for line in lines if line.endswith("\n")]
    _, status = os.waitpid(child, 0)
    done = [line[5:] for line in said if line.startswith("done ")]
    error = next((line[6:] for line in said if line.startswith("error ")), "")
    return Outcome(done, os.WIFSIGNALED(status), error, "named" in said)


def _child(work: Callable[[Done], None], writer: int) -> None:
    def tell(line: str) -> None:
        os.write(writer, (line.replace("\n", " ")[:3000] + "\n").encode())

    try:
        work(lambda done: tell(f"done {done}"))
    except BaseException as error:
        if isinstance(error, ValueError | OSError) and str(error):
            tell("named")
        place = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        tell(f"error {words}")
    finally:
        os._exit(0)
