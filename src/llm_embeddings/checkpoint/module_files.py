"""The recipe that sentence-transformers' files state: modules, pooling, prompts, special tokens.

Whatever these files say is honoured, changes no vector, or is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..recipe import SENTENCE_TRANSFORMERS, Head, Pooling, Recipe
from .bounds import inside
from .files import Checkpoint, read_json, read_json_list
from .head_files import FOLLOWING, check_keys, read_heads
from .prompts import Frame, agreed_prompts, chat_frame, stated_templates

_UNLIMITED = 10**9  # transformers writes 1e30 into tokenizer_config.json for "no limit"
_NO_LIMIT = 2**31
# Names in the files of versions 6 and, with this prefix and some suffixes, of earlier ones; in the
# order in which several are put behind each other.
_LEGACY = "pooling_mode_"
_OF_ONE_TOKEN = {"first_token", "last_token"}
_POOLING: dict[str, tuple[str, Pooling]] = {
    "cls": ("cls_token", "first_token"),
    "max": ("max_tokens", "max"),
    "mean": ("mean_tokens", "mean"),
    "mean_sqrt_len_tokens": ("mean_sqrt_len_tokens", "mean_sqrt_length"),
    "weightedmean": ("weightedmean_tokens", "weighted_mean"),
    "lasttoken": ("lasttoken", "last_token"),
}
# Settings of the Transformer module, under the names of all its versions.
_SETTINGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)

# Modules that come as code in a repository, and what they are here. zembed's is a Transformer that
# puts a suffix behind every text, which no file states: its recipe has to be named.
_SUFFIXING = "modeling_zembed.ZembedTransformer"
_OTHERS = {_SUFFIXING: "Transformer", "st_quantize.FlexibleQuantizer": "FlexibleQuantizer"}

ANY = None
_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
# Values that are honoured or change no vector, by key; ANY where all are.
_TRANSFORMER: dict[str, tuple[Any, ...] | None] = {
    "max_seq_length": ANY,
    "do_lower_case": (True, False, None),
    "transformer_task": ("feature-extraction",),
    "modality_config": (
        {"text": _FORWARD},
        *(
            {"text": _FORWARD, "message": {**_FORWARD, "format": layout}}
            for layout in ("flat", "structured")
        ),
    ),
    "module_output_name": ("token_embeddings",),
    "processing_kwargs": ANY,  # see `_chat`
    "unpad_inputs": ANY,  # another layout of the same computation
    "query_length": (None,),
    "document_length": (None,),
    "query_expansion": (None,),
    **{
        f"{part}_{kind}": ({}, None)
        for part in ("model", "tokenizer", "processor", "config")
        for kind in ("args", "kwargs")
    },
}
_MODEL: dict[str, tuple[Any, ...] | None] = {
    "__version__": ANY,
    "prompts": ANY,
    # Used by plain encode() alone; encode_query and encode_document have prompts of their own.
    "default_prompt_name": ANY,
    "similarity_fn_name": ANY,
    "model_type": ("SentenceTransformer", None),
    "requirements": ANY,
    "truncate_dim": ANY,
}
_POOL: dict[str, tuple[Any, ...] | None] = {
    "word_embedding_dimension": ANY,
    "embedding_dimension": ANY,
    "pooling_mode": ANY,
    "include_prompt": ANY,
    **{_LEGACY + legacy: ANY for legacy, _ in _POOLING.values()},
}


def from_module_files(directory: Path, checkpoint: Checkpoint) -> Recipe | None:
    """Read modules.json and what lies in the folders of its modules.

    Raises:
        ValueError: a module, a pooling mode or a key that is not understood.
    """
    if not check_module_kinds(directory):
        return None
    if read_json_list(directory / "modules.json")[0]["type"] == _SUFFIXING:
        raise ValueError(
            f"{directory} has the code {_SUFFIXING}, which puts a suffix behind every text: pass "
            "recipe='zeroentropy/zembed-1', or recipe=Recipe(...) with your suffix"
        )
    file, settings = transformer_settings(directory)
    check_keys(file, settings, _TRANSFORMER)
    named = directory / "config_sentence_transformers.json"
    model = read_json(named)
    check_keys(named, model, _MODEL)
    pool_file = _folder(directory, 1) / "config.json"
    pooling = read_json(pool_file)
    check_keys(pool_file, pooling, _POOL)
    chat = _chat(file, settings, checkpoint.tokenizer)
    stated = stated_templates(directory, model.get("prompts") or {}, chat)
    modes, whole = pooling_modes(pool_file, pooling), pooling.get("include_prompt", True)
    prompted = chat is None and any((model.get("prompts") or {}).values())
    if not whole and prompted and "weighted_mean" in modes:
        raise ValueError(
            f"{directory} pools by {modes} with include_prompt = false: sentence-transformers "
            "keeps the weights of positions that count the prompt, which is not done here"
        )
    heads, normalize = stated_heads(directory, model.get("truncate_dim"))
    config = read_json(checkpoint.root / "config.json")
    return Recipe(
        name=directory.name,
        family=SENTENCE_TRANSFORMERS,
        causal=config.get("is_causal") is not False,  # the loaded model is asked later
        pooling=modes[0] if len(modes) == 1 else modes,
        pool_span="all" if whole or chat else "behind_prompt",
        heads=heads,
        query=stated.query,
        document=stated.document,
        instruction=stated.instruction,
        prompts=stated.prompts,
        bos=False,  # the loaded tokenizer is asked later
        normalize=normalize,
        max_length=_limit(directory, settings, config, checkpoint.tokenizer),
        truncate="text_ids" if chat else "end",
        source=f"sentence-transformers files of {directory.name}",
    )


def check_module_kinds(directory: Path) -> list[str]:
    """The kinds of modules that a model of sentence-transformers is made of, [] for another model.

    Raises:
        ValueError: there is one that is not understood, such as a bag of words.
    """
    path = directory / "modules.json"
    if not path.is_file():
        return []
    types = [str(module["type"]) for module in read_json_list(path)]
    if all(name.startswith("sentence_transformers_llm_embeddings.") for name in types):
        return []  # this package's own module, which a sidecar describes
    kinds = [_OTHERS.get(name, name.rsplit(".", 1)[-1]) for name in types]
    stock = all(name.startswith("sentence_transformers.") or name in _OTHERS for name in types)
    if not stock or kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - set(FOLLOWING):
        raise ValueError(
            f"{directory} is a sentence-transformers model of {kinds}; only Transformer and "
            f"Pooling, followed by any of {list(FOLLOWING)}, are understood"
        )
    return kinds


def agreed(directory: Path, known: Recipe) -> Recipe:
    """The recipe that was asked for, with what these files name besides: more prompts.

    Raises:
        ValueError: they contradict it: other heads, or a listed checkpoint's recipe with another
            pooling or other prompts.
    """
    if not check_module_kinds(directory):
        return known
    model = read_json(directory / "config_sentence_transformers.json")
    heads, _ = stated_heads(directory, model.get("truncate_dim"))
    file = _folder(directory, 1) / "config.json"
    pooling = read_json(file)
    modes = pooling_modes(file, pooling)
    _, settings = transformer_settings(directory)
    message = (settings.get("modality_config") or {}).get("message")
    claims: list[tuple[str, Any, Any]] = [("what follows the pooling", heads, known.heads)]
    listed = known.family not in ("custom", "plain")
    if listed:
        claims += [("pooling", modes, known.poolings), ("the format of messages", message, None)]
    behind = pooling.get("include_prompt") is False and set(modes) - _OF_ONE_TOKEN
    if listed and behind and known.pool_span == "all":
        claims.append(("the pooled span", "behind the prompt", "all"))
    for what, stated, wanted in claims:
        if stated != wanted:
            raise ValueError(
                f"{directory} was to be loaded as {known.name!r}, in which {what} is {wanted}, but "
                f"its files say {stated}. Pass the right recipe, or a Recipe object to insist"
            )
    return agreed_prompts(directory, known, model.get("prompts") or {}) if listed else known


def transformer_folder(directory: Path) -> Path:
    """Where the backbone lies: the folder of the first module, else the directory itself."""
    return _folder(directory, 0) if check_module_kinds(directory) else directory


def transformer_settings(directory: Path) -> tuple[Path, dict[str, Any]]:
    """The settings of the Transformer module and their file, by the names of all versions."""
    folder = transformer_folder(directory)
    files = [folder / name for name in _SETTINGS]
    file = next((file for file in files if file.is_file()), files[0])
    return file, read_json(file)


def renders_messages(directory: Path) -> bool:
    """Whether texts go through the tokenizer's chat template, which puts all special tokens."""
    return "message" in (transformer_settings(directory)[1].get("modality_config") or {})


