"""Checkpoints by somebody who means harm: each is loaded or refused by name, soon.

Values of every JSON file of two checkpoints are replaced, files are cut off, filled with other
bytes or named elsewhere. A process of its own loads them, so that one that hangs can be ended.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
SECONDS, BYTES = 10, 2**30
CANARY = "canary"
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 10**9, 10**400, 0.5, float("nan"), float("inf"), "", "x", "false"),
    *([], {}, [[]], {"a": {}}, "a" * 10**6, "(([a-z]+)*)*!", "((a|a)*)*b"),
    *(f"../{CANARY}", f"../{CANARY}/model.safetensors", "/etc/passwd", "\0", "C:\\x", "org/name"),
)


def changes(path: Path, chosen: random.Random) -> str:
    """Change one thing in a checkpoint; says what."""
    files = sorted(one for one in path.rglob("*") if one.suffix in (".json", ".safetensors"))
    file = chosen.choice(files)
    name = str(file.relative_to(path))
    if file.suffix == ".json" and chosen.random() < 0.75:
        values = json.loads(file.read_text(encoding="utf-8"))
        places = list(_places(values))
        holder, key = chosen.choice(places)
        holder[key] = chosen.choice(_VALUES)
        file.write_text(json.dumps(values), encoding="utf-8")
        return f"{name} {key} = {holder[key]!r:.30}"
    data = file.read_bytes()
    kind = chosen.randrange(6)
    if kind == 0:
        file.write_bytes(data[: chosen.randrange(len(data))])
    elif kind == 1:
        other = bytearray(data)
        for _ in range(8):
            other[chosen.randrange(min(len(other), 4096))] ^= 1 << chosen.randrange(8)
        file.write_bytes(other)
    elif kind == 2:
        file.write_bytes(b"\xef\xbb\xbf" + data)
    elif kind == 3:
        file.write_bytes(b"[" * 200_000)
    elif kind == 4:
        file.unlink()
        file.symlink_to(path.parent / CANARY / "model.safetensors")
    else:
        file.write_bytes(b"")
    return f"{name} {('cut', 'flipped', 'BOM', 'deep', 'linked', 'empty')[kind]}"


def _places(values: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Holders and keys of all values, large tables left out."""
    if isinstance(values, dict | list) and len(values) < 200 and depth < 5:
        for key in values if isinstance(values, dict) else range(len(values)):
            yield values, key
            yield from _places(values[key], depth + 1)


def _load(connection: Any) -> None:
    """Load what comes and say what became of it; in a process of its own."""
    from llm_embeddings import Encoder

    opened: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and CANARY in str(arguments[0]):
            opened.append(str(arguments[0]))

    sys.addaudithook(note)
    Encoder.from_pretrained(GOLDEN / "e5-mistral/model", device="cpu", dtype="float32").close()
    connection.send(("ready", 0, []))
    while (path := connection.recv()) is not None:
        opened.clear()
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            encoder = Encoder.from_pretrained(
                path, device="cpu", dtype="float32", local_files_only=True
            )
            encoder.encode("x")
            encoder.close()
            what = "loaded"
        except (ValueError, FileNotFoundError) as error:
            what = (
                "refused by name"
                if str(Path(path).parent) in str(error)
                else f"no name: {error!r:.90}"
            )
        except BaseException as error:
            what = f"WRONG {type(error).__name__}: {error!s:.90}"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if time.process_time() - begun > SECONDS:
            what = "WRONG slow"
        connection.send((what, grown * 1024, list(opened)))


def attack(folder: Path, times: int, seed: int = 0) -> Counter[str]:
    """Load so many hostile checkpoints; what became of them.

    Args:
        folder: An empty folder.
        times: How many.
        seed: Seed of the changes.
    """
    chosen, found = random.Random(seed), Counter[str]()
    shutil.copytree(GOLDEN / "e5-mistral/model", folder / CANARY)
    (folder / CANARY / "model.safetensors").write_bytes(b"secret")
    child, connection = _begin()
    for _ in range(times):
        case = chosen.choice(("e5-mistral/model", "llm2vec-mistral"))
        copy = shutil.copytree(GOLDEN / case, folder / "case" / "model")
        what = changes(copy, chosen)
        connection.send(str(copy / "mntp" if case == "llm2vec-mistral" else copy))
        if connection.poll(10 * SECONDS):
            result, grown, opened = connection.recv()
        else:
            child.kill()
            child, connection = _begin()
            result, grown, opened = "WRONG hangs", 0, []
        if grown > BYTES:
            result = "WRONG memory"
        if opened:
            result = "WRONG file outside"
        if result.startswith(("WRONG", "no name")):
            print(f"  {result}  <- {what}", flush=True)
            result = result.partition(":")[0]
        found[result] += 1
        shutil.rmtree(folder / "case")
    connection.send(None)
    child.join()
    return found


def _begin() -> tuple[Any, Any]:
    """A process that loads checkpoints, and the way to it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_load, args=(there,), daemon=True)
    child.start()
    here.recv()
    return child, here
