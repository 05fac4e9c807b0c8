"""A hub id or a directory -> a model: backbone, tokenizer and recipe. Knows no texts.

transformers owns the backbones: stock classes, safetensors only, no remote code unless asked. What
it would only warn about (weights that are missing, an adapter that does not fit) is an error here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoModel, PreTrainedTokenizerFast

from ..arithmetic.dtype import default_device, resolve_dtype
from ..arithmetic.memory import check_memory
from ..families import siblings
from ..model import Model, vector_length
from ..recipe import Recipe
from ..vectors import Vectors
from . import sidecar
from .adapters import apply_adapters
from .checks import attends_causally, check_token_types, check_tokens, set_direction
from .converting import stock_class, to_convert
from .detect import named, settle
from .ends import stock_tokenizer, with_ends, without_foreign_bos
from .files import Checkpoint, Source, check_weights, find, resolve
from .head_files import load_head
from .module_files import (
    SENTENCE_TRANSFORMERS,
    renders_messages,
    transformer_folder,
    transformer_settings,
)
from .options import LoadOptions
from .stock import read_config, text_part

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


_ENCODERS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
_NEVER_RUN = ("pooler.", "contact_head.")  # give another output than the hidden states
_HEADS = ("cls", "lm_head", "classifier", "score", "qa_outputs", "generator_predictions")
# Tables that older versions of transformers saved beside the weights.
_BUFFERS = ("position_ids", "inv_freq", "masked_bias", "attn.bias", "attention.bias")


def load(model: str | Path, options: LoadOptions) -> tuple[Model, dict[tuple[int, bool], Vectors]]:
    """Find the recipe and the files, load the weights and merge the adapters in order.

    Returns:
        The model, its attention direction not checked yet, and ranges of int8 and uint8 vectors,
        `[2, dim]` by (dim, normalize), as they lie beside the weights.

    Raises:
        FileNotFoundError: a directory, repository, base or weight file is missing.
        ValueError: no recipe, weights that are incomplete, corrupt or of another shape, or a token
            the recipe needs is missing.
    """
    name, wanted, adapters = str(model), options.recipe, options.adapters or ()
    source = Source(options.revision, options.token, options.cache_dir, options.local_files_only)
    recipe = named(name, wanted)  # names are refused before anything is fetched
    directory = find(name, source)
    saved = sidecar.read(directory) if wanted is None else None
    if saved is not None:
        recipe = saved.recipe
    inner = transformer_folder(directory)
    checkpoint = resolve(inner, adapters, source, base=recipe.base if recipe else None)
    check_weights(checkpoint.root)
    trusted = isinstance(wanted, Recipe)
    recipe = settle(name, directory, checkpoint, recipe, trusted=trusted)
    # What nobody listed is what its own files make of it in the stock library, by asking that.
    observed = is_observed(recipe, wanted, saved)
    config = read_config(checkpoint.root, trust_remote_code=options.trust_remote_code)
    recipe, tokenizer = recipe_and_tokenizer(
        directory, checkpoint, recipe, observed=observed, plain=is_plain(recipe, wanted, saved)
    )
    check_tokens(tokenizer, recipe)  # before any weight is read; `prepare` repeats it
    backbone = load_backbone(checkpoint.root, config, recipe, options)
    if checkpoint.adapters:
        quantized = getattr(backbone, "hf_quantizer", None) is not None
        backbone = apply_adapters(backbone, checkpoint.adapters, merge=not quantized)
    if observed:
        check_token_types(backbone, tokenizer)
        recipe = recipe.replace(causal=attends_causally(backbone.eval()))
    ranges = saved.ranges if saved is not None and not adapters else {}
    width = vector_length(recipe.replace(heads=()), backbone.config)
    head = load_head(directory, recipe, width)
    if head is not None:
        head = head.to(backbone.device)
    return Model(backbone, tokenizer, recipe, head), ranges


def is_observed(recipe: Recipe, wanted: Recipe | str | None, saved: sidecar.Sidecar | None) -> bool:
    """Whether only the checkpoint's own files say how it embeds."""
    return recipe.family == SENTENCE_TRANSFORMERS and wanted is None and saved is None


def is_plain(recipe: Recipe, wanted: Recipe | str | None, saved: sidecar.Sidecar | None) -> bool:
    """Whether a recipe for any decoder was asked for by name, and is to be fitted to this one."""
    family = siblings.MEAN.family
    return recipe.family == family and saved is None and not isinstance(wanted, Recipe)


def recipe_and_tokenizer(
    directory: Path, checkpoint: Checkpoint, recipe: Recipe, *, observed: bool, plain: bool
) -> tuple[Recipe, PreTrainedTokenizerFast]:
    """The tokenizer, and the recipe with the ends that it puts where only its behaviour says so."""
    asked = recipe.bos is None, recipe.eos is None
    lower = bool(transformer_settings(directory)[1].get("do_lower_case"))
    if not observed and not any(asked):
        tokenizer = load_tokenizer(checkpoint.tokenizer, lower=lower)
        return (without_foreign_bos(recipe, tokenizer) if plain else recipe), tokenizer
    tokenizer = _ready(stock_tokenizer(checkpoint.tokenizer), lower=lower)
    if observed and renders_messages(directory):
        return recipe, tokenizer
    found = with_ends(recipe, checkpoint.tokenizer, tokenizer)
    if observed:
        return found, tokenizer
    bos, eos = (found.bos if asked[0] else recipe.bos), (found.eos if asked[1] else recipe.eos)
    return recipe.replace(bos=bos, eos=eos), tokenizer


