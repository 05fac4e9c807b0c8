"""Attack what is stored, loaded and served, and count: `python -m benchmarks.attack`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from . import checkpoints, disks, flips, interrupts, kills, rays, requests, siege, soak
from .runs import RUNS
from .stores import STORES, Store

# How often each attack is made; seconds of the soak. 0 leaves one out.
_COUNTS = {
    "flips": (200, "in each kind of store"),
    "kills": (20, "of each kind of store"),
    "interrupts": (20, "by Ctrl-C of a text of 20 MB that is indexed"),
    "disks": (20, "full disks and clocks set back or ahead, for each kind of store; needs root"),
    "ray": (20, "kills of Ray's workers and drivers; as many flips as --flips"),
    "checkpoints": (340, "hostile checkpoints"),
    "requests": (5000, "fuzzed requests"),
    "callers": (232, "callers at once"),
    "siege": (1100, "connections"),
    "soak": (1200, "seconds"),
}


def main() -> int:
    """Command line; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, (count, what) in _COUNTS.items():
        parser.add_argument(f"--{name}", type=int, help=f"{what}; {count} if no attack is named")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    seed = options.pop("seed")
    if all(count is None for count in options.values()):
        options = {name: count for name, (count, _) in _COUNTS.items()}
    counts = {name: count or 0 for name, count in options.items()}
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable()
    wrong = False
    with tempfile.TemporaryDirectory() as temporary:
        for name, found in _attacks(Path(temporary), counts, seed):
            words = ", ".join(f"{count} {what}" for what, count in sorted(found.items()))
            print(f"{name}: {words}", flush=True)
            wrong = wrong or any(what.startswith("WRONG") for what in found)
    return int(wrong)


def _attacks(
    temporary: Path, counts: dict[str, int], seed: int
) -> Iterator[tuple[str, Counter[str]]]:
    """The attacks that were asked for, first those that fork processes."""
    for kind, store in {**STORES, **RUNS}.items():
        yield from _stored(kind, store, temporary / kind, counts, seed)
    if counts["interrupts"]:
        yield (
            "interrupts",
            interrupts.attack(_made(temporary / "interrupts"), counts["interrupts"], seed=seed),
        )
    if counts["ray"]:
        yield from rays.attack(_made(temporary / "ray"), counts["ray"], counts["flips"], seed)
    if counts["checkpoints"]:
        place = _made(temporary / "checkpoints")
        yield "checkpoints", checkpoints.attack(place, counts["checkpoints"], seed)
    if counts["requests"] or counts["callers"]:
        yield from _served(counts, seed)
    if counts["siege"]:
        yield "siege", siege.attack(_made(temporary / "siege"), counts["siege"], seed)
    if counts["soak"]:
        from llm_embeddings import Encoder

        with closing(Encoder.from_pretrained(device="cpu", dtype="float32")) as encoder:
            yield "soak", soak.attack(encoder, _made(temporary / "soak"), counts["soak"], seed)


def _stored(
    kind: str, store: Store, place: Path, counts: dict[str, int], seed: int
) -> Iterator[tuple[str, Counter[str]]]:
    """The attacks on one kind of store."""
    if counts["flips"]:
        yield f"bits, {kind}", flips.attack(store, _made(place / "bits"), counts["flips"], seed)
    if counts["kills"]:
        yield f"kills, {kind}", kills.attack(store, _made(place / "kills"), counts["kills"], seed)
    if times := counts["disks"]:
        yield f"clocks, {kind}", disks.clocks(store, _made(place / "clocks"), times, seed)
        if disks.can_mount():
            yield f"full, {kind}", disks.full(store, _made(place / "full"), times, seed)
            yield f"read-only, {kind}", disks.read_only(store, _made(place / "read"))


def _made(place: Path) -> Path:
    place.mkdir(parents=True)
    return place


def _served(counts: dict[str, int], seed: int) -> Iterator[tuple[str, Counter[str]]]:
    from llm_embeddings import Encoder

    with (
        closing(Encoder.from_pretrained(device="cpu", dtype="float32")) as encoder,
        requests.served(encoder) as port,
    ):
        if counts["requests"]:
            yield "requests", requests.attack(encoder, port, counts["requests"], seed)
        if counts["callers"]:
            yield "callers", requests.callers(encoder, port, counts["callers"])


if __name__ == "__main__":
    sys.exit(main())
