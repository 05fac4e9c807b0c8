"""Stock classes for models that come with code of their own, or with more than text; no code runs.

Each entry says which remote class computes what a class of transformers computes. Anything a config
says beyond that class is refused by name.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import read_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True)
class Stock:
    """A class of transformers that computes what a remote one does, with attention both ways.

    Attributes:
        model_type: Its name in transformers.
        code: The remote class, as `auto_map` names it behind the file.
        values: What config.json may say beyond the stock config, by key: it changes no state.
    """

    model_type: str
    code: str
    values: Mapping[str, tuple[Any, ...] | None] = dataclasses.field(default_factory=dict)


# By `model_type`. Sources: NVIDIA-NeMo/Automodel 36044ad and vllm `models/config.py` 0413790
# (LlamaBidirectionalModel: a Llama, `is_causal` False on all layers; `pooling` and `temperature`
# are for heads); thehumanworks/pplx-mlx 332b845 and text-embeddings-inference 0d124dc
# (PPLXQwen3Model: a Qwen3 whose layers all look both ways).
REMOTE: dict[str, Stock] = {
    "llama_bidirec": Stock(
        "llama", "LlamaBidirectionalModel", {"pooling": ("avg",), "temperature": None}
    ),
    "bidirectional_pplx_qwen3": Stock(
        "qwen3", "PPLXQwen3Model", {"use_bidirectional_attention": (True,)}
    ),
}
# The code of gte-Qwen2 and of what was tuned from it attends as `is_causal` says, like the stock
# class; where the key is absent it attends both ways, unlike the stock class.
_GTE = ("qwen2", "modeling_qwen.Qwen2Model")
_TEXT_PARTS = {"embedding_gemma2": "language_model"}
_TOWERS = ("vision_config", "audio_config")
# Names of earlier versions of transformers, and of no matter.
_OTHER_NAMES = {
    "_name_or_path",
    "architectures",
    "auto_map",
    "model_type",
    "rope_scaling",
    "rope_theta",
    "torch_dtype",
    "transformers_version",
}


def is_stock(config: Mapping[str, Any]) -> bool:
    """Whether a class of transformers computes what the code that a config.json names does."""
    kind, code = config.get("model_type"), str((config.get("auto_map") or {}).get("AutoModel"))
    if kind in REMOTE:
        return code.rsplit(".", 1)[-1] == REMOTE[str(kind)].code
    return (kind, code.rsplit("--", 1)[-1]) == _GTE and isinstance(config.get("is_causal"), bool)


def read_config(directory: Path, *, trust_remote_code: bool) -> PretrainedConfig:
    """The config of a checkpoint, for a remote type of `REMOTE` that of its stock class.

    Raises:
        ValueError: transformers does not have its model type, its values are none of that type, or
            they say what the stock class of a remote type does not know.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    values = read_json(directory / "config.json")
    found = REMOTE.get(str(values.get("model_type")))
    config: PretrainedConfig
    if found is None or trust_remote_code:
        try:
            config = AutoConfig.from_pretrained(
                directory, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:  # of any kind: transformers acts on what the file says
            raise ValueError(f"{directory / 'config.json'} cannot be used: {error}") from error
        return config
    kind: Any = CONFIG_MAPPING[found.model_type]
    known = {*kind().to_dict(), *_OTHER_NAMES}
    for key, value in values.items():
        allowed = found.values.get(key, ()) if key not in known else None
        if allowed is not None and value not in allowed:
            raise ValueError(
                f"{directory / 'config.json'}: {key} = {json.dumps(value):.80} is not known for "
                f"{values['model_type']}, which runs as {found.model_type} here: pass "
                "trust_remote_code=True to run the checkpoint's own code"
            )
    own = {k: v for k, v in values.items() if k not in ("auto_map", "model_type", *found.values)}
    config = kind.from_dict(own | {"architectures": None})
    config.is_causal = False
    return config


def text_part(config: PretrainedConfig) -> str | None:
    """Name of the part of a model that reads text, if a config has others, which it loses here."""
    part = _TEXT_PARTS.get(config.model_type)
    if part is not None:
        for tower in _TOWERS:
            setattr(config, tower, None)
    return part
