"""Running a plan: the blocks that are not finished yet go to a pool of actors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console

from ..storage.progress import Meter
from .cluster import import_ray
from .folder import STAGED, SUCCESS, UNFINISHED, Folder, part_name
from .input.plan import Plan
from .input.staging import Staged
from .options import EmbeddingOptions, Share
from .output.result import Embedded
from .worker import EmbedBlocks, Report, Work, read_report, unit_to

_READERS = 32
_MOST_NOTES = 20


def _begin(ledger: Any, block: int) -> int:
    """Count a start of a block; returns how often it has been started in this run."""
    starts: int = import_ray().get(ledger.begin.remote(block))
    return starts


class Ledger:
    """A Ray actor that counts starts of blocks, as a block that kills workers is given up."""

    def __init__(self) -> None:
        self._starts: Counter[int] = Counter()

    def begin(self, block: int) -> int:
        """Count a start of a block; returns how many there have been."""
        self._starts[block] += 1
        return self._starts[block]


class Run:
    """A run of `embed_dataset`: embeds the blocks that are not finished yet."""

    def __init__(
        self,
        folder: Folder,
        plan: Plan,
        work: Work,
        embedding: EmbeddingOptions,
        share: Share,
        show: bool,
    ) -> None:
        self._folder, self._plan, self._work = folder, plan, work
        self._embedding, self._share, self._show = embedding, share, show

    def finish(self, staged: Staged, dimension: int) -> Embedded:
        """Embed the missing blocks, check that all are there, and write the success file.

        Args:
            staged: The input as it was staged.
            dimension: Numbers per vector.

        Raises:
            ValueError: a block failed, or files are missing afterwards.
        """
        plan, folder = self._plan, self._folder
        there = {number for number in folder.parts() if number < plan.count}
        reports = {report.block: report for report in self._earlier(there)}
        done = sum(report.rows + report.skipped for report in reports.values())
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        with Meter(console, "rows", begun=done, total=plan.rows, show=self._show) as meter:
            try:
                for report in self._reports(there):
                    if report.error:
                        raise ValueError(report.error)
                    reports[report.block] = report
                    if not report.before:
                        meter.add(report.rows, report.tokens, left_out=report.skipped)
            except Exception as error:
                error.add_note(
                    f"{len(reports):,} of {plan.count:,} blocks are finished and stay in "
                    f"{folder.place}: the same call goes on from there"
                )
                raise
        self._check(reports)
        found = Embedded(
            output=folder.place,
            rows=sum(report.rows for report in reports.values()),
            skipped=staged.skipped + sum(report.skipped for report in reports.values()),
            notes=self._notes(staged, reports),
            dimension=dimension,
            blocks=plan.count,
            computed=plan.count - len(there),
            tokens=meter.tokens,
            seconds=round(meter.seconds, 3),
        )
        kept = {
            k: v for k, v in asdict(found).items() if k not in ("computed", "tokens", "seconds")
        }
        folder.put_json(SUCCESS, kept)
        folder.remove(STAGED)
        folder.remove(UNFINISHED)
        return found

    def _earlier(self, numbers: set[int]) -> Iterator[Report]:
        """The reports of blocks that earlier runs have finished."""
        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(partial(read_report, self._folder), sorted(numbers))

    def _reports(self, finished: set[int]) -> Iterator[Report]:
        """Embed the other blocks, and yield the report of each as it comes."""
        ray, share = import_ray(), self._share
        units = [{"unit": unit_to(unit)} for unit in self._plan.units(finished, share.most)]
        if not units:
            return
        ledger = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Ledger).remote()
        starts = partial(_begin, ledger)
        work = {"work": self._work, "embedding": self._embedding, "starts": starts}
        options: dict[str, Any] = {"num_gpus": share.gpus} if share.gpus else {}
        with ray.data.DataContext.current(self._context()):
            rows = ray.data.from_items(units, override_num_blocks=len(units)).map_batches(
                EmbedBlocks,
                fn_constructor_kwargs=work,
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(
                    min_size=min(share.least, len(units)), max_size=min(share.most, len(units))
                ),
                num_cpus=share.cpus,
                **options,
            )
        try:
            for row in rows.iter_rows():
                yield Report.from_json(row["report"])
        finally:
            ray.kill(ledger)

    def _context(self) -> Any:
        """Ray Data's settings, changed for this run alone."""
        context = import_ray().data.DataContext.get_current().copy()
        context.target_max_block_size = 1  # a report shows at once, not when many are gathered
        context.execution_no_progress_timeout_s = -1  # a block may take longer than any default
        context.max_consecutive_actor_init_deaths = 3  # a worker may be killed while it loads
        context.enable_progress_bars = False  # the meter counts rows, these count pieces
        return context

    def _check(self, reports: dict[int, Report]) -> None:
        """Check that all files are there, and have as many rows as the input.

        Raises:
            ValueError: they are not or have not.
        """
        missing = set(range(self._plan.count)) - self._folder.parts()
        if missing:
            raise ValueError(
                f"{self._folder.place} has no {part_name(min(missing))} though a worker wrote it: "
                "is it a folder that all machines share?"
            )
        rows = sum(report.rows + report.skipped for report in reports.values())
        if rows != self._plan.rows:
            raise ValueError(
                f"{self._folder.place} holds {rows:,} rows and the input {self._plan.rows:,}: it "
                "was changed while it was read. Delete the folder and begin again"
            )

    def _notes(self, staged: Staged, reports: dict[int, Report]) -> tuple[str, ...]:
        found = [*self._plan.unreadable.values(), *staged.notes]
        for number in sorted(reports):
            found.extend(reports[number].notes)
        return tuple(found[:_MOST_NOTES])
