"""LLM2Vec, LLaRA, GRIT and E5 on one small language model: what each step changes.

    python scripts/experiment.py
    python scripts/experiment.py --size smollm2 --seeds 1

trains and measures every run of `experiment_runs.py` with three seeds, one after the other, and
writes raw numbers and plots to docs/experiment and the tables of docs/experiment.md; with a model
of 135 million parameters to docs/experiment/smollm2 and docs/experiment-smollm2.md. A run that is
done is not repeated, and one that was stopped goes on: stop and start as you like.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from experiment_data import LANGUAGE, language_text, prepare
from experiment_report import report
from experiment_runs import ANSWER, SAME, Run, Setting, experiments
from experiment_sizes import SIZES, Size
from transformers.utils import logging

from llm_embeddings import Encoder
from llm_embeddings.arithmetic.dtype import bfloat16_pays
from llm_embeddings.checkpoint import sidecar
from llm_embeddings.evaluation import evaluate
from llm_embeddings.recipe import Role
from llm_embeddings.vectors import Vectors

ROOT = Path(__file__).resolve().parents[1]
WINDOW = 128  # tokens that the language model is measured on at a time, BOS included


def measure(run: Run, setting: Setting, data: Path) -> dict[str, float]:
    """Every score of a run's result, as "<set>/<metric>"."""
    model = setting.model(run.name if run.train else run.start)
    recipe = setting.recipe(run)
    encoder = Encoder.from_pretrained(
        str(model), recipe=recipe, dtype=setting.size.dtype, device="cpu"
    )

    def vectors(texts: list[str], role: Role, instruction: str) -> Vectors:
        found: Vectors = encoder.encode(texts, role, instruction=instruction)
        return found

    def similar(texts: list[str], role: Role) -> Vectors:
        return vectors(texts, role, SAME if run.instructed else "")

    def retrieved(texts: list[str], role: Role) -> Vectors:
        return vectors(texts, role, ANSWER if run.instructed and role == "query" else "")

    folders = [setting.work / "evaluation" / name for name in setting.size.sets]
    scores = evaluate(similar, [data / "sts/stsb_en_dev.jsonl"], resamples=0)
    scores |= evaluate(retrieved, folders, resamples=0)
    found = {name: score.value for name, score in scores.items()}
    if run.language:
        found |= {f"{name}/perplexity": perplexity(setting, model, data, name) for name in LANGUAGE}
    return found


def perplexity(setting: Setting, model: Path, data: Path, name: str) -> float:
    """Exponential of the mean loss per token, each predicted from its window before it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    causal: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    text = language_text(data, name)
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    before = [tokenizer.bos_token_id] if setting.size.bos else []
    width = WINDOW - len(before)
    rows = [[*before, *ids[at : at + width]] for at in range(0, len(ids), width)][:-1]
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in torch.tensor(rows).split(16):
            logits = causal(batch).logits[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, batch[:, 1:].flatten())
            total, count = total + float(loss) * len(logits), count + len(logits)
    return math.exp(total / count)


def execute(run: Run, setting: Setting, data: Path) -> dict[str, Any]:
    """Train, if the run does, or go on where it was stopped, and measure."""
    output, started = setting.model(run.name), time.process_time()
    resumed = (output / "checkpoints").exists()
    if run.train and not (output / sidecar.NAME).exists():
        run.train(setting, run)
    trained = time.process_time() - started
    scores = measure(run, setting, data)
    metrics = output / "metrics.jsonl"
    last = metrics.read_text(encoding="utf-8").splitlines()[-1] if run.train else "{}"
    return {
        "run": run.name,
        "seed": setting.seed,
        "scores": {name: round(value, 5) for name, value in scores.items()},
        "training_cpu_seconds": None if resumed else round(trained, 1),
        "measuring_cpu_seconds": round(time.process_time() - started - trained, 1),
        "last_metrics": json.loads(last),
    }


def waiting(size: Size, seeds: list[int], results: Path) -> Iterator[tuple[Run, int]]:
    """Runs without a result; what nothing is drawn for is measured with the first seed alone."""
    for seed in seeds:
        for run in (run for runs in experiments(size).values() for run in runs):
            once = run.train is None and seed != seeds[0]
            if not once and not (results / f"{run.name}-{seed}.json").exists():
                yield run, seed


def check_work(work: Path, given: dict[str, Any]) -> None:
    """Results of another model, of a trial, or of another kind of processor do not mix with these.

    Raises:
        SystemExit: the folder holds some.
    """
    work.mkdir(parents=True, exist_ok=True)
    path = work / "setting.json"
    setting = json.loads(json.dumps(given, default=str))
    if path.exists() and (other := json.loads(path.read_text(encoding="utf-8"))) != setting:
        raise SystemExit(f"{work} holds results of {other}, not {setting}: give another --work")
    path.write_text(json.dumps(setting), encoding="utf-8")


def write_result(path: Path, result: dict[str, Any]) -> None:
    """A result is whole or not there."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--size", choices=SIZES, default=next(iter(SIZES)))
    parser.add_argument("--model", type=Path, help="language model; default: that of the size")
    parser.add_argument("--work", type=Path, help="default: build/SIZE")
    parser.add_argument("--output", type=Path, help="raw numbers and plots; default: in docs")
    parser.add_argument("--document", type=Path, help="page with tables; default: in docs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, help="most updates of a stage, for a trial")
    parser.add_argument("--report", action="store_true", help="write what there is, run nothing")
    options = parser.parse_args()
    size = SIZES[options.size]
    work = options.work or ROOT / "build" / options.size
    results = work / "results"
    if not options.report:
        base = (options.model or options.data / size.model).resolve()
        setting = Setting(base=base, work=work, seed=0, size=size, steps=options.steps)
        torch.set_num_threads(size.threads)
        what = replace(size, model=Path(base.name), output=Path(), document=Path())
        half = size.dtype == "auto" and bfloat16_pays()
        check_work(work, {**asdict(what), "steps": options.steps, "bfloat16": half})
        prepare(options.data, work, size)
        results.mkdir(exist_ok=True)
        logging.disable_progress_bar()  # transformers shows one for every model
        run_all(setting, options.seeds, options.data, results)
    report(size, results, options.output or size.output, options.document or size.document)


def run_all(setting: Setting, seeds: list[int], data: Path, results: Path) -> None:
    """Make every run that has no result, and print its scores."""
    left = list(waiting(setting.size, seeds, results))
    for number, (run, seed) in enumerate(left, 1):
        result = execute(run, replace(setting, seed=seed), data)
        write_result(results / f"{run.name}-{seed}.json", result)
        shown = ", ".join(
            f"{name} {value:.3f}"
            for name, value in result["scores"].items()
            if not name.endswith(("recall@100", "mrr@10"))
        )
        print(f"{number} of {len(left)}: {run.name}, seed {seed}: {shown}", flush=True)


if __name__ == "__main__":
    main()