def stated_heads(directory: Path, truncate_dim: int | None) -> tuple[tuple[Head, ...], bool]:
    """The heads that files name, and whether vectors are normalised behind them.

    sentence-transformers cuts to `truncate_dim` last, behind the normalising and without another.
    """
    heads, normalize = read_heads(directory)
    if truncate_dim is None:
        return heads, normalize
    unit = (Head(kind="normalize"),) if normalize else ()
    return (*heads, *unit, Head(kind="truncate", width=truncate_dim)), False


def pooling_modes(file: Path, config: dict[str, Any]) -> tuple[Pooling, ...]:
    """Versions before 6 write one flag per mode, later ones the mode's name or names."""
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else list(named or ())
    if not modes:
        modes = [mode for mode, (old, _) in _POOLING.items() if config.get(_LEGACY + old)]
    unknown = [mode for mode in modes if mode not in _POOLING]
    if unknown:
        raise ValueError(f"{file}: pooling {unknown} is not one of {sorted(_POOLING)}")
    return tuple(_POOLING[mode][1] for mode in modes or ["mean"])


def _folder(directory: Path, module: int) -> Path:
    path = directory / "modules.json"
    return inside(directory, read_json_list(path)[module].get("path"), path)


def _chat(file: Path, settings: dict[str, Any], tokenizer: Path) -> Frame | None:
    """How texts become messages, if they do.

    Raises:
        ValueError: arguments of the tokenizer that are not honoured.
    """
    options = dict(settings.get("processing_kwargs") or {})
    chat = dict(options.pop("chat_template", None) or {})
    check_keys(file, {"processing_kwargs": options}, {"processing_kwargs": ({},)})
    message = (settings.get("modality_config") or {}).get("message")
    return None if message is None else chat_frame(tokenizer, message["format"], chat)


def _limit(
    directory: Path, settings: dict[str, Any], config: dict[str, Any], tokenizer: Path
) -> int:
    """Most tokens of a text.

    Raises:
        ValueError: no number, or more than the model has positions.
    """
    positions, asked = config.get("max_position_embeddings"), settings.get("max_seq_length")
    if asked is not None and (type(asked) is not int or asked < 0):
        raise ValueError(
            f"{directory}: max_seq_length = {asked!r:.80} must be a number of tokens: set it in "
            "the settings of the Transformer module"
        )
    if asked and positions and asked > positions > 0:
        raise ValueError(
            f"{directory}: max_seq_length = {asked}, and the model has {positions} positions: "
            "lower it in the settings of the Transformer module"
        )
    stored = read_json(tokenizer / "tokenizer_config.json").get("model_max_length")
    bounded = stored if isinstance(stored, int) and stored < _UNLIMITED else None
    return next((limit for limit in (asked, bounded, positions) if limit), _NO_LIMIT)
