"""A self-contained directory for other engines: merged weights, stock classes, no code of ours.

Adapters are part of the weights by now. The config says which way the model attends, the tokenizer
puts BOS and EOS itself, and the files of sentence-transformers say how it pools. What an engine
would compute differently is refused, or left to the client and said so: see `engines`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

from ..arithmetic.quantization import refuse_quantized
from ..checkpoint.files import read_json
from ..checkpoint.head_files import write_head_folders
from ..checkpoint.saving import save
from ..model import Model, state_length
from ..recipe import Recipe, Role
from ..tokens import special_id, tokenize
from ..vectors import Vectors
from .engines import (
    MODES,
    SERVERS,
    Difference,
    Engine,
    fidelity,
    spanned,
    takes_texts,
    unknown_to_modules,
)
from .note import NAME, note

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


Ranges = Mapping[tuple[int, bool], Vectors]
_NONE: Ranges = MappingProxyType({})
_TYPES = "sentence_transformers.models."


def export_sentence_transformers(model: Model, path: Path, ranges: Ranges = _NONE) -> None:
    """Write `SentenceTransformer(path)`'s files, readable by versions 2.7 and later.

    `encode_query` and `encode_document` there equal those here; plain `encode` embeds documents.
    `Encoder.from_pretrained(path)` reads the directory, too.

    Args:
        model: What to write.
        path: Directory; made if it does not exist.
        ranges: `Encoder.ranges`, written beside the recipe.

    Raises:
        ValueError: the recipe, or the backbone, needs what native modules cannot do.
    """
    found = unknown_to_modules(model)
    if found:
        raise ValueError(
            f"recipe {model.recipe.name!r} cannot be written as native sentence-transformers "
            f"modules, which do not know {'; '.join(found)}. save_pretrained() keeps all of it, "
            "and as_sentence_transformer() of sentence-transformers-llm-embeddings serves it there"
        )
    _write_model(model, path, ranges)
    _write_modules(path, model)


def export_for(
    model: Model, path: Path, engine: Engine, ranges: Ranges = _NONE
) -> list[Difference]:
    """Write a directory that `engine` serves, with ENGINE.md: how to start it and how to ask it.

    `Encoder.from_pretrained(path)` reads the directory, too.

    Args:
        model: What to write.
        path: Directory; made if it does not exist.
        engine: Where the model shall run.
        ranges: `Encoder.ranges`, written beside the recipe.

    Returns:
        What the client has to look after; nothing if the engine does it all.

    Raises:
        ValueError: the engine's vectors would be wrong whatever it is sent, or it is unknown.
    """
    differences = fidelity(model, engine)
    if engine == "sentence-transformers":
        export_sentence_transformers(model, path, ranges)
        return differences
    server = SERVERS[engine]
    hopeless = [difference.what for difference in differences if not difference.remedy]
    if hopeless:
        raise ValueError(
            f"{server.name} would give wrong vectors for recipe {model.recipe.name!r}: it "
            f"{'; it '.join(hopeless)}. {_instead(model)}"
        )
    _write_model(model, path, ranges)
    if takes_texts(model.recipe, server):
        _write_modules(path, model)
    text = note(model, engine, differences)
    (path / NAME).write_text(text, encoding="utf-8")
    return differences


def _instead(model: Model) -> str:
    """Where else the model can be served."""
    able = [
        server.name
        for engine, server in SERVERS.items()
        if all(difference.remedy for difference in fidelity(model, engine))
    ]
    return f"It can be served by {' and '.join(able)}" if able else "Serve it with this package"


def _write_model(model: Model, path: Path, ranges: Ranges) -> None:
    refuse_quantized(
        model.backbone,
        "exported: other engines quantise by themselves. Load it without quantization and export "
        "that, or keep it in int8 by save_pretrained()",
    )
    save(model, path, ranges)
    _finish_config(path, model.recipe)
    _finish_tokenizer(path, model)
    _write(
        path / "sentence_bert_config.json",
        {"max_seq_length": _longest_row(model), "do_lower_case": False},
    )


def _longest_row(model: Model) -> int:
    """Tokens of the longest row: the recipe's limit, and what is not counted in it."""
    if model.recipe.join == "string":
        return model.max_length
    rows = [tokenize(model.tokenizer, model.recipe, [""], role)[0] for role in get_args(Role)]
    return model.max_length + max(len(row.ids) for row in rows)


