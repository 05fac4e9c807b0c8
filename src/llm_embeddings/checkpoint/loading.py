"""A hub id or a directory -> backbone and tokenizer, checked. Knows recipes, not texts.

transformers owns the backbones: stock classes, safetensors only, no remote code unless asked. What
it would only warn about (weights that are missing, an adapter that does not fit) is an error here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedTokenizerFast

from ..arithmetic.dtype import default_device, resolve_dtype
from ..recipe import Recipe
from ..tokens import special_id, tokenize
from ..vectors import Vectors
from . import sidecar
from .adapters import apply_adapters
from .checks import check_attention, embedding_rows
from .detect import named, settle
from .files import Source, check_safetensors, find, read_json, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How weights are placed; each is what transformers' `from_pretrained` takes."""

    device: str | torch.device | None = None
    dtype: str | torch.dtype = "auto"
    attn_implementation: str | None = None
    quantization: Any = None
    device_map: str | Mapping[str, Any] | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checkpoint in memory."""

    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    recipe: Recipe
    ranges: dict[tuple[int, bool], Vectors]


def load(
    model: str,
    wanted: Recipe | str | None,
    adapters: Sequence[str | Path],
    source: Source,
    options: LoadOptions,
) -> Loaded:
    """Find the recipe and the files, load the weights and merge the adapters in order.

    Raises:
        FileNotFoundError: a directory, repository, base or weight file is missing.
        ValueError: no recipe, weights that are incomplete, corrupt or of another shape, or a token
            the recipe needs is missing.
    """
    recipe = named(model, wanted)  # names are refused before anything is fetched
    directory = find(model, source)
    saved = sidecar.read(directory) if wanted is None else None
    if saved is not None:
        recipe = saved.recipe
    checkpoint = resolve(directory, adapters, source, base=recipe.base if recipe else None)
    check_weights(checkpoint.root)
    trusted = isinstance(wanted, Recipe)
    recipe = settle(model, directory, checkpoint, recipe, trusted=trusted)
    tokenizer = load_tokenizer(checkpoint.tokenizer)
    check_tokens(tokenizer, recipe)  # again in `prepare`, but here before the weights are read
    backbone = load_backbone(checkpoint.root, recipe, options)
    if checkpoint.adapters:
        quantized = getattr(backbone, "hf_quantizer", None) is not None
        backbone = apply_adapters(backbone, checkpoint.adapters, merge=not quantized)
    ranges = saved.ranges if saved is not None and not adapters else {}
    return Loaded(backbone, tokenizer, recipe, ranges)


def prepare(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    """Make a loaded backbone serve the recipe, and check that it does."""
    check_tokens(tokenizer, recipe)
    set_direction(backbone.config, recipe)
    if not recipe.causal:
        for module in backbone.modules():
            if getattr(module, "sliding_window", None):
                setattr(module, "sliding_window", None)  # noqa: B010
    backbone.eval()
    rows = embedding_rows(backbone)
    vocabulary = tokenizer.get_vocab()
    needed = [vocabulary[token] for token in recipe.required_tokens]
    if max([*needed, 0]) >= rows:
        raise ValueError(
            f"recipe {recipe.name!r} needs the token id {max(needed)}, and the model has {rows} "
            "embedding rows: tokenizer and weights are not of one checkpoint"
        )
    check_attention(backbone, recipe)


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The directory's own tokenizer.json.

    `AutoTokenizer` of transformers 5 rebuilds Llama tokenizers and changes ids at leading spaces
    and after special tokens, so it is not used.
    """
    if not (directory / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{directory} has no tokenizer.json. Convert the tokenizer once with "
            "AutoTokenizer.from_pretrained(...).save_pretrained(...) and compare its ids"
        )
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def check_tokens(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    """BOS, EOS and the recipe's own tokens must exist, and a text must leave something to pool.

    Raises:
        ValueError: one does not; the message names it.
    """
    for token in recipe.required_tokens:
        ids = tokenizer(token, add_special_tokens=False)["input_ids"]
        if tokenizer.backend_tokenizer.token_to_id(token) is None or len(ids) > 1:
            raise ValueError(
                f"recipe {recipe.name!r} needs the token {token!r}, which this tokenizer does not "
                "have: this is not a checkpoint of that family"
            )
    bos = special_id(tokenizer, recipe.bos, "bos")
    eos = special_id(tokenizer, recipe.eos, "eos")
    for role, template in (("query", recipe.query), ("document", recipe.document)):
        row = tokenize(tokenizer, recipe, ["text"], role)[0]  # type: ignore[arg-type]
        first_and_last = (bos in (None, row.ids[0])) and (eos in (None, row.ids[-1]))
        if not first_and_last or not row.start < len(row.ids):
            raise ValueError(f"recipe {recipe.name!r}: the {role} template {template} does not fit")


def set_direction(config: PretrainedConfig, recipe: Recipe) -> None:
    """Write the attention direction into the backbone's own config.

    transformers >= 5.2 reads `is_causal` from there on every forward. The references ignore the
    sliding window when they attend in both directions, so it goes; causal recipes keep it.
    """
    config.is_causal = recipe.causal
    config.use_cache = False
    if recipe.causal:
        return
    kinds = getattr(config, "layer_types", None)
    if kinds and "sliding_attention" in kinds:
        # Wider than any text, not another kind of layer: Gemma 3 rotates the kinds differently.
        config.sliding_window = config.max_position_embeddings
    elif not kinds and getattr(config, "sliding_window", None):
        config.sliding_window = None


def load_backbone(directory: Path, recipe: Recipe, options: LoadOptions) -> PreTrainedModel:
    """The decoder without its head, in evaluation mode, on its device."""
    config = AutoConfig.from_pretrained(
        directory, trust_remote_code=options.trust_remote_code, local_files_only=True
    )
    if not options.trust_remote_code:
        vars(config).pop("auto_map", None)  # stock classes serve it, and are what is saved
    set_direction(config, recipe)
    device = torch.device(options.device or default_device())
    dtype = resolve_dtype(options.dtype, config, directory, device)
    try:
        with _without_load_report():
            backbone, report = AutoModel.from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                attn_implementation=options.attn_implementation,
                quantization_config=options.quantization,
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
    if options.device_map is None and options.quantization is None:
        backbone = backbone.to(device)
    return backbone  # type: ignore[no-any-return]


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
        if report[problem]:
            names = ", ".join(sorted(map(str, report[problem]))[:3])
            raise ValueError(
                f"{directory}: {len(report[problem])} weights of {type(backbone).__name__} are "
                f"{problem.removesuffix('_keys')} ({names}, ...): the checkpoint is incomplete or "
                "of another architecture"
            )


def check_weights(directory: Path) -> None:
    """Every shard must be there and readable.

    Raises:
        FileNotFoundError: no weights, only .bin weights, or a missing shard.
        ValueError: a file is not a whole safetensors file.
    """
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index)["weight_map"].values()))
    elif (directory / "model.safetensors").is_file():
        shards = ["model.safetensors"]
    else:
        binary = any(directory.glob("*.bin"))
        raise FileNotFoundError(
            f"{directory} has only .bin weights, which can run code when read. Convert them once: "
            "AutoModel.from_pretrained(path).save_pretrained(new_path) writes safetensors"
            if binary
            else f"{directory} holds no model: no model.safetensors and no index of shards"
        )
    missing = [shard for shard in shards if not (directory / shard).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{directory} lacks {len(missing)} of {len(shards)} weight files "
            f"({', '.join(missing)}): the download is incomplete, fetch it again"
        )
    for shard in shards:
        check_safetensors(directory / shard)
