"""What kept states save: time to the first and to the 16th token of an answer, by document length.

python -m benchmarks.rag            # about five minutes on two cores
python -m benchmarks.rag --quick    # a trial of the harness

A decoder of 124 M parameters with random weights in GritLM's layout. One document of a given
length, a question of its own for every sample, 16 new tokens. Contenders take turns; a sample
during which others used the machine is marked and counts only where there is no clean one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm_embeddings import Encoder
from llm_embeddings.corpus import load_corpus
from llm_embeddings.generation import Generator
from llm_embeddings.rag import Mode, Reader, Rule, StateStore

from .measure import Sample, Task, take, wait_until_quiet
from .models import LAYOUTS, ROOT, WORK, Shape, config_of, write_tokenizer
from .peers import require
from .report import RESULTS, Run

SHAPE = Shape("rag", 768, 12, 12, 4, 2048)
LENGTHS = (64, 256, 512, 1024, 2048, 4096)
_FEWER_FROM = 2048  # tokens: one sample less, they are long
NEW_TOKENS = 16
_NONE, _EXACT = "no cache", "doc, exact, memory"  # of the device the model is on
_QUIET = 5.0  # seconds to wait for a quiet moment before a sample
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Contender:
    """A mode, and where its states lie."""

    name: str
    mode: Mode
    rule: Rule
    on_disk: bool = False


CONTENDERS = (
    Contender(_NONE, "none", "exact"),
    Contender("query, paper", "query", "paper"),
    Contender(_EXACT, "doc", "exact"),
    Contender("doc, exact, disk", "doc", "exact", on_disk=True),
    Contender("doc, paper", "doc", "paper"),
    Contender("doc-query, paper", "doc-query", "paper"),
    Contender("query-doc, paper", "query-doc", "paper"),
)


@dataclass(slots=True)
class Row:
    """A contender at one length; samples are (seconds to the first token, to the last, clean)."""

    length: int
    contender: str
    read_seconds: float | None
    kept_bytes: int
    samples: list[tuple[float, float, bool]] = field(default_factory=list)

    @property
    def counted(self) -> list[tuple[float, float, bool]]:
        """The clean samples, or all where none is."""
        return [one for one in self.samples if one[2]] or self.samples

    @property
    def first(self) -> float:
        """Median seconds to the first token."""
        return statistics.median(one[0] for one in self.counted)

    @property
    def last(self) -> float:
        """Median seconds to the 16th."""
        return statistics.median(one[1] for one in self.counted)

    @property
    def clean(self) -> bool:
        """Whether the machine was ours."""
        return any(one[2] for one in self.samples)


def checkpoint() -> Path:
    """The model's directory; written where it does not lie yet."""
    import torch
    from transformers import AutoModelForCausalLM

    directory = WORK / "models" / "rag-gritlm"
    if (directory / "model.safetensors").is_file():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    write_tokenizer(LAYOUTS["gritlm"], directory)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config_of(SHAPE, LAYOUTS["gritlm"])).save_pretrained(directory)
    return directory


def load(device: str, dtype: str) -> Generator:
    """The model, embedding and generating."""
    recipe = LAYOUTS["gritlm"].recipe
    encoder = Encoder.from_pretrained(checkpoint(), recipe=recipe, device=device, dtype=dtype)
    return Generator(encoder)


def document(generator: Generator, tokens: int) -> str:
    """A text of so many tokens."""
    tokenizer = generator.encoder.tokenizer.backend_tokenizer
    text = " ".join(one.text for one in itertools.islice(itertools.cycle(load_corpus()), 60))
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    return text[: offsets[tokens - 1][1]]


def sample(reader: Reader, question: str, text: str) -> tuple[float, float, bool]:
    """Seconds to the first and the last token of one answer, and whether the machine was ours."""
    times: list[float] = []
    start = time.perf_counter()

    def run() -> None:
        pieces: Iterator[str] = reader.stream(
            question, [text], max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS
        )
        for _ in pieces:
            times.append(time.perf_counter() - start)

    wait_until_quiet(_QUIET)
    start = time.perf_counter()
    found: Sample = take(Task(run))
    return times[0], found.seconds, found.clean


def measure(
    generator: Generator, lengths: Sequence[int], repeats: int, folder: Path
) -> Iterator[Row]:
    """All contenders at all lengths."""
    questions = (f"What does part {number} say?" for number in itertools.count())
    for length in lengths:
        text = document(generator, length)
        paper = StateStore(device=generator.device, max_bytes=2**31)
        readers, rows = [], []
        for one in CONTENDERS:
            store = StateStore(device=generator.device, max_bytes=2**31)
            if one.on_disk:
                store = StateStore(folder / str(length), max_bytes=2**31)
            elif one.rule == "paper" and one.mode.startswith("doc"):
                store = paper  # "doc" and "doc-query" keep the same states of a document
            reader = Reader(generator, mode=one.mode, rule=one.rule, states=store)
            start = time.perf_counter()
            read = reader.prepare([text]) if "doc" in one.mode else 0
            spent = (time.perf_counter() - start) if read else None
            size = reader.cost([text]).nbytes if "doc" in one.mode else 0
            rows.append(Row(length, one.name, spent, size))
            readers.append(reader)
            if "doc" in one.mode:
                reader.answer("What?", [text], max_new_tokens=1)  # a file is checked once
        taken = max(1, repeats - (length >= _FEWER_FROM))
        for turn, place in itertools.product(range(taken), range(len(rows))):
            place = (place + turn) % len(rows)
            rows[place].samples.append(sample(readers[place], next(questions), text))
        yield from rows


