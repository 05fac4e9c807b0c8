"""A trained model -> a folder that `Encoder.from_pretrained` loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...arithmetic.dtype import resolve_dtype
from ...checkpoint import sidecar
from ...checkpoint.files import Source, find, read_json, resolve
from ...checkpoint.head_files import save_head
from ...generation.chat import gritlm_template
from ...model import Model
from ..batches.conversations import Chat
from ..options import StageOptions
from .lora import merged_state, save_adapter

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def save_result(
    options: StageOptions,
    trained: Model,
    directory: Path,
    *,
    head: torch.nn.Linear | None = None,
    generates: bool = False,
    chat: Chat | None = None,
) -> None:
    """Write what was trained: an adapter, or whole weights with it merged; the recipe last.

    Whole weights have the dtype that those of `options.model` have on disk.

    Args:
        options: `model` and `save` are used.
        trained: What `load_backbone_for_training` gave, after training.
        directory: The folder to write, made if it is not there.
        head: A language-model head to save with the weights.
        generates: Whether the result is also to generate: transformers' `AutoModelForCausalLM`
            then loads it as it loads `options.model`.
        chat: How it was trained to converse; None = it was not.
    """
    directory.mkdir(parents=True, exist_ok=True)
    backbone, tokenizer, recipe = trained.backbone, trained.tokenizer, trained.recipe
    if options.save == "adapter":
        save_adapter(backbone, directory)
    else:
        root = resolve(find(options.model, Source()), (), Source()).root
        _save_weights(backbone, head, directory, _stored_dtype(backbone.config, root))
        if generates:
            _look_back(directory / "config.json", read_json(root / "config.json"))
            _set_generation(directory, root, () if chat is None else chat.ends)
    if chat is not None and chat.format == "gritlm":
        tokenizer.chat_template = gritlm_template(tokenizer, recipe)
    tokenizer.save_pretrained(directory)
    save_head(trained.head, directory)
    named_so = recipe.replace(name=options.output.resolve().name, base=None)
    sidecar.write(directory, sidecar.Sidecar(named_so, None if chat is None else chat.format))


def _save_weights(
    backbone: PreTrainedModel,
    head: torch.nn.Linear | None,
    directory: Path,
    dtype: torch.dtype,
) -> None:
    """Write the backbone, or the causal language model of backbone and head.

    The modules are made without memory: only names and config come from them.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    state = merged_state(backbone, dtype)
    config = type(backbone.config).from_dict(backbone.config.to_dict())
    config.dtype = dtype
    kind: Any = AutoModel if head is None else AutoModelForCausalLM
    with torch.device("meta"):
        shell: Any = kind.from_config(config, dtype=dtype)
    if head is not None:
        state = {f"{shell.base_model_prefix}.{name}": weight for name, weight in state.items()}
        state["lm_head.weight"] = head.weight.detach().to(dtype)
        shell.tie_weights()
        if config.tie_word_embeddings:
            del state["lm_head.weight"]
    shell.save_pretrained(directory, state_dict=state)


def _look_back(path: Path, before: Mapping[str, Any]) -> None:
    """Give a saved config the direction, window and cache of the language model before training.

    An embedder's direction and window lie in its config, where a language model would find them
    and look both ways; `Encoder` sets them anew from the recipe whenever it loads.
    """
    own = ("is_causal", "sliding_window", "use_cache")
    config = {name: value for name, value in read_json(path).items() if name not in own}
    config |= {name: before[name] for name in own[1:] if name in before}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _set_generation(directory: Path, root: Path, ends: Sequence[int]) -> None:
    """Give a result the generation settings of the language model before training.

    What transformers derives from an encoder's config has no cache, which generates many times
    slower, and may not know all ids at which an answer ends.
    """
    name = "generation_config.json"
    values = {**(read_json(root / name) or read_json(directory / name))}
    if not read_json(root / name):
        values.pop("use_cache", None)
    known = values.get("eos_token_id")
    known = [known] if isinstance(known, int) else list(known or [])
    if wanted := [*known, *(end for end in ends if end not in known)]:
        values["eos_token_id"] = wanted[0] if len(wanted) == 1 else wanted
    (directory / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _stored_dtype(config: PretrainedConfig, root: Path) -> torch.dtype:
    """The dtype of the weights in a checkpoint's folder, by its config or else its files."""
    stored = read_json(root / "config.json")
    name = stored.get("dtype") or stored.get("torch_dtype")
    if name:
        return getattr(torch, name)  # type: ignore[no-any-return]
    return resolve_dtype("auto", config, root, torch.device("meta"))
