"""`python -m benchmarks.gpu`: 7B-shaped random weights in bfloat16 on one GPU.

First the golden cases and every attention kernel must give the right vectors there. Then tokens per
second, FLOP rate, memory and the latency of one query, against sentence-transformers with SDPA and,
where flash-attn is installed, with that. `--device cpu --tiny` tries all of it without a GPU.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_embeddings import Encoder

from . import peers, report, workloads
from .comparisons import Comparison
from .contest import Patience, attempt, compare
from .gpu_checks import check_golden, check_kernels
from .models import (
    LAYOUTS,
    SHAPES,
    Layout,
    Shape,
    config_of,
    exported,
    random_backbone,
    write_tokenizer,
)
from .peers import Contender, Role, Setting, Texts
from .report import Row, Run
from .work import GemmPeak

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ST_FLASH = f"{peers.ST}, flash-attn"
_DTYPE = "bfloat16"


@dataclass(frozen=True, slots=True)
class Plan:
    """Where, how large and how often."""

    device: str
    shape: Shape
    queries: int
    documents: int
    long: tuple[int, int]
    single: int
    patience: Patience


def plan_of(device: str, repeats: int, *, tiny: bool) -> Plan:
    """The real sizes, or those of a dry run, which does not wait for a quiet machine."""
    if tiny:
        return Plan(device, SHAPES["tiny"], 32, 32, (2, 512), 10, Patience(repeats, 0.0))
    return Plan(device, SHAPES["7b"], 2048, 4096, (32, 8192), 300, Patience(repeats))


def comparisons_of(plan: Plan, layout: Layout, models: Mapping[str, Any]) -> list[Comparison]:
    """W1, W2 and W3 with models that are loaded."""
    count, tokens = plan.long
    cases: tuple[tuple[str, Role, Callable[[], Texts]], ...] = (
        (f"W1 {plan.queries} queries", "query", lambda: workloads.queries(plan.queries)),
        (f"W2 {plan.documents} documents", "document", lambda: workloads.documents(plan.documents)),
        (
            f"W3 {count} documents of {tokens} tokens",
            "document",
            lambda: workloads.long_documents(count, tokens),
        ),
    )
    return [
        Comparison(
            name,
            Setting(plan.shape, layout, _DTYPE, role),
            texts,
            tuple(partial(_loaded, *item) for item in models.items()),
        )
        for name, role, texts in cases
    ]


def encoder_of(plan: Plan, layout: Layout, folder: Path) -> Encoder:
    """Our encoder over random weights that never touch a disk."""
    from transformers import PreTrainedTokenizerFast

    write_tokenizer(layout, folder)
    backbone = random_backbone(plan.shape, layout, dtype=_DTYPE, device=plan.device)
    recipe = layout.recipe.replace(max_length=max(plan.long[1], 512))
    return Encoder(backbone, PreTrainedTokenizerFast.from_pretrained(folder), recipe)


def st_of(plan: Plan, encoder: Encoder, layout: Layout, attention: str) -> Any:
    """A `SentenceTransformer` over the same weights, in memory once.

    Prompts, tokenizer and modules come from the export of a tiny model of the same layout; its
    backbone is replaced by one of the right size whose parameters are ours.
    """
    import torch
    from transformers import AutoModel

    module = peers.require("sentence_transformers")
    export = exported(SHAPES["tiny"], layout)
    model = module.SentenceTransformer(str(export), device=plan.device, local_files_only=True)
    config = config_of(plan.shape, layout)
    config.is_causal = layout.recipe.causal
    if not layout.recipe.causal:  # the reference ignores it
        config.sliding_window = None
        config.layer_types = ["full_attention"] * plan.shape.layers
    with torch.device("meta"):
        backbone: PreTrainedModel = AutoModel.from_config(
            config, dtype=getattr(torch, _DTYPE), attn_implementation=attention
        )
    backbone.load_state_dict(encoder.backbone.state_dict(), assign=True)
    rotary: Any = encoder.backbone.rotary_emb
    backbone.rotary_emb = rotary
    model[0].model = backbone.eval()
    model.max_seq_length = encoder.max_length
    return model


def contenders_of(plan: Plan, encoder: Encoder, layout: Layout) -> Iterator[tuple[str, Any]]:
    """Names, and what each encodes with."""
    yield peers.OURS, encoder
    yield peers.ST, st_of(plan, encoder, layout, "sdpa")
    if plan.device != "cpu" and importlib.util.find_spec("flash_attn") is not None:
        yield ST_FLASH, st_of(plan, encoder, layout, "flash_attention_2")


def call_of(name: str, model: Any, role: Role) -> Contender:
    """A loaded model as a contender; our encoder and sentence-transformers name methods alike."""
    call = model.encode_query if role == "query" else model.encode_document
    if isinstance(model, Encoder):
        return Contender(name, call, encoder=model, backbone=model.backbone)
    silent = partial(call, show_progress_bar=False)
    return Contender(name, silent, backbone=model[0].auto_model)


def _loaded(name: str, model: Any, setting: Setting) -> Contender:
    return call_of(name, model, setting.role)


def run_layout(plan: Plan, layout: Layout, run: Run, peak: GemmPeak) -> None:
    """All workloads of one layout, and the latency of one query."""
    with tempfile.TemporaryDirectory() as folder:
        encoder = encoder_of(plan, layout, Path(folder))
    run.notes.append(f"{layout.name}: {encoder.packing}")
    models = dict(contenders_of(plan, encoder, layout))
    for comparison in comparisons_of(plan, layout, models):
        label = f"{comparison.name} | {plan.shape.name} {layout.name} {_DTYPE}"
        attempt(label, run, partial(run_comparison, plan, comparison, peak))
    for name, model in models.items():
        middle, last = latency(plan, call_of(name, model, "query"))
        run.notes.append(
            f"one query, {layout.name}, {name}: p50 {middle:.2f} ms, p99 {last:.2f} ms"
        )
    encoder.close()


def run_comparison(plan: Plan, comparison: Comparison, peak: GemmPeak) -> list[Row]:
    """Vectors, times and peak memory of each contender."""
    rows = compare(comparison, peak, plan.patience)
    texts = comparison.texts()
    for row, load in zip(rows, comparison.contenders, strict=True):
        row.peak_mib = gpu_growth(plan, partial(load(comparison.setting).encode, texts))
    return rows


def latency(plan: Plan, contender: Contender) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds, of one query at a time."""
    texts = workloads.queries(plan.single, seed=9)
    for text in texts[:5]:
        contender.encode([text])
    found = []
    for text in texts:
        start = time.perf_counter()
        contender.encode([text])
        found.append(1000 * (time.perf_counter() - start))
    middle, last = np.percentile(found, [50, 99])
    return float(middle), float(last)


