"""One LoRA update of a training stage: ours, a plain loop's and sentence-transformers'.

All on the same model, with random weights, and the same data; the rates are 0, so that each update
has the same loss.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .models import LAYOUTS, WORK, Shape, config_of, write_tokenizer
from .workloads import documents, queries

SHAPE = Shape("training", 256, 8, 4, 4, 768)
BLOCK, LONGEST = 256, 256
BATCHES = {"mntp": 8, "contrastive": 16}
TEMPERATURE = 0.05
_LORA: dict[str, Any] = {"rank": 16, "alpha": 32.0, "dropout": 0.0}
_BUDGET = 8192  # the default of the stages

Update = Callable[[], tuple[float, int]]


def ours(stage: str, dtype: str, *, batch: int | None = None, budget: int = _BUDGET) -> Update:
    """One update of a stage as the loop makes it: loss and tokens."""
    import torch
    from accelerate import Accelerator

    from llm_embeddings.training import contrastive, mntp
    from llm_embeddings.training.options import LoraOptions

    common: dict[str, Any] = {
        "model": str(checkpoint()),
        "output": WORK / "training" / "unused",
        "lora": LoraOptions(**_LORA),
        "dtype": dtype,
        "batch_size": batch or BATCHES[stage],
        "batch_tokens": budget,
    }
    made: Any
    if stage == "mntp":
        made = mntp._Stage(mntp.MNTP(data=(str(_texts()),), block_length=BLOCK, **common))
    else:
        options = contrastive.Contrastive(
            data=(str(_pairs(common["batch_size"])),),
            recipe=_recipe(),
            temperature=TEMPERATURE,
            passage_length=LONGEST,
            **common,
        )
        made = contrastive._Stage(options)
    accelerator = Accelerator(mixed_precision="bf16" if dtype == "bfloat16" else "no")
    optimizer = torch.optim.AdamW(_trained(made.model), lr=0.0, fused=True)
    model, optimizer = accelerator.prepare(made.model.train(), optimizer)
    first = next(made.batches(0))

    def update() -> tuple[float, int]:
        progress = made.update(accelerator, model, first)
        accelerator.clip_grad_norm_(_trained(model), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return progress.losses["loss"], progress.tokens

    update.batch = first  # type: ignore[attr-defined]
    return update


def plain_loop(stage: str, dtype: str) -> Update:
    """A loop over transformers and peft: padded batches, logits at every position."""
    import torch
    from peft import LoraConfig, get_peft_model
    from torch.nn.functional import cross_entropy, normalize
    from transformers import AutoModel, AutoModelForCausalLM

    kind: Any = AutoModelForCausalLM if stage == "mntp" else AutoModel
    model = get_peft_model(
        kind.from_pretrained(checkpoint(), dtype=getattr(torch, dtype)), LoraConfig(**_peft())
    ).train()
    optimizer = torch.optim.AdamW(_trained(model), lr=0.0)
    rows, labels = _rows(stage)

    def language_loss() -> torch.Tensor:
        ids, target = torch.tensor(rows[0]), torch.tensor(labels)
        loss: torch.Tensor = model(input_ids=ids, labels=target, use_cache=False).loss
        return loss

    def contrastive_loss() -> torch.Tensor:
        vectors = []
        for part in rows:
            padded = _pad(part)
            hidden = model(**padded, use_cache=False).last_hidden_state.float()
            mask = padded["attention_mask"][..., None]
            vectors.append(normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
        scores = vectors[0] @ torch.cat(vectors[1:]).T / TEMPERATURE
        return cross_entropy(scores, torch.arange(len(scores)))

    def update() -> tuple[float, int]:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = language_loss() if stage == "mntp" else contrastive_loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(_trained(model), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach()), sum(len(row) for part in rows for row in part)

    return update


def sentence_transformers(stage: str, dtype: str) -> Update:
    """Its trainer's own step, with MultipleNegativesRankingLoss."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(checkpoint()), model_kwargs={"dtype": getattr(torch, dtype)})
    pooling = Pooling(SHAPE.hidden, pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling], device="cpu")
    model.add_adapter(LoraConfig(**_peft()))
    names = ("anchor", "positive", "negative")
    trainer = SentenceTransformerTrainer(
        model,
        SentenceTransformerTrainingArguments(
            str(WORK / "training" / "sentence-transformers"),
            per_device_train_batch_size=BATCHES[stage],
            learning_rate=0.0,
            use_cpu=True,
            bf16=dtype == "bfloat16",
            report_to="none",
        ),
        train_dataset=Dataset.from_dict({name: ["text"] for name in names}),
        loss=MultipleNegativesRankingLoss(model, scale=1 / TEMPERATURE),
    )
    rows, _ = _rows(stage)
    inputs = {
        f"{name}_{key}": value
        for name, part in zip(names, rows, strict=True)
        for key, value in _pad(part).items()
    }
    trainer.current_gradient_accumulation_steps = 1  # else set by train()
    optimizer = trainer.create_optimizer()

    def update() -> tuple[float, int]:
        loss = trainer.training_step(model, dict(inputs))
        torch.nn.utils.clip_grad_norm_(_trained(model), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss), sum(len(row) for part in rows for row in part)

    return update


def checkpoint() -> Path:
    """A language model that attends both ways, with random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    directory = WORK / "training" / "model"
    if (directory / "tokenizer.json").is_file():
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    config = config_of(SHAPE, LAYOUTS["e5-mistral"])
    config.is_causal, config.sliding_window = False, None
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    write_tokenizer(LAYOUTS["e5-mistral"], directory)
    return directory


def _recipe() -> Any:
    from llm_embeddings import Recipe

    return Recipe(name="training", causal=False, pooling="mean", max_length=LONGEST)


def _rows(stage: str) -> tuple[list[list[list[int]]], list[list[int]]]:
    """The ids that our first batch has, tower by tower, and labels."""
    from llm_embeddings.checkpoint.loading import load_tokenizer
    from llm_embeddings.tokens import tokenize

    if stage == "mntp":
        batch = ours(stage, "float32").batch  # type: ignore[attr-defined]
        return [batch.rows], batch.labels
    batch = ours(stage, "float32").batch  # type: ignore[attr-defined]
    tokenizer = load_tokenizer(checkpoint())
    towers = [[pair.query for pair in batch]]
    towers += [[pair.passages[place] for pair in batch] for place in range(2)]
    found = [tokenize(tokenizer, _recipe(), texts, "document") for texts in towers]
    return [[row.ids for row in rows] for rows in found], []


def _pad(rows: list[list[int]]) -> dict[str, Any]:
    import torch

    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [2] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        ),
    }


def _peft() -> dict[str, Any]:
    return {
        "r": _LORA["rank"],
        "lora_alpha": _LORA["alpha"],
        "lora_dropout": _LORA["dropout"],
        "target_modules": "all-linear",
    }


def _trained(model: Any) -> list[Any]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _texts() -> Path:
    path = WORK / "training" / "texts.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        path.write_text("\n".join(" ".join(t.split()) for t in documents(64)), encoding="utf-8")
    return path


def _pairs(count: int) -> Path:
    path = WORK / "training" / f"pairs-{count}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        passages = documents(2 * count)
        rows = [
            {"query": query, "pos": [passages[2 * n]], "neg": [passages[2 * n + 1]]}
            for n, query in enumerate(queries(count))
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
