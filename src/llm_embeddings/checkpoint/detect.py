"""The recipe of a checkpoint: argument > sidecar > table > its own files, or a refusal.

A checkpoint that nobody listed is recognised by what its authors left in it: adapter metadata, the
names of remote code files, special tokens, sentence-transformers files. Nothing is guessed from a
model type alone: many families share one, and a wrong recipe fails silently.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..families import (
    e5_mistral,
    find_recipe,
    get_recipe,
    gritlm,
    llara,
    llm2vec,
    nearest,
    siblings,
)
from ..recipe import Pooling, Recipe, Template
from .files import Checkpoint, read_json, read_json_list

_POOLING: dict[str, Pooling] = {
    "cls": "first_token",
    "mean": "mean",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
_UNLIMITED = 10**9  # transformers writes 1e30 into tokenizer_config.json for "no limit"
_INSTRUCTED = (e5_mistral.TEMPLATE, siblings.QWEN3, gritlm.TEMPLATE, siblings.BGE_ICL)


def named(model: str, wanted: str | Recipe | None) -> Recipe | None:
    """The recipe that was asked for, else the one listed under the hub id.

    Raises:
        ValueError: an unknown or refused name.
    """
    if isinstance(wanted, Recipe):
        return wanted
    return find_recipe(model) if wanted is None else get_recipe(wanted)


def settle(
    model: str, directory: Path, checkpoint: Checkpoint, known: Recipe | None, *, trusted: bool
) -> Recipe:
    """The recipe to use, after a look at the files.

    Args:
        model: What the user named, for messages.
        directory: The checkpoint's directory.
        checkpoint: All its directories.
        known: The recipe that was asked for, lies beside the weights, or is listed.
        trusted: Whether `known` is the user's own `Recipe`, which nothing overrules.

    Raises:
        ValueError: the files belong to another family, need what this package lacks, or do not
            say how the checkpoint embeds.
    """
    if known is not None and trusted:
        return known
    family = _family(directory, checkpoint)
    if family == "llm2vec":
        _check_not_second_stage(directory, checkpoint)
    if known is not None:
        if family not in (None, known.family) and known.family not in ("custom", "plain"):
            raise ValueError(
                f"{model!r} was to be loaded as {known.name!r} ({known.family}), but its files are "
                f"those of {family}. Pass the right recipe, or a Recipe object to insist"
            )
        _check_stated_pooling(model, directory, known)
        return known
    if family is not None:
        return _of_family(family, directory, checkpoint)
    _check_no_remote_code(directory)
    recipe = _from_sentence_transformers(directory, checkpoint)
    if recipe is None:
        raise ValueError(
            f"cannot tell from its files how {model!r} embeds (attention, pooling, template). "
            f"{nearest(model)}"
        )
    return recipe


def _family(directory: Path, checkpoint: Checkpoint) -> str | None:
    """Recognise a family by marks that no other carries."""
    adapters = [read_json(path / "adapter_config.json") for path in checkpoint.adapters]
    parents = [str((a.get("auto_mapping") or {}).get("parent_library")) for a in adapters]
    remote = _remote_code(directory)
    if any(parent.startswith("llm2vec.") for parent in parents):
        return "llm2vec"
    if re.search(r"_encoder\.\w+EncoderModel", remote):
        return "llm2vec"
    if "modeling_gritlm" in remote:
        return "gritlm"
    tokens = _added_tokens(checkpoint.tokenizer)
    if tokens.issuperset(llara.TOKENS):
        return "llara"
    if tokens.issuperset(siblings.BGE_EN_ICL.required_tokens):
        return "bge-en-icl"
    return None


def _check_stated_pooling(model: str, directory: Path, known: Recipe) -> None:
    """Where sentence-transformers files name a pooling, a listed recipe must have the same."""
    pooling = read_json(directory / "1_Pooling" / "config.json")
    if not pooling or known.family in ("custom", "plain"):
        return
    stated = _pooling_mode(directory, pooling)
    if stated != known.pooling:
        raise ValueError(
            f"{model!r} was to be loaded as {known.name!r}, which pools by {known.pooling!r}, but "
            f"its files say {stated!r}. Pass the right recipe, or a Recipe object to insist"
        )


def _of_family(family: str, directory: Path, checkpoint: Checkpoint) -> Recipe:
    """The recipe of a recognised family under the directory's name."""
    if family == "llm2vec":
        recipe = llm2vec.recipe(directory.name, _llm2vec_base(directory, checkpoint))
        return llm2vec.configured(recipe, read_json(_last(directory, checkpoint) / llm2vec.CONFIG))
    if family == "gritlm":
        return gritlm.recipe(directory.name, "auto_map of its config.json names GritLM's code")
    if family == "llara":
        return llara.recipe(directory.name)
    return siblings.BGE_EN_ICL.replace(name=directory.name)


