"""What runs keep so that they go on: outputs of `encode`, states, replies and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .stores import PART, ROWS, TEXTS, Done, Store, nobody, vector_of

_SETTINGS = {"model": "fingerprint"}


def _rows(number: int) -> bytes:
    return b"".join(vector_of(text).tobytes() for text in TEXTS[number * PART :][:PART])


def _write_parts(folder: Path, done: Done) -> None:
    from llm_embeddings.cli.encode.journal import Journal

    folder.mkdir(exist_ok=True)
    with Journal(folder / "out.npy", restart=False) as journal:
        journal.begin(_SETTINGS, b"head")
        for number in range(ROWS // PART):
            if number < len(journal.finished):
                journal.check(number, f"digest {number}")
            else:
                journal.append(_rows(number), f"digest {number}", PART)
                done(str(number))
        journal.check_end(ROWS // PART)


def _wrong_parts(folder: Path) -> str:
    _write_parts(folder, nobody)
    rows = (folder / "out.npy.partial/rows").read_bytes()
    return "" if rows == b"head" + b"".join(map(_rows, range(ROWS // PART))) else "rows"


def states_of(number: int) -> Any:
    """Keys and values of two layers, others for each number."""
    import torch

    from llm_embeddings.generation.kv import KeyValues

    drawn = torch.Generator().manual_seed(number)
    layers = [[torch.randn(2, 5, 4, generator=drawn) for _ in range(2)] for _ in range(2)]
    return KeyValues(tuple((key, value) for key, value in layers))


def _store(folder: Path) -> Any:
    from llm_embeddings.rag import StateStore

    store = StateStore(folder)
    store.bind("fingerprint")
    return store


def _write_states(folder: Path, done: Done) -> None:
    store = _store(folder)
    for number in range(ROWS // PART):
        if store.get("causal", [number]) is None:
            store.put("causal", [number], states_of(number))
            done(str(number))


def _wrong_states(folder: Path) -> str:
    import torch

    _store(folder)
    for again in (False, True):
        store = _store(folder)
        for number in range(ROWS // PART):
            found, wanted = store.get("causal", [number]), states_of(number)
            if found is None:
                if again:
                    return "states that were made again are lost"
                store.put("causal", [number], wanted)
                continue
            pairs = zip(found.layers, wanted.layers, strict=True)
            if not all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs):
                return "states"
    return ""


def _reply(number: int) -> dict[str, Any]:
    value = {"query": f"Query {number}?", "positive": TEXTS[number], "negative": "Nothing."}
    counts = {"final": True, "tokens_in": 3, "tokens_out": 9}
    return {"kind": "example", "number": number, "value": value, **counts}


def _write_replies(folder: Path, done: Done) -> None:
    from llm_embeddings.synthesis.calls.journal import Journal

    with Journal(folder, _SETTINGS) as journal:
        for number in range(ROWS):
            if not journal.is_final("example", number):
                journal.note(_reply(number))
                done(str(number))


def _wrong_replies(folder: Path) -> str:
    from llm_embeddings.synthesis.calls.journal import recorded

    _write_replies(folder, nobody)
    settings, lines = recorded(folder, "example")
    wanted = [_reply(number) for number in range(ROWS)]
    found = [{**line, "seal": None} for line in lines]
    same = found == [{**line, "seal": None} for line in wanted] and settings == _SETTINGS
    return "" if same else "replies"


_STEPS = 6
_OPTIONS = {
    **{"seed": 7, "schedule": "linear", "schedule_steps": None, "warmup": 0},
    **{"max_steps": None, "epochs": 1},
}
_FILES = ("trained.safetensors", "optimizer.pt")


def _bytes_of(step: int, name: str) -> bytes:
    return bytes(vector_of(f"{step} {name}").tobytes()) * 4


def _write_checkpoints(folder: Path, done: Done) -> None:
    from llm_embeddings.training import begun
    from llm_embeddings.training.run import checkpoints

    folder.mkdir(exist_ok=True)
    newest = begun.newest(folder)
    for step in range(1 if newest is None else begun.step_of(newest) + 1, _STEPS + 1):
        directory = folder / begun.FOLDER / f"step-{step:08d}"
        state = {"step": step, "options": _OPTIONS, "data": []}
        with checkpoints.checkpoint_folder(directory, state) as partial:
            for name in _FILES:
                (partial / name).write_bytes(_bytes_of(step, name))
        checkpoints.prune(folder, 2)
        done(str(step))


def _wrong_checkpoints(folder: Path) -> str:
    from llm_embeddings.training import begun
    from llm_embeddings.training.run import checkpoints

    found = checkpoints.check_output(folder, _OPTIONS, resume=True)
    if found is None:
        _write_checkpoints(folder, nobody)
        found = begun.newest(folder)
    assert found is not None
    step = begun.step_of(found)
    for name in _FILES:
        if (found / name).read_bytes() != _bytes_of(step, name):
            return "checkpoints"
    return ""


RUNS = {
    "parts of encode": Store(_write_parts, _wrong_parts),
    "states": Store(_write_states, _wrong_states),
    "replies of synthesis": Store(_write_replies, _wrong_replies),
    "checkpoints of a run": Store(_write_checkpoints, _wrong_checkpoints),
}
