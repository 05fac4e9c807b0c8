"""Write one small file of every kind that this package keeps, for later versions to open.

    python scripts/compatibility_files.py

Run it at each release, with the released version installed: it makes a folder named after the
version in `tests/compatibility/files`, to be committed. `tests/compatibility` then shows with every
later version that these files still open. What was found in them when they were made (vectors,
hits, losses) stands beside them in `expected.json` and `vectors.npz`.

Everything is made in a temporary folder. Where a file keeps the absolute path of that folder, the
path is replaced by `/made/here`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from compatibility_models import (
    PASSAGES,
    QUERIES,
    Interrupted,
    Scripted,
    backbone,
    recipe,
    tokenizer,
)
from typer.testing import CliRunner

from llm_embeddings import Encoder, __version__

FILES = Path(__file__).parents[1] / "tests" / "compatibility" / "files"
GRITLM = Path(__file__).parents[1] / "tests" / "golden" / "gritlm-7b" / "model"
PLACE = "/made/here"

NOTES = {
    "kitchen.md": "# Kitchen\n\nWe bake bread.\n\n## Oven\n\nHeat it well.\n",
    "garden.txt": "Water the roses.\n\nCut the hedge in autumn.\n",
}
# "--chunk 4" of ten passages: two whole chunks, and one that the broken line interrupts.
ENCODE = ("--model", "model", "--dtype", "float32", "--device", "cpu", "--chunk", "4")
TRAIN = (
    *("train", "simcse", "--model", "model", "--data", "training/texts.txt"),
    *("--output", "training/result", "--max-steps", "4", "--batch-size", "4"),
    *("--save-every", "2", "--log-every", "1", "--dtype", "float32", "--lora-rank", "2"),
)
EVALUATE = (
    *("evaluate", "model", "--tasks", "evaluation/pairs.jsonl", "-o", "evaluation/scores"),
    *("--dtype", "float32", "--device", "cpu", "--resamples", "10", "--json"),
)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=FILES, help="where the folder goes")
    output = parser.parse_args().output / __version__
    if output.exists():
        parser.error(f"{output} exists: the files of a version are never written again")
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary).resolve(), STEPS)
        shutil.copytree(temporary, output)
    print(f"{output}: {sum(p.stat().st_size for p in output.rglob('*') if p.is_file()):,} bytes")


def write(folder: Path, steps: Sequence[Callable[[], object]]) -> None:
    """Write the files of some of the `STEPS` and `expected.json` to an empty folder."""
    with contextlib.chdir(folder):
        found = {step.__name__.removeprefix("write_"): step() for step in steps}
    about = {"version": __version__, "queries": QUERIES, "passages": PASSAGES}
    text = json.dumps(about | found, indent=1) + "\n"
    (folder / "expected.json").write_text(text, encoding="utf-8")


def write_model() -> dict[str, Any]:
    """A saved encoder with calibrated ranges, and its vectors."""
    encoder = Encoder(backbone(), tokenizer(), recipe())
    encoder.calibrate(PASSAGES)
    encoder.save_pretrained("model")
    encoder.close()
    encoder = _encoder()
    np.savez(
        "vectors.npz",
        query=encoder.encode_query(QUERIES),
        document=encoder.encode_document(PASSAGES),
        int8=encoder.encode_document(PASSAGES, precision="int8"),
    )
    prints = {role: encoder.fingerprint(role) for role in ("query", "document")}
    encoder.close()
    return {"fingerprints": prints}


def write_vector_cache() -> dict[str, Any]:
    """The states of all queries and passages."""
    encoder = _encoder(vector_cache="vectors.sqlite")
    encoder.encode_query(QUERIES)
    encoder.encode_document(PASSAGES)
    assert encoder.vector_cache is not None
    states = len(encoder.vector_cache)
    encoder.vector_cache.close()
    encoder.close()
    return {"states": states}


def write_search() -> dict[str, Any]:
    """An index of `search` over two notes, and what it finds."""
    Path("notes").mkdir()
    for name, text in NOTES.items():
        Path("notes", name).write_text(text, encoding="utf-8", newline="\n")
    options = ("--model", "model", "--index", "search", "--json", "--mode", "vector")
    arguments = ("search", "notes", QUERIES[1], *options)
    hits = [json.loads(line) for line in _run(*arguments).splitlines()]
    with contextlib.closing(sqlite3.connect("search/index.sqlite")) as connection, connection:
        for (path,) in connection.execute("SELECT path FROM files").fetchall():
            moved = os.fsencode(os.fsdecode(path).replace(str(Path.cwd()), PLACE))
            connection.execute("UPDATE files SET path = ? WHERE path = ?", (moved, path))
    return {"hits": hits}


def write_documents() -> dict[str, Any]:
    """A `DocumentIndex` of whole documents and of a long one in late chunks."""
    from llm_embeddings.rag import DocumentIndex

    encoder = _encoder()
    index = DocumentIndex(encoder, "documents.sqlite")
    index.add(PASSAGES[:6], ids=[f"p{number}" for number in range(6)], metadata=[{"of": "six"}] * 6)
    index.add_chunked([" ".join(PASSAGES[6:])], 60, ids=["long"], late=True)
    found = index.search(QUERIES[0], k=20, mode="vector")
    hits = [[hit.id, hit.score, hit.metadata] for hit in found]
    index.close()
    encoder.close()
    return {"hits": hits}


def write_states() -> dict[str, Any]:
    """A `StateStore` with the keys and values of three documents, and an answer from it.

    The model is the golden GritLM checkpoint: a generator needs the head that `model` has not.
    """
    from llm_embeddings.generation import Generator
    from llm_embeddings.rag import Reader, StateStore

    encoder = Encoder.from_pretrained(GRITLM, dtype="float32", device="cpu")
    reader = Reader(Generator(encoder), states=StateStore("states"))
    read = reader.prepare(PASSAGES[:3])
    answer = reader.answer(QUERIES[0], PASSAGES[:1], max_new_tokens=8)
    encoder.close()
    return {"documents": read, "answer": list(answer.ids), "cached": answer.cached_tokens}


def write_encode() -> dict[str, Any]:
    """Outputs of `encode` in each format: a finished one, and one that was interrupted."""
    rows = [json.dumps({"id": number, "text": text}) for number, text in enumerate(PASSAGES)]
    for name, lines in {"passages": rows, "broken": [*rows[:9], "not JSON"]}.items():
        Path(f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    for suffix in ("npy", "jsonl", "parquet"):
        _run("encode", "passages.jsonl", "-o", f"finished.{suffix}", *ENCODE)
        output = f"interrupted.{suffix}"
        _run("encode", "broken.jsonl", "-o", output, *ENCODE, exit_code=1)
    Path("broken.jsonl").unlink()
    return {"command": ENCODE, "finished": 8}


def write_training() -> dict[str, Any]:
    """A run of four updates as a kill after the second leaves it, and the losses of all four."""
    Path("training").mkdir()
    Path("training/texts.txt").write_text("\n".join(PASSAGES * 2) + "\n", "utf-8", newline="\n")
    _run(*TRAIN)
    result = Path("training/result")
    metrics = [json.loads(line) for line in (result / "metrics.jsonl").read_text().splitlines()]
    (kept,) = (path for path in (result / "checkpoints").iterdir() if path.name.endswith("02"))
    kept.rename("training/kept")
    shutil.rmtree(result)
    (result / "checkpoints").mkdir(parents=True)
    Path("training/kept").rename(result / "checkpoints" / kept.name)
    lines = "".join(json.dumps(line) + "\n" for line in metrics if line["step"] <= 2)
    (result / "metrics.jsonl").write_text(lines, encoding="utf-8", newline="\n")
    return {"command": TRAIN, "losses": {line["step"]: line["loss"] for line in metrics}}


def write_synthesis() -> dict[str, Any]:
    """The journal of a run of `synthesize` that was interrupted after six answers."""
    from llm_embeddings.synthesis.placeholders import Sampler
    from llm_embeddings.synthesis.run import Plan, generate

    groups = {"sts": 1.0, "short-short": 1.0}
    plan = Plan(examples=12, sampler=Sampler(7, groups=groups, languages={"en": 1.0}))
    generator: Any = Scripted(calls=6)
    with contextlib.suppress(Interrupted):
        generate(Path("synthesis"), plan, generator)
    return {"groups": groups, "examples": 12, "seed": 7}


def write_evaluation() -> dict[str, Any]:
    """Scores of `evaluate` on six sentence pairs."""
    Path("evaluation").mkdir()
    rows = [{"a": PASSAGES[i], "b": PASSAGES[i // 2], "score": i % 3} for i in range(6)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    Path("evaluation/pairs.jsonl").write_text(text, encoding="utf-8", newline="\n")
    shown = json.loads(_run(*EVALUATE))
    Path("evaluation/scores/.scores.json.lock").unlink()
    return {"command": EVALUATE, "shown": shown}


def write_ray() -> dict[str, Any]:
    """The output folder of `embed_dataset`: three parts of four rows at most."""
    import ray

    from llm_embeddings.distributed import embed_dataset

    Path("ray").mkdir()
    ids = [f"id-{number}" for number in range(len(PASSAGES))]
    pq.write_table(pa.table({"id": ids, "text": PASSAGES}), "ray/passages.parquet")
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20)
    options: dict[str, Any] = {"rows_per_block": 4, "show_progress": False, "dtype": "float32"}
    made = embed_dataset("ray/passages.parquet", output="ray/output", model="model", **options)
    ray.shutdown()
    for path in (Path("ray/output/_llm_embeddings.json"), Path("ray/output/_SUCCESS")):
        text = path.read_text(encoding="utf-8").replace(str(Path.cwd()), PLACE)
        path.write_text(text, encoding="utf-8", newline="\n")
    return {"rows": made.rows, "blocks": made.blocks, "options": options}


STEPS = (
    write_model,
    write_vector_cache,
    write_search,
    write_documents,
    write_states,
    write_encode,
    write_training,
    write_synthesis,
    write_evaluation,
    write_ray,
)


def _encoder(**options: Any) -> Encoder:
    return Encoder.from_pretrained("model", dtype="float32", device="cpu", **options)


def _run(*arguments: str, exit_code: int = 0) -> str:
    """What a command of `llm-embeddings` prints to stdout."""
    from llm_embeddings.cli import app

    done = CliRunner().invoke(app, arguments)
    if done.exit_code != exit_code:
        raise RuntimeError(f"llm-embeddings {' '.join(arguments)}: {done.output}") from (
            done.exception
        )
    return done.stdout


if __name__ == "__main__":
    main()