def gpu_growth(plan: Plan, call: Callable[[], object]) -> float | None:
    """MiB of GPU memory that a call adds at its peak; None on a CPU."""
    import torch

    if plan.device == "cpu":
        return None
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(plan.device)
    before = torch.cuda.memory_allocated(plan.device)
    call()
    return float(torch.cuda.max_memory_allocated(plan.device) - before) / 2**20


def main() -> int:
    """Check, time, report; 1 if a comparison failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu for a dry run")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few texts")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    import torch

    if arguments.device != "cpu" and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU here: --device cpu --tiny tries the harness out")
    peers.be_silent()
    plan = plan_of(arguments.device, arguments.repeats, tiny=arguments.tiny)
    run = Run.start(arguments.repeats, "gpu-tiny" if arguments.tiny else "gpu")
    if arguments.device != "cpu":
        run.machine["processor"] = torch.cuda.get_device_name(arguments.device)
    run.notes += check_golden(plan.device) + check_kernels(plan.device)
    print(*run.notes, sep="\n", flush=True)
    peak = GemmPeak(plan.shape, _DTYPE, plan.device)
    for name in ("e5-mistral", "gritlm"):
        run_layout(plan, LAYOUTS[name], run, peak)
        gc.collect()
        if plan.device != "cpu":
            torch.cuda.empty_cache()
    peak.update()
    run.peaks[f"{plan.shape.name} {_DTYPE}"] = peak.value
    return report.publish(run)


if __name__ == "__main__":
    sys.exit(main())
