"""A GGUF file of llama.cpp -> a model, through transformers' own reader.

The file holds numbers, a config and mostly a tokenizer, but nothing about how texts become vectors.
Its blocks are unpacked: what is computed is what their numbers say, in the dtype of the pass. What
transformers does not read of a file would be lost without a word, so it is refused here by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from ..arithmetic.dtype import default_device, resolve_dtype
from ..arithmetic.memory import check_values
from ..faces import require
from ..model import Model
from ..recipe import Recipe
from . import sidecar
from .checks import check_tokens
from .detect import is_plain, named
from .ends import without_foreign_bos
from .files import Checkpoint
from .loading import recipe_and_tokenizer
from .options import LoadOptions

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# The decoders whose metadata is known key by key; llama.cpp writes Mistral as "llama".
_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_KEYS = {
    "context_length",
    "block_count",
    "feed_forward_length",
    "embedding_length",
    "rope.dimension_count",
    "rope.freq_base",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.layer_norm_rms_epsilon",
    "vocab_size",
    "pooling_type",  # llama.cpp's own; here the recipe says it
}
_HEAD_SIZES = ("attention.key_length", "attention.value_length", "rope.dimension_count")
_HEAD = "output.weight"  # of the language model
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def gguf_of(model: str | Path) -> Path | None:
    """The GGUF file that a name stands for: itself, or the only model in a directory.

    Raises:
        ValueError: a directory with several, or one part of several.
    """
    path = Path(model).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        found = [path]
    elif path.is_dir() and not any(path.glob("*.safetensors")):
        found = sorted(path.glob("*.gguf"))
    else:
        return None
    if any(_PART.search(file.name) for file in found):
        raise ValueError(f"{found[0]} is one part of a model: merge it with llama-gguf-split")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(f"{path} holds several models ({names}): name one of the files")
    return found[0].resolve() if found else None


def load_gguf(file: Path, options: LoadOptions) -> Model:
    """Read a GGUF file; a tokenizer.json beside it goes before the tokenizer inside.

    Raises:
        FileNotFoundError: there is no tokenizer, inside or beside.
        ImportError: what transformers reads such files with is missing.
        ValueError: no recipe, an unknown architecture, or parts that would be lost.
    """
    found = read_gguf(file, options)
    check_tokens(found.tokenizer, found.recipe)
    backbone = _backbone(file, found.config, found.numbers, options)
    return Model(backbone, found.tokenizer, found.recipe)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What a GGUF file says beside its numbers.

    Attributes:
        recipe: The one that was named, fitted to the tokenizer.
        config: The decoder's.
        numbers: How many the decoder has.
        tokenizer: The one beside the file, else that inside.
    """

    recipe: Recipe
    config: PretrainedConfig
    numbers: int
    tokenizer: PreTrainedTokenizerFast


def read_gguf(file: Path, options: LoadOptions) -> GgufFile:
    """Read all of a GGUF file but its numbers; raises as `load_gguf`."""
    recipe, plain = _recipe(file, options)
    for package in ("gguf", "accelerate"):
        require(package, f"GGUF files need {package}", extra="gguf")
    config, numbers, split = _config(file)
    recipe, tokenizer = _tokenizer(file, recipe, split, plain=plain)
    return GgufFile(recipe, config, numbers, tokenizer)


def _recipe(file: Path, options: LoadOptions) -> tuple[Recipe, bool]:
    """The recipe that was named, and whether it is one for any decoder, to be fitted."""
    given = {
        "adapters": options.adapters,
        "device_map": options.device_map,
        "quantization": None if isinstance(options.quantization, str) else options.quantization,
    }
    for name, value in given.items():
        if value:
            raise ValueError(f"{name} is not for a GGUF file: load the original checkpoint")
    saved = sidecar.read(file.parent) if options.recipe is None else None
    recipe = saved.recipe if saved is not None else named(str(file), options.recipe)
    if recipe is None:
        raise ValueError(
            f"{file} does not say how it embeds (attention, pooling, template), as no GGUF file "
            "does: pass recipe=, the hub id of the original checkpoint or one of list_recipes()"
        )
    if recipe.heads:
        raise ValueError(f"recipe {recipe.name!r} has heads, which no GGUF file holds")
    return recipe, is_plain(recipe, options.recipe, saved)


