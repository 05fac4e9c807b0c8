"""The recipe that sentence-transformers' files state: modules, pooling, prompts, special tokens.

Whatever these files say is honoured, changes no vector, or is refused by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..families import e5_mistral, gritlm, siblings
from ..recipe import Pooling, Recipe, Template
from .files import Checkpoint, read_json, read_json_list

_POOLING: dict[str, Pooling] = {
    "cls": "first_token",
    "mean": "mean",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
SENTENCE_TRANSFORMERS = "sentence-transformers"  # family of what only its files describe
_UNLIMITED = 10**9  # transformers writes 1e30 into tokenizer_config.json for "no limit"
_INSTRUCTED = (e5_mistral.TEMPLATE, siblings.QWEN3, gritlm.TEMPLATE, siblings.BGE_ICL)

ANY = None
_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
# Values that change no vector, by key; ANY where the key is honoured or says nothing of vectors.
_HARMLESS: dict[str, dict[str, Any]] = {
    "sentence_bert_config.json": {
        "max_seq_length": ANY,
        "do_lower_case": (False, None),
        "transformer_task": ("feature-extraction",),
        "modality_config": ({"text": _FORWARD},),
        "module_output_name": ("token_embeddings",),
        "processing_kwargs": ({}, None),
        "unpad_inputs": ANY,  # another layout of the same computation
        "query_length": (None,),
        "document_length": (None,),
        "query_expansion": (None,),
        "model_args": ({}, None),
        "tokenizer_args": ({}, None),
        "config_args": ({}, None),
    },
    "config_sentence_transformers.json": {
        "__version__": ANY,
        "prompts": ANY,
        # Used by plain encode() alone; encode_query and encode_document have prompts of their own.
        "default_prompt_name": ANY,
        "similarity_fn_name": ANY,
        "model_type": ("SentenceTransformer", None),
        "requirements": ANY,
        "truncate_dim": (None,),
    },
    "1_Pooling/config.json": {
        "word_embedding_dimension": ANY,
        "embedding_dimension": ANY,
        "pooling_mode": ANY,
        "include_prompt": ANY,
        **{
            f"pooling_mode_{mode}": ANY
            for mode in (
                "cls_token",
                "mean_tokens",
                "max_tokens",
                "mean_sqrt_len_tokens",
                "weightedmean_tokens",
                "lasttoken",
            )
        },
    },
}


def from_module_files(directory: Path, checkpoint: Checkpoint) -> Recipe | None:
    """Read modules.json, the pooling's config and the prompts.

    Raises:
        ValueError: a module or a pooling mode this package does not have.
    """
    path = directory / "modules.json"
    if not path.is_file():
        return None
    modules, kinds = read_json_list(path), check_module_kinds(directory)
    pooling = read_json(directory / modules[1]["path"] / "config.json")
    settings = read_json(directory / "config_sentence_transformers.json")
    prompts = dict(settings.get("prompts") or {})
    query, document, instruction = _templates(directory, prompts)
    mode, whole = pooling_mode(directory, pooling), pooling.get("include_prompt", True)
    if not whole and any(prompts.values()) and mode in ("first_token", "weighted_mean"):
        raise ValueError(
            f"{directory} pools by {mode!r} with include_prompt = false: sentence-transformers "
            "then counts from the first token behind the prompt, which is not done here"
        )
    _check_settings(directory, settings, pooling)
    config = read_json(checkpoint.root / "config.json")
    stored = read_json(checkpoint.tokenizer / "tokenizer_config.json").get("model_max_length")
    limits = [
        read_json(directory / "sentence_bert_config.json").get("max_seq_length"),
        stored if isinstance(stored, int) and stored < _UNLIMITED else None,
        config.get("max_position_embeddings"),
    ]
    bos, eos = _ends(checkpoint.tokenizer)
    return Recipe(
        name=directory.name,
        family=SENTENCE_TRANSFORMERS,
        causal=config.get("is_causal") is not False,  # the loaded model is asked later
        pooling=mode,
        pool_span="all" if whole else "text",
        query=query,
        document=document,
        instruction=instruction,
        bos=bos,
        eos=eos,
        normalize="Normalize" in kinds,
        max_length=next((limit for limit in limits if limit), 512),
        source=f"sentence-transformers files of {directory.name}",
    )


def check_module_kinds(directory: Path) -> list[str]:
    """The kinds of modules that a model of sentence-transformers is made of, [] for another model.

    Raises:
        ValueError: there is one that is not understood, such as a Dense head.
    """
    path = directory / "modules.json"
    if not path.is_file():
        return []
    types = [str(module["type"]) for module in read_json_list(path)]
    if all(name.startswith("sentence_transformers_llm_embeddings.") for name in types):
        return []  # this package's own module, which a sidecar describes
    kinds = [name.rsplit(".", 1)[-1] for name in types]
    stock = all(name.startswith("sentence_transformers.") for name in types)
    ends: tuple[list[str], ...] = ([], ["Normalize"])
    if not stock or kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ends:
        raise ValueError(
            f"{directory} is a sentence-transformers model of {kinds}; only Transformer, Pooling "
            "and Normalize are understood"
        )
    return kinds


def pooling_mode(directory: Path, config: dict[str, Any]) -> Pooling:
    """Versions before 6 write one flag per mode, later ones the mode's name."""
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else list(named or ())
    modes += [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, on in config.items()
        if key.startswith("pooling_mode_") and on
    ]
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise ValueError(f"{directory}: pooling {modes} is not one of {sorted(_POOLING)}")
    return _POOLING[modes[0]]


