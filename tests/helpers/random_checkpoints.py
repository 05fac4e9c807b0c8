"""Random tiny checkpoints as users make them, seeded: backbones, tokenizers, heads, prompts, forms.

A plan is drawn from a seed at no cost; `write` makes its files. `python -m scripts.differential 0
1000` compares all of them with the stock libraries; the tests compare a few.
"""

from __future__ import annotations

import dataclasses
import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .random_adapters import AdapterPlan, merge, plan_adapter, save_on_base
from .random_architectures import ARCHITECTURES, make_backbone
from .random_modules import ModulesPlan, plan_modules, save_modules
from .random_tokenizers import WORDS, TokenizerPlan, plan_tokenizer, write_tokenizer

TEXTS = [
    "the cat sat on a mat",
    "rain",
    "hills and nobody spoke of it while rain fell over quiet hills and the cat sat on a mat",
    "What Is CAPITAL",
    "query: x y z",
]
ODD_TEXTS = [
    "",
    "  \n\t ",
    "  two  spaces\nand a line ",
    "日本語 and 🙂👍🏽 e\u0301 É ß",
    "it ends </s> here [SEP] or <s> there <new> <mask>",
    " ".join(["long", *[WORDS] * 40]),
]


@dataclass(frozen=True)
class Plan:
    """A checkpoint before it is made.

    Attributes:
        seed: Of its weights.
        architecture: A key of `ARCHITECTURES`.
        values: Changes to its config.
        tokenizer: Its tokenizer.
        modules: What sentence-transformers puts around its backbone, None for bare folders of
            transformers or peft.
        adapter: A LoRA.
        dtype: Of its weights.
        shards: Whether these lie in several files.
        head: Whether a language model's head was saved with them.
        pooling: How a bare folder is used.
    """

    seed: int
    architecture: str
    values: dict[str, Any]
    tokenizer: TokenizerPlan
    modules: ModulesPlan | None
    adapter: AdapterPlan | None
    dtype: str
    shards: bool
    head: bool
    pooling: str

    def __str__(self) -> str:
        extras = [self.dtype] if self.dtype != "float32" else []
        extras += [name for name in ("shards", "head") if getattr(self, name)]
        extras += [str(part) for part in (self.adapter,) if part]
        layout = str(self.modules) if self.modules else f"bare {self.pooling}"
        parts = [self.architecture, str(self.values), str(self.tokenizer), layout, *extras]
        return f"seed {self.seed}: {'; '.join(parts)}"


def plan(seed: int, architecture: str | None = None, **fixed: Any) -> Plan:
    """Draw a checkpoint; a named architecture and given fields instead of drawn ones."""
    draw = random.Random(seed)
    drawn = draw.choice(sorted(ARCHITECTURES))
    kind = architecture or drawn
    made = ARCHITECTURES[kind]
    decoder = bool(made.head) and not made.head.endswith("MaskedLM")
    values: dict[str, Any] = {}
    if made.turned and draw.random() < 0.4:
        values["is_causal"] = draw.random() < 0.4
    if made.head and draw.random() < 0.3:
        values["tie_word_embeddings"] = draw.random() < 0.5
    tokenizer = plan_tokenizer(draw, decoder=decoder)
    modules = plan_modules(draw, decoder=decoder) if draw.random() < 0.92 else None
    adapter = plan_adapter(draw)
    found = {
        "values": values,
        "tokenizer": tokenizer,
        "modules": modules,
        "adapter": adapter,
        "dtype": draw.choices(["float32", "bfloat16", "float16"], (6, 2, 1))[0],
        "shards": draw.random() < 0.1,
        "head": draw.random() < 0.25,
        "pooling": draw.choice(["mean", "last-token", "recipe"] if decoder else ["recipe"]),
    }
    return Plan(seed=seed, architecture=kind, **{**found, **fixed})


def write(plan: Plan, directory: Path) -> Path:
    """Make the files of a plan; the checkpoint is the returned directory."""
    architecture = ARCHITECTURES[plan.architecture]
    base = directory / "backbone"
    tokenizer, rows = write_tokenizer(plan.tokenizer, base, roberta=architecture.pads)
    backbone = make_backbone(
        architecture, tokenizer, plan.seed, rows=rows, with_head=plan.head, **plan.values
    )
    backbone.to(getattr(torch, plan.dtype)).save_pretrained(
        base, max_shard_size="20KB" if plan.shards else "1GB"
    )
    adapter = plan.adapter
    if adapter is not None and adapter.form == "merged":
        merge(adapter, architecture, base, plan.seed)
        adapter = None
    if plan.modules is None and adapter is None:
        return base
    with warnings.catch_warnings():
        # peft says that it saves embeddings, which is wanted.
        warnings.filterwarnings("ignore", "Setting `save_embedding_layers`")
        if plan.modules is not None:
            return save_modules(plan.modules, base, directory, plan.seed, adapter, architecture)
        assert adapter is not None
        save_on_base(adapter, architecture, base, directory / "adapter", plan.seed)
    return directory / "adapter"


def plain(architecture: str, **changes: Any) -> Plan:
    """One without surprises: WordPiece, both ends marked, the mean of all tokens, no prompts."""
    tokenizer = TokenizerPlan("wordpiece", "both", False, "right", None, "no", "", {})
    modules = ModulesPlan("saved", ("mean",), True, ("normalize",))
    made = Plan(7, architecture, {}, tokenizer, modules, None, "float32", False, False, "mean")
    return dataclasses.replace(made, **changes)
