"""The folders a run writes: its checkpoints and its result, each whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...storage.blocks import file_checksum, seal_values
from ...storage.files import sync, sync_directory
from ..begun import ABSENT, CHANGED, FOLDER, STATE, all_of, newest, options_of, state_of, step_of
from .stage import TrainingError

METRICS = "metrics.jsonl"
LOGS = "tensorboard"
_PARTIAL = ".partial"
# Options that may differ when a run is resumed: none of these changes what is learnt.
FREE = frozenset(
    {
        "output",
        "batch_tokens",
        "gradient_checkpointing",
        "log_every",
        "save_every",
        "keep",
        "evaluation",
        "eval_every",
        "resume",
        "tensorboard",
        "curve",
        "show_progress",
    }
)
# Files without which nothing loads the folder as a model.
_MARKS = ("config.json", "adapter_config.json", "llm_embeddings.json")


def check_output(output: Path, options: Mapping[str, Any], *, resume: bool) -> Path | None:
    """The checkpoint that a run resumes; None = the run starts from the beginning.

    Args:
        output: The run's folder.
        options: The run's options, as JSON-ready values.
        resume: Whether an interrupted run in the folder is to go on.

    Raises:
        ValueError: the folder holds something and `resume` is off, the checkpoint is not as it was
            written, or the run that is there had other options.
    """
    found = newest(output)
    if not resume:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ValueError(
                f"output={str(output)!r} is not empty: name another folder"
                + (", or go on with resume=True" if found else "")
            )
        return None
    if found is None:
        if output.is_dir() and any((output / mark).exists() for mark in _MARKS):
            raise ValueError(
                f"output={str(output)!r} holds a model and no checkpoint to resume: name another "
                "folder"
            )
        return None
    _check_whole(found)
    options = json.loads(json.dumps(options))  # tuples are lists there
    before = options_of(found)
    before = {name: options[name] for name in ABSENT.keys() & options} | {**before}
    other = differing(before, options, FREE | _end_of_run(options, step_of(found)))
    if other:
        raise ValueError(
            f"cannot resume {found}: {'; '.join(other)}. Resume with the options it was started "
            "with (max_steps may be raised where schedule_steps or a constant schedule leave the "
            "learning rates as they were), or start anew in another folder"
        )
    return found


def differing(before: Mapping[str, Any], options: Mapping[str, Any], free: Set[str]) -> list[str]:
    """Which options of a run, as JSON-ready values, are not what they were; `free` ones may be."""
    return [
        f"{name} was {before.get(name)!r} and is {options.get(name)!r}"
        for name in sorted({*before, *options} - free)
        if before.get(name) != options.get(name)
    ]


def _end_of_run(options: Mapping[str, Any], done: int) -> frozenset[str]:
    """The options that say when a run ends, where nothing else depends on them."""
    planned = options["schedule_steps"] is not None
    steady = options["schedule"] == "constant" and not 0 < options["warmup"] < 1
    longer = options["max_steps"] is None or options["max_steps"] >= done
    return frozenset({"max_steps", "epochs"} if longer and (planned or steady) else ())


def partial_of(directory: Path) -> Path:
    """The folder in which a checkpoint lies until it is whole."""
    return directory.with_name(directory.name + _PARTIAL)


@contextmanager
def checkpoint_folder(directory: Path, state: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary folder that becomes `directory` at once when the block ends without an error.

    Args:
        directory: The checkpoint's folder; must not exist.
        state: What is written to checkpoint.json in it, last.

    Yields:
        The temporary folder, to be filled.
    """
    partial = fresh(partial_of(directory))
    yield partial
    files = {path.relative_to(partial).as_posix(): file_checksum(path) for path in _files(partial)}
    content = seal_values({**json.loads(json.dumps(state)), "files": files})
    (partial / STATE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _flush(partial)
    partial.rename(directory)
    sync_directory(directory.parent)


def fresh(directory: Path) -> Path:
    """Make a folder empty, whatever was there, and return it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


@contextmanager
def result_folder(output: Path) -> Iterator[Path]:
    """A temporary folder whose files move into `output` when the block ends without an error.

    The files without which nothing loads the folder as a model move last.
    """
    partial = fresh(output / f"result{_PARTIAL}")
    yield partial
    _flush(partial)
    for mark in _MARKS:
        (output / mark).unlink(missing_ok=True)
    files = sorted(partial.iterdir(), key=lambda path: (path.name in _MARKS, path.name))
    for path in files:
        path.replace(output / path.name)
    partial.rmdir()
    sync_directory(output)


def prune(output: Path, keep: int) -> None:
    """Remove all checkpoints but the last `keep`, and what an interrupted save left."""
    for old in all_of(output)[:-keep]:
        shutil.rmtree(old)
    for partial in (output / FOLDER).glob(f"*{_PARTIAL}"):
        shutil.rmtree(partial)


def check_space(directory: Path, needed: int) -> None:
    """Check that the disk has room for `needed` bytes more.

    Raises:
        TrainingError: too little room; nothing was written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise TrainingError(
            f"{directory}: a checkpoint takes {needed / 1e9:.2f} GB and the disk has "
            f"{free / 1e9:.2f} GB left. Make room (keep=1 keeps one checkpoint) and go on with "
            "resume=True"
        )


def rewind(output: Path, step: int) -> None:
    """Drop the metrics of updates after `step`, which a resumed run does again."""
    path = output / METRICS
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        path.write_text("".join(kept), encoding="utf-8")


def _flush(directory: Path) -> None:
    """Make sure that a folder's files are on the disk and not only in its cache."""
    for path in _files(directory):
        with path.open("rb") as file:
            sync(file)
    sync_directory(directory)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _check_whole(checkpoint: Path) -> None:
    """Check that the files of a checkpoint are as they were written; older ones do not say.

    Raises:
        ValueError: one is not; it is named.
    """
    for name, wanted in state_of(checkpoint).get("files", {}).items():
        path = checkpoint / name
        if not path.is_file() or file_checksum(path) != wanted:
            raise ValueError(f"{path} {CHANGED}")
