"""embed_dataset: embeds a data set into an output folder, each row once, resuming after crashes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from .cluster import connect, import_ray, probe, share_of
from .folder import SUCCESS, Folder
from .input.plan import make_plan
from .input.source import Source
from .options import (
    EmbeddingOptions,
    OnError,
    absolute,
    check_embedding,
    check_run,
    check_share,
)
from .output.manifest import begun, opened, planned, settings_of
from .output.result import Embedded
from .pool import Run
from .worker import Work

if TYPE_CHECKING:
    from ray.data import Dataset


def embed_dataset(
    data: Dataset | str | Path | Sequence[str | Path],
    text_column: str = "text",
    *,
    output: str | Path,
    id_column: str | None = None,
    columns: Sequence[str] | None = None,
    rows_per_block: int = 8192,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    on_error: OnError = "raise",
    address: str | None = None,
    autoscaling: bool = False,
    show_progress: bool = True,
    **embedding: Unpack[EmbeddingOptions],
) -> Embedded:
    """Embed a data set into Parquet files; after a crash, the same call goes on where it stopped.

    The input is cut into numbered blocks of rows. A worker writes each block as a file such as
    `part-00042.parquet`, whole or not at all, so a file that is there is finished and its block is
    not computed again. In the order of their names, the files have the rows in the order of the
    input or, with `id_column`, of the ids.

    Args:
        data: Parquet files, JSON lines (`.jsonl`, also `.gz`), folders of them, local or in an
            object store (`s3://`, `gs://`, `abfs://`), or a Ray Dataset; that needs `id_column`.
        text_column: Name of the column of texts.
        output: A folder, local (on a cluster: mounted on all machines) or in an object store.
        id_column: Name of a column whose values are unique; the output is sorted by it, which costs
            a sort of the texts. None = the order of the input.
        columns: Names of the columns to carry along; None = all.
        rows_per_block: Rows per output file, which is what a killed worker loses at most. Up to
            1024, the vectors are the same bits however often a run was interrupted.
        concurrency: Number of workers, or (least, most); None = as many as there is room for.
        num_cpus: CPUs and threads of each worker; None = 1.
        num_gpus: GPUs of each worker; None = 0, which is the CPU.
        on_error: "skip" leaves out rows without a text and files or blocks that cannot be read,
            and counts them; "raise" stops at the first. Finished files are kept either way.
        address: Address of a Ray cluster; None = the one in `RAY_ADDRESS` or on this machine, else
            Ray is started on this machine.
        autoscaling: Whether the cluster grows on demand, and so may be asked for more than it has.
        show_progress: A bar with rows and tokens per second; in a log a line now and then.
        **embedding: The model and its options, as in `EmbedBatch`.

    Returns:
        Where the vectors are, how many rows there are, and what was left out.

    Raises:
        FileNotFoundError: an input is not there, or as `EmbedBatch`.
        ConnectionError: no cluster answers at the address.
        TypeError: an option that does not exist.
        ValueError: a value, row, file, model or output folder that does not fit; it is named.
        ImportError: Ray is not installed.
    """
    check_embedding(embedding)
    check_run(columns, rows_per_block, on_error)
    check_share(concurrency, num_cpus, num_gpus)
    embedding = absolute(embedding)
    import_ray()
    folder, skip = Folder(output), on_error == "skip"
    settings = settings_of(embedding) | {
        "text_column": text_column,
        "id_column": id_column,
        "columns": None if columns is None else list(columns),
        "rows_per_block": rows_per_block,
        "on_error": on_error,
    }
    source = Source(data, id_column, text_column, columns, skip=skip)
    manifest = opened(folder, settings, source.origins)
    column = settings["embedding_column"]
    plan_of = partial(
        make_plan,
        text_column=text_column,
        columns=columns,
        embedding_column=column,
        rows_per_block=rows_per_block,
        skip=skip,
    )
    known = None if manifest is None else manifest["unreadable"]
    plan = plan_of(source.files, known=known if source.direct else None) if source.tables else None
    if plan is not None:
        source.check(plan)
    connect(address)
    share = share_of(concurrency, num_cpus, num_gpus, autoscaling=autoscaling)
    if manifest is not None and embedding.get("dtype", "auto") == "auto":
        embedding["dtype"] = manifest["model"]["dtype"]
    facts = probe(embedding, share)
    embedding["dtype"] = facts.dtype  # "auto" is for each machine to choose, and they may differ
    manifest = begun(folder, manifest, settings, source.origins, facts)
    finished = folder.get_json(SUCCESS)
    if finished is not None:
        return Embedded.again(folder.place, finished)
    staged = source.staged(folder, manifest, plan_of)
    if plan is None or not source.direct:
        plan = plan_of(staged.places, known=known)
    planned(folder, manifest, staged, plan.unreadable)
    work = Work(folder.place, plan.schema, text_column, id_column, column, skip, facts)
    run = Run(folder, plan, work, embedding, share, show_progress)
    return run.finish(staged, facts.dimension)
