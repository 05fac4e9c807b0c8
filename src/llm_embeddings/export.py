"""A directory that plain sentence-transformers loads: native modules only, no code of ours.

Which recipes those modules can express is decided from the recipe's values. What they cannot
express is refused; nothing is approximated. One difference is left: where the prompt is not pooled
and a text has no token of its own (it is empty, or one character that fuses with the prompt's last
token), they return zeros and this package the mean of the whole row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from .files import read_json
from .recipe import Recipe, Role
from .saving import save
from .tokens import special_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from .encoder import Encoder

_MODES = {
    "last_token": "lasttoken",
    "first_token": "cls_token",
    "mean": "mean_tokens",
    "weighted_mean": "weightedmean_tokens",
}
_TYPES = "sentence_transformers.models."


def export_sentence_transformers(encoder: Encoder, path: Path) -> None:
    """Write `SentenceTransformer(path)`'s files, readable by versions 2.7 and later.

    `encode_query` and `encode_document` there equal those here; plain `encode` embeds documents.
    `Encoder.from_pretrained(path)` reads the directory, too.

    Args:
        encoder: What to write.
        path: Directory; made if it does not exist.

    Raises:
        ValueError: the recipe, or the backbone, needs what native modules cannot do.
    """
    check_exact(encoder)
    prompts = {role: encoder.recipe.prefix(role) for role in get_args(Role)}
    save(encoder, path)
    _finish_config(path, encoder.recipe)
    _finish_tokenizer(path, encoder)
    _write_modules(path, encoder, prompts)


def check_exact(encoder: Encoder) -> None:
    """Refuse what Transformer, Pooling and Normalize would compute differently.

    Raises:
        ValueError: names the property that stands in the way.
    """
    recipe = encoder.recipe
    span = recipe.pool_span == "text" and recipe.pooling in ("mean", "weighted_mean")
    obstacles = {
        f"join={recipe.join!r}": recipe.join != "string",
        f"separator={recipe.separator!r}": recipe.separator is not None,
        f"max_text_length={recipe.max_text_length}": recipe.max_text_length is not None,
        f"pooling={recipe.pooling!r}": recipe.pooling not in _MODES,
        "weights that start after the prompt": span and recipe.pooling == "weighted_mean",
        "text after the input (a template's suffix)": bool(
            recipe.query.suffix or recipe.document.suffix
        ),
        "a prompt whose end is not counted alike": span and _is_miscounted(encoder),
        "code that is not in transformers": not type(encoder.backbone).__module__.startswith(
            "transformers.models."
        ),
    }
    found = [name for name, stands in obstacles.items() if stands]
    if found:
        raise ValueError(
            f"recipe {recipe.name!r} cannot be written as native sentence-transformers modules, "
            f"which do not know {'; '.join(found)}. save_pretrained() keeps all of it, and "
            "as_sentence_transformer() of sentence-transformers-llm-embeddings serves it there"
        )


def _is_miscounted(encoder: Encoder) -> bool:
    """Whether sentence-transformers would leave out too much or too little of a prompt.

    It tokenises the prompt alone and drops a last special token, which it takes for the EOS.
    """
    tokenizer, recipe = encoder.tokenizer, encoder.recipe
    special = set(tokenizer.all_special_ids)
    eos = special_id(tokenizer, recipe.eos, "eos")
    for role in get_args(Role):
        prefix = recipe.prefix(role)
        ids = tokenizer(prefix, add_special_tokens=False)["input_ids"] if prefix else []
        last = eos if eos is not None else (ids or [None])[-1]
        if ids and (last in special) != (eos is not None):
            return True
    return False


def _finish_config(path: Path, recipe: Recipe) -> None:
    """Stock classes only, and the attention direction, which transformers >= 5.2 reads here."""
    config = read_json(path / "config.json")
    config.pop("auto_map", None)
    config["is_causal"] = recipe.causal
    _write(path / "config.json", config)


def _finish_tokenizer(path: Path, encoder: Encoder) -> None:
    """BOS and EOS by a post-processor, so that truncation leaves room for them."""
    recipe, tokenizer = encoder.recipe, encoder.tokenizer
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
        "model_max_length": encoder.max_length,
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


def _write_modules(path: Path, encoder: Encoder, prompts: dict[str, str]) -> None:
    """The files of sentence-transformers, in the form that all its versions since 2.7 read."""
    recipe = encoder.recipe
    folders = {"Transformer": "", "Pooling": "1_Pooling"}
    if recipe.normalize:
        folders["Normalize"] = "2_Normalize"
    modules = [
        {"idx": index, "name": str(index), "path": folder, "type": _TYPES + kind}
        for index, (kind, folder) in enumerate(folders.items())
    ]
    _write(path / "modules.json", modules)
    _write(
        path / "sentence_bert_config.json",
        {"max_seq_length": encoder.max_length, "do_lower_case": False},
    )
    pooling: dict[str, Any] = {"word_embedding_dimension": encoder.dimension}
    pooling |= {f"pooling_mode_{mode}": mode == _MODES[recipe.pooling] for mode in _MODES.values()}
    pooling["include_prompt"] = recipe.pool_span == "all" or recipe.pooling in (
        "last_token",
        "first_token",
    )
    (path / "1_Pooling").mkdir(exist_ok=True)
    _write(path / "1_Pooling" / "config.json", pooling)
    settings: dict[str, Any] = {
        "model_type": "SentenceTransformer",
        "prompts": prompts,
        "default_prompt_name": "document" if prompts["document"] else None,
        "similarity_fn_name": "cosine",
    }
    if not recipe.causal:
        reason = "Earlier versions ignore is_causal in config.json and attend causally."
        settings["requirements"] = {"transformers": {"specifier": ">=5.2", "reason": reason}}
    _write(path / "config_sentence_transformers.json", settings)


def _write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