def load_tokenizer(directory: Path, *, lower: bool = False) -> PreTrainedTokenizerFast:
    """The directory's own tokenizer.json.

    `AutoTokenizer` of transformers 5 rebuilds Llama tokenizers and changes ids at leading spaces
    and after special tokens, so it is not used.

    Args:
        directory: Holds the tokenizer.
        lower: Lower case before anything else, as sentence-transformers' `do_lower_case`.

    Raises:
        FileNotFoundError: there is no tokenizer.json.
    """
    if not (directory / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{directory} has no tokenizer.json. Convert the tokenizer once with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...) and compare its ids"
        )
    return _ready(PreTrainedTokenizerFast.from_pretrained(directory), lower=lower)


def _ready(tokenizer: PreTrainedTokenizerFast, *, lower: bool) -> PreTrainedTokenizerFast:
    """Only asked for ids: whole texts, without padding."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    if lower:
        _lower(tokenizer.backend_tokenizer)
    return tokenizer


def _lower(backend: Any) -> None:
    """What sentence-transformers 6 does (`Transformer.__init__`): text alone, no special token."""
    from tokenizers import normalizers

    found = backend.normalizer
    steps: list[Any] = [found] if found is not None else []
    if isinstance(found, normalizers.Sequence):
        steps = list(cast(Iterable[Any], found))
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])


def load_backbone(
    directory: Path, config: PretrainedConfig, recipe: Recipe, options: LoadOptions
) -> PreTrainedModel:
    """The model without its head, in evaluation mode, on its device.

    It attends as its config says; a recipe that drops the window turns it before.
    """
    part = text_part(config)
    if part is None and getattr(config, "hidden_size", None) is None:
        raise ValueError(
            f"{directory} is a {config.model_type!r} model, whose config names no hidden_size of "
            "its own (it may be multi-modal): save its text model alone and load that"
        )
    if not options.trust_remote_code:
        vars(config).pop("auto_map", None)  # stock classes serve it, and are what is saved
    if recipe.window == "drop":
        set_direction(config, recipe)
    device = torch.device(options.device or default_device())
    dtype = resolve_dtype(options.dtype, config, directory, device)
    class_, stored = _class_of(config), None
    if device.type == "cpu" and options.device_map is None:
        if options.quantization is None:
            check_memory(directory, dtype)
        if (stock := stock_class(class_, config)) is not None:
            stored = to_convert(directory, dtype)
            class_ = class_ if stored is None else stock
    try:
        with _without_load_report():
            backbone, report = class_.from_pretrained(
                directory if stored is None else None,
                state_dict=stored,
                config=config,
                dtype=dtype,
                attn_implementation=options.attn_implementation,
                quantization_config=config_of(options.quantization),
                device_map=options.device_map,
                use_safetensors=True,
                trust_remote_code=options.trust_remote_code,
                local_files_only=True,
                output_loading_info=True,
            )
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"the weights in {directory} do not fit its config.json: {error}"
        ) from error
    _check_report(report, backbone, directory)
    backbone.name_or_path = backbone.config.name_or_path = str(directory)
    backbone = backbone if part is None else getattr(backbone, part)
    if options.device_map is None and config_of(options.quantization) is None:
        backbone = backbone.to(device)
    return backbone  # type: ignore[no-any-return]


def _class_of(config: PretrainedConfig) -> Any:
    """AutoModel, or the encoder alone of models that people embed with by that.

    Raises:
        ValueError: another model that reads by one half and writes by the other.
    """
    if config.model_type in _ENCODERS:
        return getattr(import_module("transformers"), _ENCODERS[config.model_type])
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"a {config.model_type!r} model has an encoder and a decoder; only the encoders of "
            f"{sorted(_ENCODERS)} can embed here"
        )
    return AutoModel


def config_of(quantization: Any) -> Any:
    """A transformers quantization config; None for "int8" and "fp8", which come after loading."""
    return None if isinstance(quantization, str) else quantization


@contextmanager
def _without_load_report() -> Iterator[None]:
    """No table of head weights that are not needed; `_check_report` judges instead."""

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _check_report(report: Mapping[str, Any], backbone: PreTrainedModel, directory: Path) -> None:
    """Raise where transformers fills in random numbers and only warns."""
    for problem in ("missing_keys", "mismatched_keys"):
        keys = [key for key in map(str, report[problem]) if not key.startswith(_NEVER_RUN)]
        if keys:
            names = ", ".join(sorted(keys)[:3])
            raise ValueError(
                f"{directory}: {len(keys)} weights of {type(backbone).__name__} are "
                f"{problem.removesuffix('_keys')} ({names}, ...): the checkpoint is incomplete or "
                "of another architecture"
            )
    parts = {name for name, _ in backbone.named_children()}
    lost = [key for key in map(str, report["unexpected_keys"]) if _belongs_inside(key, parts)]
    if lost:
        names = ", ".join(sorted(lost)[:3])
        raise ValueError(
            f"{directory}: {len(lost)} weights have no place in {type(backbone).__name__} as its "
            f"config.json describes it ({names}, ...): without them its vectors would be others. "
            "Mend the config, or merge what was trained (LoRA) before saving"
        )


def _belongs_inside(key: str, parts: set[str]) -> bool:
    """Whether a weight that the model does not know lies among its layers, unlike a head."""
    names = key.split(".")
    inside = any(name in parts for name in names[:2]) and names[0] not in _HEADS
    return inside and not key.endswith(_BUFFERS) and not key.startswith(_NEVER_RUN)