def _finish_config(path: Path, recipe: Recipe) -> None:
    """Stock classes only, the attention direction, and old spellings for those who need them.

    transformers >= 5.2 and vLLM read `is_causal`, text-embeddings-inference its opposite, which in
    some stock configs is a switch of their own: it halves Gemma 3's window, and is left as it is.
    text-embeddings-inference and transformers < 5 look for the rotary base outside of
    `rope_parameters`; transformers 5 reads either. The former does not take null for a padding
    token.
    """
    config = read_json(path / "config.json")
    config.pop("auto_map", None)
    if not config.get("use_bidirectional_attention"):
        config["is_causal"] = recipe.causal
    if not recipe.causal:
        config.setdefault("use_bidirectional_attention", True)
    rope = config.get("rope_parameters") or {}
    if "rope_theta" in rope:
        config["rope_theta"] = rope["rope_theta"]
        if rope.get("rope_type", "default") != "default":
            config["rope_scaling"] = rope
    if config.get("pad_token_id", 0) is None:
        del config["pad_token_id"]
    _write(path / "config.json", config)


def _finish_tokenizer(path: Path, model: Model) -> None:
    """BOS and EOS by a post-processor, so that truncation leaves room for them."""
    recipe, tokenizer = model.recipe, model.tokenizer
    serialized = read_json(path / "tokenizer.json")
    serialized["post_processor"] = _template(
        tokenizer,
        special_id(tokenizer, recipe.bos, "bos"),
        special_id(tokenizer, recipe.eos, "eos"),
    )
    _write(path / "tokenizer.json", serialized)
    settings = read_json(path / "tokenizer_config.json")
    for flag in ("add_bos_token", "add_eos_token"):
        settings.pop(flag, None)
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _longest_row(model),
        "padding_side": "right",
        "truncation_side": "right",
        "pad_token": tokenizer.pad_token
        or tokenizer.eos_token
        or tokenizer.convert_ids_to_tokens(0),
    }
    _write(path / "tokenizer_config.json", settings)


def _template(
    tokenizer: PreTrainedTokenizerFast, bos: int | None, eos: int | None
) -> dict[str, Any]:
    """A TemplateProcessing that puts BOS and EOS around a text, in tokenizer.json's format."""
    names = {i: tokenizer.convert_ids_to_tokens(i) for i in (bos, eos) if i is not None}

    def frame(sequence: str, type_id: int) -> list[dict[str, Any]]:
        before, after = (
            [{"SpecialToken": {"id": names[i], "type_id": type_id}}] if i is not None else []
            for i in (bos, eos)
        )
        return [*before, {"Sequence": {"id": sequence, "type_id": type_id}}, *after]

    return {
        "type": "TemplateProcessing",
        "single": frame("A", 0),
        "pair": [*frame("A", 0), *frame("B", 1)],
        "special_tokens": {
            name: {"id": name, "ids": [i], "tokens": [name]} for i, name in names.items()
        },
    }


def _write_modules(path: Path, model: Model) -> None:
    """The files of sentence-transformers, in the form that all its versions since 2.7 read."""
    recipe = model.recipe
    kinds = ["Transformer", "Pooling", *write_head_folders(model, path, first=2)]
    if recipe.normalize:
        kinds.append("Normalize")
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{kind}" if index else "",
            "type": _TYPES + kind,
        }
        for index, kind in enumerate(kinds)
    ]
    _write(path / "modules.json", modules)
    pooling: dict[str, Any] = {"word_embedding_dimension": state_length(model.backbone.config)}
    pooling |= {f"pooling_mode_{mode}": way in recipe.poolings for way, mode in MODES.items()}
    pooling["include_prompt"] = recipe.pool_span == "all" or not spanned(recipe)
    (path / "1_Pooling").mkdir(exist_ok=True)
    _write(path / "1_Pooling" / "config.json", pooling)
    names = [*get_args(Role), *dict(recipe.prompts)]
    prompts = {name: recipe.prefix(name) for name in names}
    settings: dict[str, Any] = {
        "model_type": "SentenceTransformer",
        "prompts": prompts,
        "default_prompt_name": "document" if prompts["document"] else None,
        "similarity_fn_name": "cosine",
    }
    if recipe.heads and recipe.heads[-1].kind == "truncate":
        settings["truncate_dim"] = recipe.heads[-1].width
    if not recipe.causal:
        reason = "Earlier versions ignore is_causal in config.json and attend causally."
        settings["requirements"] = {"transformers": {"specifier": ">=5.2", "reason": reason}}
    _write(path / "config_sentence_transformers.json", settings)


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
