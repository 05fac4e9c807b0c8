"""Published hyper-parameters of contrastive stages, as values of the options' fields.

What a source does not say is left to the defaults; model, data and output are the user's. The
sources of all but Qwen3-Embedding take answers of other queries as negatives even where they answer
this one, too.
`batch_size` is that of all processes together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import LoraOptions

# llm2vec 0.2.3, train_configs/supervised/*.json and run_supervised.py: 64 on each of 8 GPUs, scale
# 50, stopped after 1000 of the updates that 3 epochs of 1.5 million examples have. The recipe comes
# with the MNTP model it starts from.
_LLM2VEC = {
    "batch_size": 512,
    "learning_rate": 2e-4,
    "warmup": 300,
    "max_steps": 1000,
    "schedule_steps": 8790,
    "temperature": 0.02,
    "negatives": 1,
    "query_length": 512,
    "passage_length": 512,
    "skip_duplicates": False,
    "lora": LoraOptions(rank=16, alpha=32.0, dropout=0.05),
    "gradient_checkpointing": True,
}

# arXiv 2401.00368, section 4.1 and appendix; alpha and dropout from the hub's lora/ folder.
_E5_MISTRAL = {
    "recipe": "intfloat/e5-mistral-7b-instruct",
    "batch_size": 2048,
    "learning_rate": 1e-4,
    "warmup": 100,
    "weight_decay": 0.1,
    "max_steps": None,
    "epochs": 1,
    "temperature": 0.02,
    "negatives": 1,
    "query_length": 512,
    "passage_length": 512,
    "skip_duplicates": False,
    "lora": LoraOptions(rank=16, alpha=32.0, dropout=0.1),
    "gradient_checkpointing": True,
}

# tevatron's RepLLaMA example and the hub's adapter_config.json (no k_proj): 8 queries per device, 4
# times accumulated. How many devices is not said; in-batch negatives there are those of 8 queries.
_REPLLAMA = {
    "recipe": "castorini/repllama-v1-7b-lora-passage",
    "batch_size": 32,
    "learning_rate": 1e-4,
    "warmup": 100,
    "max_steps": None,
    "epochs": 1,
    "temperature": 0.01,
    "negatives": 15,
    "query_length": 32,
    "passage_length": 196,
    "skip_duplicates": False,
    "lora": LoraOptions(
        rank=32,
        alpha=64.0,
        dropout=0.1,
        targets=("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    ),
    "gradient_checkpointing": True,
}

# FlagEmbedding research/LLARA at 7ed43d6, README: 1 query on each of 8 GPUs, 64 and 160 tokens with
# the prompts, so 44 and 139 of the text, which is what LLaRA's recipe limits.
_LLARA = {
    "batch_size": 8,
    "learning_rate": 3e-4,
    "warmup": 0.1,
    "max_steps": None,
    "epochs": 1,
    "temperature": 0.01,
    "negatives": 15,
    "query_length": 44,
    "passage_length": 139,
    "skip_duplicates": False,
    "lora": LoraOptions(rank=64, alpha=16.0, dropout=0.1),
    "gradient_checkpointing": True,
}

# arXiv 2506.05176, section 3: the loss. Batch, learning rate and temperature are not published.
_QWEN3 = {
    "recipe": "Qwen/Qwen3-Embedding-0.6B",
    "same_tower": True,
    "margin": 0.1,
    "skip_duplicates": True,
    "negatives": 1,
    "lora": LoraOptions(),
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "llm2vec": _LLM2VEC,
    "e5-mistral": _E5_MISTRAL,
    "repllama": _REPLLAMA,
    "llara": _LLARA,
    "qwen3": _QWEN3,
}
