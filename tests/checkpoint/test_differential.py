"""Checkpoints that nobody listed, at random: equal to what the stock libraries make of them, or
refused before the first vector. `python -m scripts.differential` compares as many as you like.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.differential import compare
from helpers.random_adapters import AdapterPlan
from helpers.random_architectures import ARCHITECTURES
from helpers.random_checkpoints import ODD_TEXTS, TEXTS, Plan, plain, plan, write
from helpers.random_modules import LAYOUTS, MODES, ModulesPlan

FEW = [*TEXTS[1:4], ODD_TEXTS[0], ODD_TEXTS[-2]]
_HEADS = ((), ("normalize",), ("Tanh 16 bias -", "layernorm", "GELU 24 - residual", "normalize"))
_PROMPTS = {"query": "query: ", "document": "passage: ", "clustering": "hills "}


def drawn(number: int, architecture: str) -> Plan:
    """Every layout, pooling and head in turn, and a random tokenizer that can be served."""
    made = plan(number, architecture, adapter=None)
    modules = ModulesPlan(
        layout=LAYOUTS[number % len(LAYOUTS)],
        modes=(MODES[number % len(MODES)],),
        include_prompt=True,
        head=_HEADS[number % len(_HEADS)],
        max_seq_length=(60, None)[number % 2],
        lower=number % 5 == 0,
        truncate_dim=(None, None, 8)[number % 3],
        prompts=_PROMPTS if number % 2 else {},
        default="clustering" if number % 4 == 1 else None,
    )
    ends = "both" if made.tokenizer.ends == "two" else made.tokenizer.ends
    tokenizer = replace(made.tokenizer, ends=ends, flags={}, added="no", chat=False)
    return replace(made, modules=modules, tokenizer=replace(tokenizer, cuts_left=False))


def assert_equal(made: Plan, work: Path, *, saved: bool = False) -> None:
    path = write(made, work)
    outcome = compare(made, path, FEW, save_to=work / "loaded-again" if saved else None)
    assert outcome.verdict == "equal", f"{made}: {outcome}"


@pytest.mark.parametrize(
    ("number", "architecture"), [(5, "qwen3"), (7, "bert"), (9, "gemma3 both ways")]
)
def test_a_few(number: int, architecture: str, tmp_path: Path) -> None:
    assert_equal(drawn(number, architecture), tmp_path, saved=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "architecture"), list(enumerate(ARCHITECTURES)), ids=list(ARCHITECTURES)
)
def test_every_architecture(number: int, architecture: str, tmp_path: Path) -> None:
    assert_equal(drawn(number, architecture), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "form"),
    [("embeddings", "inside"), ("patterns", "merged"), ("rank-stabilised", "inside")],
)
def test_adapters(kind: str, form: str, tmp_path: Path) -> None:
    assert_equal(plain("qwen2", adapter=AdapterPlan(form, kind)), tmp_path, saved=True)


@pytest.mark.slow
def test_none_is_wrong_silently(tmp_path: Path) -> None:
    verdicts: Counter[str] = Counter()
    for seed in range(2000, 2012):
        made = plan(seed)
        outcome = compare(made, write(made, tmp_path / str(seed)), FEW)
        assert outcome.verdict != "WRONG", f"{made}: {outcome}"
        verdicts[outcome.verdict] += 1
    assert verdicts["equal"] >= 9, verdicts