def _check_not_second_stage(directory: Path, checkpoint: Checkpoint) -> None:
    """Refuse a SimCSE or supervised LLM2Vec adapter on the raw base that it names."""
    if len(checkpoint.adapters) == 1 and not (directory / "config.json").is_file():
        raise ValueError(
            f"{directory} is a second-stage LLM2Vec adapter: it was trained on base + MNTP merged, "
            "though its adapter_config.json names the raw base. Pass the MNTP directory as the "
            "model and this one by adapters=[...], or name its recipe"
        )


def _llm2vec_base(directory: Path, checkpoint: Checkpoint) -> str:
    """Hub id of the raw LLM, by which LLM2Vec keys its template; local copies keep it as a name."""
    named = [read_json(path / "config.json").get("_name_or_path") for path in checkpoint.adapters]
    named += [
        read_json(path / "adapter_config.json").get("base_model_name_or_path")
        for path in checkpoint.adapters
    ]
    named += [
        read_json(path / "config.json").get("_name_or_path")
        for path in (directory, checkpoint.root)
    ]
    base: str | None = next(
        (name for name in named if name and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)), None
    )
    if base is None:
        raise ValueError(
            f"{directory} is an LLM2Vec checkpoint, but none of its files names the base model, "
            "which decides the chat template. Pass recipe=<one of list_recipes('*LLM2Vec*')>"
        )
    return base


def _last(directory: Path, checkpoint: Checkpoint) -> Path:
    """The directory of the last stage, in which llm2vec saves its settings."""
    return checkpoint.adapters[-1] if checkpoint.adapters else directory


def _remote_code(directory: Path) -> str:
    """What its config.json names outside transformers."""
    named = read_json(directory / "config.json").get("auto_map") or {}
    return " ".join(str(value) for value in named.values())


def _check_no_remote_code(directory: Path) -> None:
    remote = _remote_code(directory)
    if remote:
        raise ValueError(
            f"{directory} needs remote code ({remote.split()[0]}), and stock classes may attend or "
            "pool otherwise. If they do not, pass recipe=Recipe(...); to run its code, also pass "
            "trust_remote_code=True"
        )


def _from_sentence_transformers(directory: Path, checkpoint: Checkpoint) -> Recipe | None:
    """Read modules.json, the pooling's config and the prompts.

    Raises:
        ValueError: a module or a pooling mode this package does not have.
    """
    path = directory / "modules.json"
    if not path.is_file():
        return None
    modules = read_json_list(path)
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise ValueError(
            f"{directory} is a sentence-transformers model of {kinds}; only Transformer, Pooling "
            "and Normalize are understood"
        )
    pooling = read_json(directory / modules[1]["path"] / "config.json")
    settings = read_json(directory / "config_sentence_transformers.json")
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text}
    query, document, instruction = _templates(directory, prompts)
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
        family="sentence-transformers",
        causal=config.get("is_causal") is not False,
        pooling=_pooling_mode(directory, pooling),
        pool_span="all" if pooling.get("include_prompt", True) else "text",
        query=query,
        document=document,
        instruction=instruction,
        bos=bos,
        eos=eos,
        normalize="Normalize" in kinds,
        max_length=next((limit for limit in limits if limit), 512),
        source=f"sentence-transformers files of {directory.name}",
    )


def _pooling_mode(directory: Path, config: dict[str, Any]) -> Pooling:
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
    prompt = prompts.get("query") or prompts.get("web_search_query") or ""
    document = next((prompts[n] for n in ("document", "passage", "corpus") if n in prompts), "")
    if prompts and not prompt and not document:
        raise ValueError(
            f"{directory} has the prompts {sorted(prompts)}, none named 'query' or 'document': "
            "say which to use by recipe=Recipe(...)"
        )
    for template in _INSTRUCTED:
        head, tail = template.prefix.split("{instruction}")
        if prompt.startswith(head) and prompt.endswith(tail):
            same = document == template.bare
            instruction = prompt.removeprefix(head).removesuffix(tail)
            return template, template if same else Template(document), instruction
    return Template(prompt), Template(document), ""


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
    """The special tokens a TemplateProcessing puts before and after a single text."""
    for inner in processor.get("processors", ()):
        found = _post_processor(inner)
        if any(found):
            return found
    pieces = processor.get("single", ())
    before, after, seen = None, None, False
    for piece in pieces if processor.get("type") == "TemplateProcessing" else ():
        if "Sequence" in piece:
            seen = True
        elif seen:
            after = str(piece["SpecialToken"]["id"])
        else:
            before = str(piece["SpecialToken"]["id"])
    return before, after


def _added_tokens(directory: Path) -> set[str]:
    """Entries added to the vocabulary; families mark themselves by those."""
    tokenizer = read_json(directory / "tokenizer.json")
    return {str(token["content"]) for token in tokenizer.get("added_tokens", ())}