def crossover(rows: Sequence[Row]) -> str:
    """From which document length on kept states are faster to the first token."""
    none = {row.length: row.first for row in rows if row.contender == _NONE}
    kept = {row.length: row.first for row in rows if row.contender == _EXACT}
    slower = [length for length in none if kept[length] >= none[length]]
    if not slower:
        return f"doc, exact is faster at every length from {min(none)} tokens on"
    above = [length for length in none if length > max(slower)]
    if not above:
        return f"doc, exact is not faster up to {max(none)} tokens"
    return f"doc, exact is faster from between {max(slower)} and {min(above)} tokens on"


def peak(part: str) -> int:
    """Peak memory in KiB of a process that embeds, generates, or does both."""
    command = [sys.executable, "-m", "benchmarks.rag", "--part", part]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


def run_part(part: str) -> int:
    """What `peak` measures, in this process."""
    import torch
    from transformers import AutoModelForCausalLM

    if part == "generate":
        model: Any = AutoModelForCausalLM.from_pretrained(checkpoint(), dtype=torch.float32)
        model.generate(torch.arange(3, 259)[None], max_new_tokens=NEW_TOKENS, pad_token_id=2)
    else:
        encoder = Encoder.from_pretrained(
            checkpoint(), recipe=LAYOUTS["gritlm"].recipe, dtype="float32"
        )
        encoder.encode_document([one.text for one in load_corpus()[:8]])
        if part == "both":
            Generator(encoder).generate("word " * 240, max_new_tokens=NEW_TOKENS)
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


def markdown(run: Run, rows: Sequence[Row], peaks: dict[str, int], bytes_per_token: int) -> str:
    """The tables."""
    host = run.machine
    none = {row.length: row for row in rows if row.contender == _NONE}
    text = (
        f"{run.date}, {host['processor']}, {host['cores']} cores, {host['threads']} threads, "
        f"commit {host['commit']}; {run.notes[0]}; 124 M parameters, {bytes_per_token:,} bytes of "
        f"states per token. Medians of up to {run.repeats} samples.\n\n"
        "| document | mode | first token | less | 16 tokens | less | read once | kept | samples |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
    )
    for row in rows:
        saved = [
            f"{1 - mine / theirs:.0%}"
            for mine, theirs in (
                (row.first, none[row.length].first),
                (row.last, none[row.length].last),
            )
        ]
        read = "" if row.read_seconds is None else f"{row.read_seconds:.2f} s"
        text += (
            f"| {row.length:,} | {row.contender} | {row.first:.3f} s | {saved[0]} | "
            f"{row.last:.3f} s | {saved[1]} | {read} | {row.kept_bytes / 2**20:.1f} MiB | "
            f"{sum(one[2] for one in row.samples)} clean of {len(row.samples)} |\n"
        )
    text += f"\n- Crossover: {crossover(rows)}.\n"
    for name, kib in peaks.items():
        text += f"- Peak memory of a process, {name}: {kib / 1024:,.0f} MiB\n"
    return text


def plot(rows: Sequence[Row], path: Path) -> None:
    """Seconds over document length, both axes logarithmic."""
    pyplot = require("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    for panel, what in zip(axes, ("first", "last"), strict=True):
        for one in CONTENDERS:
            mine = [row for row in rows if row.contender == one.name]
            seconds = [getattr(row, what) for row in mine]
            panel.plot([row.length for row in mine], seconds, marker="o", label=one.name)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel("tokens of the document")
        panel.set_title(f"to the {'first' if what == 'first' else f'{NEW_TOKENS}th'} token")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("seconds")
    axes[1].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Measure, and write a table, all samples and a plot to benchmarks/results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short documents, one sample")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--part", choices=("embed", "generate", "both"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(run_part(options.part))
        return
    repeats = 1 if options.quick else 3
    device = "" if options.device == "cpu" else options.device
    part = "-".join(filter(None, ("rag", device, "quick" if options.quick else "")))
    run = Run.start(repeats, part)
    run.notes.append(f"{options.device}, {options.dtype}")
    generator = load(options.device, options.dtype)
    lengths = LENGTHS[:2] if options.quick else LENGTHS
    folder = Path(tempfile.mkdtemp(dir=WORK))
    try:
        rows = []
        for row in measure(generator, lengths, repeats, folder):
            rows.append(row)
            print(f"{row.length:5} {row.contender:20} {row.first:8.3f} {row.last:8.3f}", flush=True)
    finally:
        shutil.rmtree(folder)
    parts = () if device else ("embed", "generate", "both")
    peaks = {part: peak(part) for part in parts}
    per_token = Reader(generator).cost(["a"]).bytes_per_token
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{run.name}.md"
    path.write_text(markdown(run, rows, peaks, per_token), encoding="utf-8")
    facts = {"machine": run.machine, "peaks_kib": peaks, "rows": [asdict(row) for row in rows]}
    path.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    plot(rows, path.with_suffix(".png"))
    print(f"written: {path}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
