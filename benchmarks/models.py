"""Random-weight checkpoints in the layouts of the published ones, with real tokenizers.

Speed does not depend on what the weights are, only on their shapes and dtype. Linear weights have
unit gain, so that attention and MLP move the hidden states as they do in a trained model, and a
wrong mask or prompt shows in the vectors that are compared before anything is timed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_embeddings import Encoder, Recipe, get_recipe

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".benchmarks"
GOLDEN = ROOT / "tests" / "golden"
E5_TOKENIZER = GOLDEN / "e5-mistral" / "model"
# With BOS and E5-Mistral's frame, 30 tokens.
INSTRUCTION = (
    "Given a question about a subject that is taught at school, retrieve passages from a textbook "
    "that answer it"
)
_MOST_POSITIONS = 32768
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_STAMP = "benchmark.json"


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a decoder."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


@dataclass(frozen=True, slots=True)
class Layout:
    """How a family's published checkpoints look.

    Attributes:
        name: The family.
        recipe_name: Hub id whose recipe is used.
        model_type: Of the config.
        dtype: What the published weights are stored in (their config.json).
        tokenizer: Golden case whose tokenizer files are copied.
        settings: Entries of the published config.json that decide something here.
    """

    name: str
    recipe_name: str
    model_type: str
    dtype: str
    tokenizer: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def recipe(self) -> Recipe:
        """How the checkpoint turns text into a vector; its queries stand behind 30 tokens."""
        recipe = get_recipe(self.recipe_name)
        return recipe.replace(instruction=INSTRUCTION) if recipe.instruction else recipe


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 64, 2, 4, 2, 128),
        Shape("small", 512, 8, 8, 4, 1536),
        Shape("medium", 1024, 16, 16, 8, 2816),
        Shape("7b", 4096, 32, 32, 8, 14336),  # Mistral-7B v0.1, config.json
    )
}

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "e5-mistral",
            "intfloat/e5-mistral-7b-instruct",
            "mistral",
            "float16",
            "e5-mistral/model",
            (("sliding_window", 4096),),
        ),
        Layout(
            "gritlm",
            "GritLM/GritLM-7B",
            "mistral",
            "bfloat16",
            "gritlm-7b/model",
            (("sliding_window", 4096),),
        ),
        Layout("llara", "BAAI/LLARA-passage", "llama", "float32", "e5-mistral/model"),
        Layout(
            "llm2vec",
            "McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp",
            "mistral",
            "bfloat16",
            "llm2vec-mistral/mntp",
            # llm2vec chooses the chat template by this name.
            (("_name_or_path", "mistralai/Mistral-7B-Instruct-v0.2"), ("sliding_window", None)),
        ),
    )
}


def checkpoint(shape: Shape, layout: Layout) -> Path:
    """The directory of a checkpoint; written where it does not lie yet."""
    directory = WORK / "models" / f"{shape.name}-{layout.name}"
    stamp = directory / _STAMP
    wanted = json.dumps({"shape": asdict(shape), "layout": asdict(layout)}, sort_keys=True)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    backbone = random_backbone(shape, layout, dtype=layout.dtype)
    backbone.save_pretrained(directory)
    write_tokenizer(layout, directory)
    _finish_config(directory, layout)
    stamp.write_text(wanted, encoding="utf-8")
    return directory


def exported(shape: Shape, layout: Layout) -> Path:
    """The same weights as plain sentence-transformers loads them: native modules, right ids.

    Raises:
        ValueError: native modules cannot express the layout's recipe.
    """
    source = checkpoint(shape, layout)
    directory = source.with_name(f"{source.name}-sentence-transformers")
    if not (directory / "modules.json").is_file() or (
        (directory / "modules.json").stat().st_mtime < (source / _STAMP).stat().st_mtime
    ):
        shutil.rmtree(directory, ignore_errors=True)
        encoder = Encoder.from_pretrained(source, recipe=layout.recipe, dtype=layout.dtype)
        encoder.export_sentence_transformers(directory)
    return directory


def random_backbone(
    shape: Shape, layout: Layout, *, dtype: str | torch.dtype, device: str = "cpu"
) -> PreTrainedModel:
    """A decoder with seeded random weights, made in float32 layer by layer and rounded."""
    import torch
    from transformers import AutoModel

    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    with torch.device("meta"):
        backbone: PreTrainedModel = AutoModel.from_config(config_of(shape, layout), dtype=dtype)
    backbone = backbone.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, weight in backbone.named_parameters():
            if weight.dim() == 1:  # norms
                weight.fill_(1.0)
                continue
            spread = 1.0 if "embed" in name else weight.shape[1] ** -0.5
            drawn = torch.empty(weight.shape, device=device)
            weight.copy_(drawn.normal_(0.0, spread, generator=generator))
    _restore_buffers(backbone, device)
    backbone.eval()
    return backbone


def _restore_buffers(backbone: PreTrainedModel, device: str) -> None:
    """Rotary frequencies are buffers, made by the constructor, which ran without memory."""
    rotary: Any = backbone.rotary_emb
    fresh = type(rotary)(config=backbone.config)
    backbone.rotary_emb = fresh.to(device)


def config_of(shape: Shape, layout: Layout) -> PretrainedConfig:
    """The config of a shape, in the layout's model type."""
    from transformers import AutoConfig

    settings = {key: value for key, value in layout.settings if not key.startswith("_")}
    config: PretrainedConfig = AutoConfig.for_model(
        layout.model_type,
        vocab_size=32000 + len(layout.recipe.required_tokens),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        max_position_embeddings=_MOST_POSITIONS,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        **settings,
    )
    return config


def write_tokenizer(layout: Layout, directory: Path) -> None:
    """Copy the golden case's tokenizer byte for byte; LLaRA's tokens are added to it."""
    source = GOLDEN / layout.tokenizer
    if not layout.recipe.required_tokens:
        for name in _TOKENIZER_FILES:
            shutil.copy(source / name, directory / name)
        return
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    tokenizer.add_special_tokens({"additional_special_tokens": [*layout.recipe.required_tokens]})
    tokenizer.save_pretrained(directory)


def _finish_config(directory: Path, layout: Layout) -> None:
    """Entries that transformers does not write: private names, and the dtype under its old name."""
    path = directory / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values |= {key: value for key, value in layout.settings if key.startswith("_")}
    values["torch_dtype"] = layout.dtype
    # transformers 4 reads the base of the rotary embedding here.
    values["rope_theta"] = values.get("rope_parameters", {}).get("rope_theta", 10000.0)
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