def _config(file: Path) -> tuple[PretrainedConfig, int, str | None]:
    """The config of a file, how many numbers its decoder must have, and how its words are split.

    The last is llama.cpp's name of it; None = no byte-level vocabulary, whose pieces need none.
    """
    reader = require("gguf", "GGUF files need gguf", extra="gguf")
    try:
        opened = reader.GGUFReader(file)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{file} cannot be read as GGUF ({error}): fetch it again") from error
    fields = opened.fields
    kind = fields["general.architecture"].contents() if "general.architecture" in fields else None
    if kind not in _ARCHITECTURES:
        raise ValueError(
            f"{file} is of the architecture {kind!r}; those read here are "
            f"{', '.join(_ARCHITECTURES)}: load the original checkpoint"
        )
    own = {key.removeprefix(f"{kind}."): key for key in fields if key.startswith(f"{kind}.")}
    lost = sorted(own.keys() - _KEYS - set(_HEAD_SIZES))
    if lost:
        raise ValueError(
            f"{file} sets {', '.join(own[key] for key in lost)}, which transformers does not read: "
            "its vectors would be others. Load the original checkpoint"
        )
    config: PretrainedConfig = AutoConfig.from_pretrained(
        file.parent, gguf_file=file.name, local_files_only=True
    )
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for key in _HEAD_SIZES:
        if key in own and int(fields[own[key]].contents()) != size:
            raise ValueError(f"{file}: {own[key]} is not the {size} that transformers takes it for")
    kinds = {tensor.tensor_type.name for tensor in opened.tensors if len(tensor.shape) > 1}
    # Blocks hold their scales in float16.
    config.dtype = _DTYPES.get(kinds.pop(), torch.float16) if len(kinds) == 1 else torch.float16
    numbers = sum(math.prod(map(int, t.shape)) for t in opened.tensors if t.name != _HEAD)
    kind, split = (
        fields[key].contents() if (key := f"tokenizer.ggml.{name}") in fields else ""
        for name in ("model", "pre")
    )
    return config, numbers, split if kind == "gpt2" else None


def _tokenizer(
    file: Path, recipe: Recipe, split: str | None, *, plain: bool
) -> tuple[Recipe, PreTrainedTokenizerFast]:
    """The tokenizer, and the recipe fitted to it."""
    place = file.parent
    if (place / "tokenizer.json").is_file():
        beside = Checkpoint(place, (), place)
        return recipe_and_tokenizer(place, beside, recipe, observed=False, plain=plain)
    if recipe.bos is None or recipe.eos is None:
        raise ValueError(
            f"recipe {recipe.name!r} puts what the tokenizer's files put around a text, and {file} "
            "does not say that: put the original checkpoint's tokenizer files beside it"
        )
    try:
        found: Any = PreTrainedTokenizerFast.from_pretrained(
            place, gguf_file=file.name, local_files_only=True
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FileNotFoundError(
            f"{file} holds no tokenizer that can be read ({error}): put the tokenizer.json of the "
            "original checkpoint beside it"
        ) from error
    found.backend_tokenizer.no_truncation()
    found.backend_tokenizer.no_padding()
    if split == "smollm":  # each digit alone, then as GPT-2; transformers leaves the first out
        digits = pre_tokenizers.Digits(individual_digits=True)
        own = found.backend_tokenizer.pre_tokenizer
        found.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, own])
    elif split is not None and split not in _known_splits():
        raise ValueError(
            f"{file} splits words as {split!r}, which transformers does not know: its tokens would "
            "be others. Put the tokenizer.json of the original checkpoint beside it"
        )
    return without_foreign_bos(recipe, found) if plain else recipe, found


def _known_splits() -> Collection[str]:
    """llama.cpp's names of the ways to split words that this transformers follows."""
    try:
        from transformers.integrations.gguf import gguf_tokenizer_mapping as mapping
    except ImportError:  # versions before it went by the architecture
        return "gpt-2", "llama-bpe", "qwen2"
    return {"gpt-2", *mapping.GGUF_PRE_TOKENIZER_SPLITS}


def _backbone(
    file: Path, config: PretrainedConfig, numbers: int, options: LoadOptions
) -> PreTrainedModel:
    """The decoder with every number of the file in its place.

    Raises:
        ValueError: a tensor is missing, of another shape, or has no place.
    """
    device = torch.device(options.device or default_device())
    dtype = resolve_dtype(options.dtype, config, file.parent, device)
    if device.type == "cpu":
        check_values(numbers, dtype, file)
    unpack = getattr(transformers, "GgufConfig", None)  # versions without it always do
    backbone, report = AutoModel.from_pretrained(
        file.parent,
        gguf_file=file.name,
        config=config,
        dtype=dtype,
        quantization_config=unpack and unpack(dequantize=True),
        attn_implementation=options.attn_implementation,
        local_files_only=True,
        output_loading_info=True,
    )
    found = sum(weight.numel() for weight in backbone.parameters())
    wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if wrong or found != numbers:
        raise ValueError(
            f"{file} holds {numbers} numbers and {type(backbone).__name__} {found} "
            f"({', '.join(wrong[:3]) or 'some without a place'}): its vectors would be others. "
            "Load the original checkpoint"
        )
    # Its weights are plain ones, which can be saved, trained and take adapters.
    backbone.hf_quantizer = None
    vars(backbone.config).pop("quantization_config", None)
    backbone.name_or_path = str(file)
    return backbone.to(device)  # type: ignore[no-any-return]
