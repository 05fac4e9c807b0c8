"""The recipe of a checkpoint: argument > sidecar > table > its own files, or a refusal.

A checkpoint that nobody listed is recognised by what its authors left in it: adapter metadata, the
names of remote code files, special tokens, sentence-transformers files. Nothing is guessed from a
model type alone: many families share one, and a wrong recipe fails silently.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..families import (
    find_recipe,
    get_recipe,
    gritlm,
    llara,
    llm2vec,
    nearest,
    siblings,
)
from ..recipe import SENTENCE_TRANSFORMERS, Recipe
from . import sidecar
from .files import Checkpoint, read_json
from .module_files import agreed, from_module_files
from .stock import is_stock

_LLM2VEC_CODE = r"_encoder\.\w+EncoderModel"


def named(model: str, wanted: str | Recipe | None) -> Recipe | None:
    """The recipe that was asked for, else the one listed under the hub id.

    Raises:
        ValueError: an unknown or refused name.
    """
    if isinstance(wanted, Recipe):
        return wanted
    if wanted is not None:
        return get_recipe(wanted)
    if "/" not in model and Path(model).is_dir():
        return None  # a directory may be named as a recipe is
    return find_recipe(model)


def is_observed(recipe: Recipe, wanted: Recipe | str | None, saved: sidecar.Sidecar | None) -> bool:
    """Whether only the checkpoint's own files say how it embeds."""
    return recipe.family == SENTENCE_TRANSFORMERS and wanted is None and saved is None


def is_plain(recipe: Recipe, wanted: Recipe | str | None, saved: sidecar.Sidecar | None) -> bool:
    """Whether a recipe for any decoder was asked for by name, and is to be fitted to this one."""
    family = siblings.MEAN.family
    return recipe.family == family and saved is None and not isinstance(wanted, Recipe)


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
    if family == "llm2vec" and known is None:
        _check_first_stage(directory, checkpoint)
    if known is not None:
        if family not in (None, known.family) and known.family != "custom":
            raise ValueError(
                f"{model!r} was to be loaded as {known.name!r} ({known.family}), but its files are "
                f"those of {family}. Pass the right recipe, or a Recipe object to insist"
            )
        _check_direction(model, checkpoint, known)
        return agreed(directory, known)
    if family is not None:
        return _of_family(family, directory, checkpoint)
    for place in (checkpoint.root, directory):
        _check_no_remote_code(place)
    recipe = from_module_files(directory, checkpoint)
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
    remote = f"{_remote_code(directory)} {_remote_code(checkpoint.root)}"
    for adapter in adapters:
        find_recipe(str(adapter.get("base_model_name_or_path")))  # a refused base is refused
    if any(parent.startswith("llm2vec.") for parent in parents):
        return "llm2vec"
    if re.search(_LLM2VEC_CODE, remote):
        return "llm2vec"
    if "modeling_gritlm" in remote:
        return "gritlm"
    tokens = _added_tokens(checkpoint)
    if tokens.issuperset(llara.TOKENS):
        return "llara"
    if tokens.issuperset(siblings.BGE_EN_ICL.required_tokens):
        return "bge-en-icl"
    return None


def _check_direction(model: str, checkpoint: Checkpoint, known: Recipe) -> None:
    """Where config.json states a direction, a recipe by name must have the same."""
    stated = read_json(checkpoint.root / "config.json").get("is_causal")
    if known.window == "keep" and isinstance(stated, bool) and stated != known.causal:
        raise ValueError(
            f"{model!r} was to be loaded as {known.name!r}, which has causal={known.causal}, but "
            f"its config.json says is_causal = {stated}. Pass a Recipe object to insist"
        )


def _of_family(family: str, directory: Path, checkpoint: Checkpoint) -> Recipe:
    """The recipe of a recognised family under the directory's name."""
    if family == "llm2vec":
        base = _llm2vec_base(directory, checkpoint)
        settings = read_json(_last(directory, checkpoint) / llm2vec.CONFIG)
        kind = str(read_json(checkpoint.root / "config.json").get("model_type"))
        return llm2vec.configured(llm2vec.recipe(directory.name, base), settings, base, kind)
    if family == "gritlm":
        return gritlm.recipe(directory.name, "auto_map of its config.json names GritLM's code")
    if family == "llara":
        return llara.recipe(directory.name)
    return siblings.BGE_EN_ICL.replace(name=directory.name)


def _check_first_stage(directory: Path, checkpoint: Checkpoint) -> None:
    """Refuse a lone adapter that may be a SimCSE or supervised stage: all stages name the raw base.

    Only MNTP stages, as they are published, have a config.json that names the encoder's code. Who
    puts an adapter on a model by `adapters=` says where it belongs.
    """
    alone = checkpoint.adapters == (directory,)
    if alone and not re.search(_LLM2VEC_CODE, _remote_code(directory)):
        raise ValueError(
            f"{directory} may be a second-stage LLM2Vec adapter, which was trained on base + MNTP "
            "merged, though its adapter_config.json names the raw base: its config.json, if any, "
            "lacks the auto_map of an MNTP stage. Pass the MNTP directory as the model and this "
            "one by adapters=[...]; if this is the first stage, pass the base as the model, or "
            "name its recipe"
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
    if remote and not is_stock(read_json(directory / "config.json")):
        raise ValueError(
            f"{directory} needs remote code ({remote.split()[0]}), and stock classes may attend or "
            "pool otherwise. If they do not, pass recipe=Recipe(...); to run its code, also pass "
            "trust_remote_code=True"
        )


def _added_tokens(checkpoint: Checkpoint) -> set[str]:
    """Entries added to the vocabulary; families mark themselves by those."""
    path = checkpoint.tokenizer / "tokenizer.json"
    added = checkpoint.tokenizer_settings.get("added_tokens") or ()
    if not all(isinstance(one, dict) and isinstance(one.get("content"), str) for one in added):
        raise ValueError(f"{path}: added_tokens must be objects with a text as content")
    return {token["content"] for token in added}
