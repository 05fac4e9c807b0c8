"""What sentence-transformers puts around a backbone, at random, and its folders of all versions."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .random_adapters import AdapterPlan, lora_config, shake
from .random_architectures import Architecture

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_OLD_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_PROMPTS: tuple[dict[str, str], ...] = (
    *([{}] * 4),
    {"query": "query: ", "document": "passage: "},
    {"query": "query: ", "document": ""},
    {"query": "query: ", "passage": "the "},
    {"query": "what is "},
    {"document": "what is"},
    {"clustering": "hills ", "STS": "the "},
    {"query": "Instruct: find it\nQuery: "},
    {"query": "Instruct: find it\nQuery:", "document": ""},
    {"query": "Instruct: find it\nQuery: ", "document": "", "clustering": "hills "},
    {"query": "task: search result | query: ", "document": "title: none | text: "},
)
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")
LAYOUTS = ("saved", "numbered", "old", "old numbered", "saved twice", "saved by transformers")


@dataclass(frozen=True)
class ModulesPlan:
    """Modules and settings of a model of sentence-transformers.

    Attributes:
        layout: One of `LAYOUTS`.
        modes: Of the pooling, concatenated in the stock order.
        include_prompt: Whether the pooling counts the prompt.
        head: What follows: "normalize", "dropout", "layernorm" or Dense as "ACTIVATION SIZE
            bias|- residual|-".
        max_seq_length: None is the tokenizer's limit.
        lower: `do_lower_case`.
        truncate_dim: Kept dimensions, None all.
        prompts: By name.
        default: `default_prompt_name`.
        similarity: `similarity_fn_name`.
    """

    layout: str
    modes: tuple[str, ...]
    include_prompt: bool
    head: tuple[str, ...] = ()
    max_seq_length: int | None = None
    lower: bool = False
    truncate_dim: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    default: str | None = None
    similarity: str | None = None

    def __str__(self) -> str:
        extras = [f"at most {self.max_seq_length}"] if self.max_seq_length else []
        extras += ["do_lower_case"] if self.lower else []
        extras += [f"truncate_dim {self.truncate_dim}"] if self.truncate_dim else []
        extras += [f"prompts {self.prompts} default {self.default}"] if self.prompts else []
        extras += ["without prompt"] if not self.include_prompt else []
        return "; ".join([self.layout, "+".join(self.modes), " > ".join(self.head), *extras])


def plan_modules(draw: random.Random, *, decoder: bool) -> ModulesPlan:
    """Draw the modules; decoders mostly pool the last token."""
    prompts = draw.choice(_PROMPTS)
    weights = (1, 0.5, 3, 0.5, 1, 5) if decoder else (4, 1, 5, 1, 1, 1)
    first = draw.choices(MODES, weights)[0]
    more = draw.sample(MODES, draw.choice([2, 3])) if draw.random() < 0.08 else [first]
    length = None
    if draw.random() < 0.5:
        length = 60 if prompts else draw.choice([12, 40, 40, 200])
    return ModulesPlan(
        layout=draw.choice(LAYOUTS),
        modes=tuple(mode for mode in MODES if mode in more),
        include_prompt=draw.random() < 0.8,
        head=_plan_head(draw),
        max_seq_length=length,
        lower=draw.random() < 0.1,
        truncate_dim=draw.choice([8, 20]) if draw.random() < 0.1 else None,
        prompts=prompts,
        default=draw.choice([None, None, *prompts]),
        similarity=draw.choice([None, "cosine", "dot"]),
    )


def _plan_head(draw: random.Random) -> tuple[str, ...]:
    """Mostly what is common: nothing, Normalize, Dense and Normalize."""
    kind = draw.random()
    if kind < 0.6:
        return draw.choice([(), ("normalize",), ("normalize",)])
    parts = []
    for _ in range(draw.choice([1, 1, 2, 3])):
        if draw.random() < 0.75:
            bias, residual = draw.choice(["bias", "-"]), draw.choice(["residual", "-", "-", "-"])
            parts.append(
                f"{draw.choice(ACTIVATIONS)} {draw.choice([16, 24, 48])} {bias} {residual}"
            )
        else:
            parts.append(draw.choice(["layernorm", "dropout", "normalize"]))
    return (*parts, "normalize") if draw.random() < 0.6 else tuple(parts)


def save_modules(
    plan: ModulesPlan,
    base: Path,
    directory: Path,
    seed: int,
    adapter: AdapterPlan | None,
    architecture: Architecture,
) -> Path:
    """Write the folder of a model around the backbone in `base`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(base))
    if plan.max_seq_length is not None:
        transformer.max_seq_length = plan.max_seq_length
    if adapter is not None:
        transformer.model.add_adapter(lora_config(adapter, architecture, transformer.model))
        shake(transformer.model, seed)
    size = transformer.get_embedding_dimension()
    mode: Any = plan.modes[0] if len(plan.modes) == 1 else plan.modes
    pooling = Pooling(size, pooling_mode=mode, include_prompt=plan.include_prompt)
    torch.manual_seed(seed)
    model = SentenceTransformer(
        modules=[transformer, pooling, *_head(plan, size * len(plan.modes))],
        prompts=dict(plan.prompts) or None,
        default_prompt_name=plan.default,
        similarity_fn_name=plan.similarity,
        truncate_dim=plan.truncate_dim,
        device="cpu",
    )
    saved = directory / "saved"
    model.save(str(saved), create_model_card=False)
    _settle(plan, saved, base)
    if plan.layout == "saved twice":
        again = directory / "again"
        SentenceTransformer(str(saved), device="cpu").save(str(again), create_model_card=False)
        return again
    return saved