def _templates(directory: Path, prompts: dict[str, str]) -> tuple[Template, Template, str]:
    """Templates of queries and documents, and the queries' default instruction."""
    prompt = prompts.get("query") or ""
    if not prompt and _states_a_template(prompts.get("web_search_query", "")):
        # E5-Mistral's name for it, which sentence-transformers leaves out.
        prompt = prompts["web_search_query"]
    other = next((name for name in ("passage", "corpus") if prompts.get(name)), None)
    if other and "document" not in prompts:
        raise ValueError(
            f"{directory} has a prompt {other!r} and none named 'document': sentence-transformers "
            "6 leaves it out, earlier versions do not. Name it 'document' in "
            "config_sentence_transformers.json, or pass recipe=Recipe(...)"
        )
    document = prompts.get("document") or ""
    named = {name for name, text in prompts.items() if text}
    if named and not prompt and not document and not named & {"passage", "corpus"}:
        raise ValueError(
            f"{directory} has the prompts {sorted(named)}, none named 'query' or 'document': "
            "say which to use by recipe=Recipe(...)"
        )
    template = _states_a_template(prompt)
    if template is None:
        return Template(prompt), Template(document), ""
    head, tail = template.prefix.split("{instruction}")
    same = document == template.bare
    instruction = prompt.removeprefix(head).removesuffix(tail)
    return template, template if same else Template(document), instruction


def _states_a_template(prompt: str) -> Template | None:
    """The known template of which a prompt states all; one with a suffix no prompt can state."""
    for template in _INSTRUCTED:
        head, tail = template.prefix.split("{instruction}")
        if not template.suffix and prompt.startswith(head) and prompt.endswith(tail) and prompt:
            return template
    return None


def _ends(directory: Path) -> tuple[bool | str, bool | str]:
    """BOS and EOS as the tokenizer's files ask for them: a flag, else the post-processor."""
    flags = read_json(directory / "tokenizer_config.json")
    processor = read_json(directory / "tokenizer.json").get("post_processor") or {}
    first, last = _post_processor(processor)
    return _end(flags.get("add_bos_token"), first), _end(flags.get("add_eos_token"), last)


def _end(flag: bool | None, token: str | None) -> bool | str:
    """The post-processor's token, unless a flag overrules it."""
    if flag is None:
        return token or False
    return (token or True) if flag else False


def _post_processor(processor: dict[str, Any]) -> tuple[str | None, str | None]:
    """The special tokens that a tokenizer puts before and after a single text.

    Raises:
        ValueError: it puts more than one on a side, or is of a kind not known here.
    """
    kind = processor.get("type")
    if kind == "Sequence":
        found = [_post_processor(inner) for inner in processor.get("processors", ())]
        return next((ends for ends in found if any(ends)), (None, None))
    if kind in ("BertProcessing", "RobertaProcessing"):
        return str(processor["cls"][0]), str(processor["sep"][0])
    if kind != "TemplateProcessing":
        if kind in (None, "ByteLevel"):
            return None, None
        raise ValueError(f"tokenizer.json: the post-processor {kind!r} is not known: pass a Recipe")
    ends: tuple[list[str], list[str]] = [], []
    seen = False
    for piece in processor.get("single", ()):
        if "Sequence" in piece:
            seen = True
        else:
            ends[seen].append(str(piece["SpecialToken"]["id"]))
    if max(map(len, ends)) > 1:
        raise ValueError(
            f"tokenizer.json: the post-processor puts {ends[0]} before and {ends[1]} behind a "
            "text; one token on a side is what can be done here: pass a Recipe"
        )
    return (*ends[0], None)[0], (*ends[1], None)[0]


def _check_settings(directory: Path, settings: dict[str, Any], pooling: dict[str, Any]) -> None:
    """Every key of sentence-transformers' files is honoured, irrelevant, or refused here by name.

    Raises:
        ValueError: a key that would change vectors and is not honoured.
    """
    files = {
        "sentence_bert_config.json": read_json(directory / "sentence_bert_config.json"),
        "config_sentence_transformers.json": settings,
        "1_Pooling/config.json": pooling,
    }
    for file, values in files.items():
        harmless = _HARMLESS[file]
        for key, value in values.items():
            allowed = harmless.get(key, ())
            if allowed is not ANY and value not in allowed:
                raise ValueError(
                    f"{directory / file}: {key} = {json.dumps(value):.80} is not honoured here, "
                    "and vectors would be others without it: load the directory with "
                    "SentenceTransformer, or pass recipe=Recipe(...) that says what you want"
                )
