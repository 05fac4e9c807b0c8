"""A hub id or a directory -> a model: backbone, tokenizer and recipe. Knows no texts.

transformers owns the backbones: stock classes, safetensors only, no remote code unless asked. What
it would only warn about (weights that are missing, an adapter that does not fit) is an error here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoModel, PreTrainedTokenizerFast

from ..arithmetic.dtype import default_device
from ..arithmetic.memory import check_memory
from ..arithmetic.stored import leave_stored
from ..model import Model, vector_length
from ..recipe import Recipe
from ..vector_cache.origin import Origin
from ..vectors import Vectors
from . import sidecar
from .adapters import apply_adapters
from .bounds import check_config, check_links, check_size, reading_tokenizer
from .checks import attends_causally, check_token_types, check_tokens, set_direction
from .converting import dtypes, stock_class, to_convert
from .detect import is_observed, is_plain, named, settle
from .ends import stock_tokenizer, with_ends, without_foreign_bos
from .files import (
    Checkpoint,
    Source,
    check_weights,
    find,
    read_json,
    resolve,
    weight_names,
)
from .head_files import load_head, refuse_heads
from .int8_files import form_of, read_int8
from .module_files import (
    renders_messages,
    transformer_folder,
    transformer_settings,
)
from .options import LoadOptions
from .origins import origin_of
from .report import check_report, without_load_report
from .stock import read_config, text_part

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


_ENCODERS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}


def load(
    model: str | Path, options: LoadOptions, *, keep: bool = False
) -> tuple[Model, dict[tuple[int, bool], Vectors], Origin, sidecar.Form | None]:
    """Find the recipe and the files, load the weights and merge the adapters in order.

    Args:
        model: Hub id or directory.
        options: How it is loaded.
        keep: Let weights keep the dtype of their files, where passes can convert them.

    Returns:
        The model, its attention direction not checked yet; ranges of int8 and uint8 vectors,
        `[2, dim]` by (dim, normalize), as they lie beside the weights; the files of the weights,
        and their form if it is int8.

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
    for place in {directory, checkpoint.root, checkpoint.tokenizer, *checkpoint.adapters}:
        check_links(place)
    refuse_heads(checkpoint.adapters[len(checkpoint.adapters) - len(adapters) :])
    form = form_of(checkpoint, options)
    check_weights(checkpoint.root)
    trusted = isinstance(wanted, Recipe)
    recipe = settle(name, directory, checkpoint, recipe, trusted=trusted)
    # What nobody listed is what its own files make of it in the stock library, by asking that.
    observed = is_observed(recipe, wanted, saved)
    values = read_json(checkpoint.root / "config.json")
    check_config(values, checkpoint.root / "config.json", len(weight_names(checkpoint.root)))
    config = read_config(checkpoint.root, trust_remote_code=options.trust_remote_code)
    if not options.trust_remote_code and not values.get("quantization_config"):
        check_size(config, checkpoint.root)
    recipe, tokenizer = recipe_and_tokenizer(
        directory, checkpoint, recipe, observed=observed, plain=is_plain(recipe, wanted, saved)
    )
    check_tokens(tokenizer, recipe)  # before any weight is read; `prepare` repeats it
    origin = origin_of(checkpoint, config_of(options.quantization))
    keep = keep and not checkpoint.adapters  # which are merged in the dtype of passes
    if form is not None:
        backbone = read_int8(checkpoint.root, directed(config, recipe), options)
    else:
        backbone = load_backbone(checkpoint.root, config, recipe, options, keep=keep)
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
    return Model(backbone, tokenizer, recipe, head), ranges, origin, form