def _head(plan: ModulesPlan, size: int) -> list[nn.Module]:
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Dropout,
        LayerNorm,
        Normalize,
    )

    found: list[nn.Module] = []
    for part in plan.head:
        if part == "normalize":
            found.append(Normalize())
        elif part == "dropout":
            found.append(Dropout(0.3))
        elif part == "layernorm":
            layer = LayerNorm(size)
            nn.init.normal_(layer.norm.weight, 1, 0.3)
            nn.init.normal_(layer.norm.bias, 0, 0.3)
            found.append(layer)
        else:
            activation, out, bias, residual = part.split()
            found.append(
                Dense(
                    size,
                    int(out),
                    bias=bias == "bias",
                    activation_function=getattr(nn, activation)(),
                    use_residual=residual == "residual",
                )
            )
            size = int(out)
    return found


def _settle(plan: ModulesPlan, saved: Path, base: Path) -> None:
    """Turn what sentence-transformers saved into the layout and settings of the plan."""
    _change(saved / "config_sentence_transformers.json", truncate_dim=plan.truncate_dim)
    if plan.lower:
        _change(saved / "sentence_bert_config.json", do_lower_case=True)
    if plan.layout == "saved by transformers":
        _save_by_transformers(saved)
    if plan.layout.startswith("old"):
        _make_old(plan, saved, base)
    if plan.layout.endswith("numbered"):
        _number(saved)


def _change(path: Path, **values: Any) -> None:
    """Change values of a JSON file; None removes one."""
    read = json.loads(path.read_text()) if path.is_file() else {}
    changed = {key: value for key, value in {**read, **values}.items() if value is not None}
    path.write_text(json.dumps(changed, indent=2))


def _save_by_transformers(saved: Path) -> None:
    """Load weights and tokenizer with transformers, and save them where they were."""
    from transformers import AutoModel, AutoTokenizer

    if (saved / "adapter_config.json").is_file():
        return
    model, tokenizer = AutoModel.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    for path in saved.glob("model*"):
        path.unlink()
    model.save_pretrained(saved)
    tokenizer.save_pretrained(saved)


def _make_old(plan: ModulesPlan, saved: Path, base: Path) -> None:
    """Key names and types of versions 2 to 5, and the tokenizer's files as they were before."""
    for path in base.glob("*token*"):
        shutil.copy(path, saved / path.name)
    chat = base / "chat_template.jinja"
    if chat.is_file():
        shutil.copy(chat, saved / chat.name)
    (saved / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": plan.max_seq_length, "do_lower_case": plan.lower})
    )
    modules = json.loads((saved / "modules.json").read_text())
    for module in modules:
        module["type"] = f"sentence_transformers.models.{module['type'].rpartition('.')[2]}"
    (saved / "modules.json").write_text(json.dumps(modules, indent=2))
    pooling = next(saved.glob("*_Pooling")) / "config.json"
    size = json.loads(pooling.read_text())["embedding_dimension"]
    flags = {flag: mode in plan.modes for mode, flag in _OLD_FLAGS.items()}
    values = {"word_embedding_dimension": size, **flags, "include_prompt": plan.include_prompt}
    pooling.write_text(json.dumps(values, indent=2))
    if plan.include_prompt:
        _change(pooling, include_prompt=None)
    for path in saved.glob("*_Normalize"):
        shutil.rmtree(path)
        path.mkdir()
    _change(saved / "config_sentence_transformers.json", model_type=None)


def _number(saved: Path) -> None:
    """Put the backbone into a folder of its own, as the first versions do."""
    kept = {"modules.json", "config_sentence_transformers.json", "0_Transformer"}
    folder = saved / "0_Transformer"
    folder.mkdir()
    for path in [path for path in saved.iterdir() if path.is_file() and path.name not in kept]:
        path.rename(folder / path.name)
    modules = json.loads((saved / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (saved / "modules.json").write_text(json.dumps(modules, indent=2))
