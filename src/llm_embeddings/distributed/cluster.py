"""Ray: connecting to a cluster, what each worker gets of it, and a first load of the model."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import urlsplit

from ..faces import require
from .batch import EmbedBatch, Facts
from .options import EmbeddingOptions, Share

_CONNECT_SECONDS = 5.0
_NAMES = ("auto", "local")  # what may stand for an address


def import_ray() -> Any:
    """Import Ray, with Ray Data.

    Raises:
        ImportError: it is not installed.
    """
    need = "llm_embeddings.distributed needs Ray Data"
    require("ray.data", need, extra="ray")
    return require("ray", need, extra="ray")


def connect(address: str | None) -> None:
    """Connect to a cluster.

    Args:
        address: Address of the cluster; None = that in `RAY_ADDRESS` or one that runs on this
            machine, else one is started here. A process that is connected stays so.

    Raises:
        ConnectionError: nothing answers at the address.
        ValueError: this process is connected already, and an address is given.
    """
    ray = import_ray()
    if ray.is_initialized():
        if address is not None:
            raise ValueError(
                f"address={address!r}, but this process is connected to Ray already: leave it out, "
                "or call ray.shutdown() first"
            )
        return
    target = address or os.environ.get("RAY_ADDRESS")
    if target and target not in _NAMES:
        _check_reachable(target)
    ray.init(address=address)


def share_of(
    concurrency: int | tuple[int, int] | None,
    cpus: float | None,
    gpus: float | None,
    *,
    autoscaling: bool,
) -> Share:
    """How many workers there are and what each gets, checked against what the cluster has.

    Args:
        concurrency: Number of workers, or (least, most); None = as many as there is room for.
        cpus: CPUs of each worker; None = 1.
        gpus: GPUs of each worker; None = 0.
        autoscaling: Whether the cluster grows on demand, so that what it has is no limit.

    Raises:
        ValueError: the cluster has too little.
    """
    nodes = [node["Resources"] for node in import_ray().nodes() if node["Alive"]]
    wanted = {"CPU": 1.0 if cpus is None else cpus, "GPU": gpus or 0.0}
    room = sum(
        int(min(node.get(name, 0.0) / amount for name, amount in wanted.items() if amount))
        for node in nodes
    )
    least, most = concurrency if isinstance(concurrency, tuple) else (concurrency, concurrency)
    if room < (least or 1) and not autoscaling:
        each = " and ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
        has = ", ".join(
            " and ".join(f"{node.get(name, 0):g} {name}" for name in wanted) for node in nodes
        )
        raise ValueError(
            f"{least or 1} workers with {each} each do not fit: the machines of this cluster have "
            f"{has}. Ask for less, or say autoscaling=True if it grows on demand"
        )
    least = least or max(1, room)
    return Share(wanted["CPU"], wanted["GPU"], least, most or least)


def probe(embedding: EmbeddingOptions, share: Share) -> Facts:
    """Load the model on a worker, to learn what its vectors depend on before anything is written.

    Raises:
        Exception: whatever loading raises.
    """
    ray = import_ray()
    task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus)(_facts)
    found: Facts = cause_of(task.remote(embedding))
    return found


def cause_of(reference: Any) -> Any:
    """The result of a Ray task; what the task raised is raised, not Ray's wrapper of it."""
    ray = import_ray()
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


def _facts(embedding: EmbeddingOptions) -> Facts:
    """The facts of a model, which is loaded for them and dropped; runs on a worker."""
    import gc

    facts = EmbedBatch(**embedding).facts
    gc.collect()  # the process will load a model again, as a worker
    return facts


def _check_reachable(address: str) -> None:
    """Check within seconds that an address answers; Ray would wait for minutes.

    Raises:
        ConnectionError: it does not.
    """
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = parts.hostname, parts.port or 10001
    except ValueError as error:
        raise ConnectionError(f"{address!r} is no address of a Ray cluster: {error}") from error
    try:
        socket.create_connection((host or "", port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}): is its head running, and can this "
            "machine reach it? Without an address one is started here"
        ) from error