def recipe_and_tokenizer(
    directory: Path, checkpoint: Checkpoint, recipe: Recipe, *, observed: bool, plain: bool
) -> tuple[Recipe, PreTrainedTokenizerFast]:
    """The tokenizer, and the recipe with the ends that it puts where only its behaviour says so."""
    asked = recipe.bos is None, recipe.eos is None
    lower = bool(transformer_settings(directory)[1].get("do_lower_case"))
    if not observed and not any(asked):
        settings = checkpoint.tokenizer_settings
        tokenizer = load_tokenizer(checkpoint.tokenizer, lower=lower, settings=settings)
        return (without_foreign_bos(recipe, tokenizer) if plain else recipe), tokenizer
    with reading_tokenizer(checkpoint.tokenizer, checkpoint.tokenizer_settings):
        stock = stock_tokenizer(checkpoint.tokenizer)
    tokenizer = _ready(stock, lower=lower)
    if observed and renders_messages(directory):
        return recipe, tokenizer
    found = with_ends(recipe, checkpoint.tokenizer, tokenizer)
    if observed:
        return found, tokenizer
    bos, eos = (found.bos if asked[0] else recipe.bos), (found.eos if asked[1] else recipe.eos)
    return recipe.replace(bos=bos, eos=eos), tokenizer


def load_tokenizer(
    directory: Path, *, lower: bool = False, settings: Mapping[str, Any] | None = None
) -> PreTrainedTokenizerFast:
    """The directory's own tokenizer.json.

    `AutoTokenizer` of transformers 5 rebuilds Llama tokenizers and changes ids at leading spaces
    and after special tokens, so it is not used.

    Args:
        directory: Holds the tokenizer.
        lower: Lower case before anything else, as sentence-transformers' `do_lower_case`.
        settings: What tokenizer.json says, if it has been read.

    Raises:
        FileNotFoundError: there is no tokenizer.json.
    """
    if not (directory / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{directory} has no tokenizer.json. Convert the tokenizer once with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...) and compare its ids"
        )
    if settings is None:
        settings = read_json(directory / "tokenizer.json")
    with reading_tokenizer(directory, settings):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    return _ready(tokenizer, lower=lower)


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
    directory: Path,
    config: PretrainedConfig,
    recipe: Recipe,
    options: LoadOptions,
    *,
    keep: bool = False,
) -> PreTrainedModel:
    """The model without its head, in evaluation mode, on its device.

    It attends as its config says; a recipe that drops the window turns it before. Arguments as
    for `load`.
    """
    part = text_part(config)
    if part is None and getattr(config, "hidden_size", None) is None:
        raise ValueError(
            f"{directory} is a {config.model_type!r} model, whose config names no hidden_size of "
            "its own (it may be multi-modal): save its text model alone and load that"
        )
    if not options.trust_remote_code:
        vars(config).pop("auto_map", None)  # stock classes serve it, and are what is saved
    config = directed(config, recipe)
    device = torch.device(options.device or default_device())
    kept, computed = dtypes(directory, config, options, device, keep=keep)
    backbone = _read(directory, config, options, kept or computed, device)
    backbone.name_or_path = backbone.config.name_or_path = str(directory)
    backbone = backbone if part is None else getattr(backbone, part)
    if options.device_map is None and config_of(options.quantization) is None:
        backbone = backbone.to(device)
    if kept and (kept != computed or options.quantization is not None):
        leave_stored(backbone, computed, once=options.quantization is not None)
    return backbone  # type: ignore[no-any-return]


def directed(config: PretrainedConfig, recipe: Recipe) -> PretrainedConfig:
    """The config of a backbone to be made, without the window that its recipe drops."""
    if recipe.window == "drop":
        set_direction(config, recipe)
    return config


def _read(
    directory: Path,
    config: PretrainedConfig,
    options: LoadOptions,
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """The model with the weights of its files in a dtype, each of them in its place."""
    class_, stored = _class_of(config), None
    if device.type == "cpu" and options.device_map is None:
        if options.quantization is None:
            check_memory(directory, dtype)
        if (stock := stock_class(class_, config)) is not None:
            stored = to_convert(directory, dtype)
            class_ = class_ if stored is None else stock
    try:
        with without_load_report():
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
        if isinstance(error, torch.OutOfMemoryError):
            raise
        fit = "mismatched" in str(error) or "size mismatch" in str(error)
        what = "do not fit its config.json" if fit else "cannot be loaded"
        raise ValueError(f"the weights in {directory} {what}: {error}") from error
    check_report(report, backbone, directory)
    return backbone


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
