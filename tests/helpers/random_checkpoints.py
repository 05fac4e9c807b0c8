"""Random tiny checkpoints as users make them, seeded: architectures, tokenizers, poolings, prompts.

`python -m scripts.differential 0 1000` compares all of them with sentence-transformers; the tests
compare a few.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, PreTrainedTokenizerFast

_WORDS = "the cat sat on a mat while rain fell over quiet hills and nobody spoke of it query"
TEXTS = [
    "the cat sat on a mat",
    "rain",
    "hills and nobody spoke of it while rain fell over quiet hills and the cat sat on a mat",
    "what is Capital",
    "query: x y z",
]
_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
}
_GROUPED = {**_SMALL, "num_key_value_heads": 2, "head_dim": 8}
_WINDOW = {**_GROUPED, "sliding_window": 6}
_GEMMA = {**_WINDOW, "query_pre_attn_scalar": 8}
# Config class and values; windows are shorter than texts, so that they show.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("AlbertConfig", {**_SMALL, "embedding_size": 32}),
    "bert": ("BertConfig", _SMALL),
    "cohere2": ("Cohere2Config", _WINDOW),
    "distilbert": (
        "DistilBertConfig",
        {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 130},
    ),
    "electra": ("ElectraConfig", {**_SMALL, "embedding_size": 32}),
    "exaone4": ("Exaone4Config", _WINDOW),
    "falcon": ("FalconConfig", _SMALL),
    "gemma": ("GemmaConfig", _GROUPED),
    "gemma2": ("Gemma2Config", _GEMMA),
    "gemma3": ("Gemma3TextConfig", _GEMMA),
    "gemma3 both ways": ("Gemma3TextConfig", {**_GEMMA, "use_bidirectional_attention": True}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 130}),
    "gpt_neox": ("GPTNeoXConfig", _SMALL),
    "llama": ("LlamaConfig", _GROUPED),
    "mistral": ("MistralConfig", _WINDOW),
    "modernbert": (
        "ModernBertConfig",
        {**_SMALL, "local_attention": 8, "global_attn_every_n_layers": 2},
    ),
    "mpnet": ("MPNetConfig", _SMALL),
    "olmo2": ("Olmo2Config", _GROUPED),
    "phi3": ("Phi3Config", _GROUPED),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", _GROUPED),
    "qwen3 with windows": (
        "Qwen3Config",
        {**_WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    ),
    "roberta": ("RobertaConfig", _SMALL),
    "smollm3": ("SmolLM3Config", _GROUPED),
    "xlm_roberta": ("XLMRobertaConfig", _SMALL),
}
_PROMPTS: tuple[dict[str, str], ...] = (
    {},
    {},
    {},
    {"query": "query: ", "document": "passage: "},
    {"query": "query: ", "passage": "the "},
    {"query": "what is "},
    {"document": "what is "},
    {"query": "Instruct: find it\nQuery: ", "clustering": "hills "},
)
_TURNED = ("gemma", "llama", "mistral", "phi3", "qwen2", "qwen3", "qwen3 with windows")


@dataclass(frozen=True)
class Made:
    """A checkpoint on disk.

    Attributes:
        path: In sentence-transformers' layout.
        words: What it is made of, for messages.
    """

    path: Path
    words: str


def make(seed: int, directory: Path, architecture: str | None = None) -> Made:
    """Write the checkpoint of a seed; a named architecture instead of a drawn one."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    draw = random.Random(seed)
    drawn = draw.choice(sorted(ARCHITECTURES))
    kind = architecture or drawn
    tokenizer, ends = _tokenizer(draw, pad_first="roberta" not in kind)
    name, values = ARCHITECTURES[kind]
    turned = {"is_causal": draw.random() < 0.5} if draw.random() < 0.3 else {}
    config = getattr(transformers, name)(
        **values,
        **(turned if kind in _TURNED else {}),
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    backbone: Any = AutoModel.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in backbone.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.2)
    backbone.save_pretrained(directory / "backbone")
    tokenizer.save_pretrained(directory / "backbone")
    transformer = Transformer(str(directory / "backbone"))
    prompts = draw.choice(_PROMPTS)
    if draw.random() < 0.5:
        transformer.max_seq_length = 60 if prompts else draw.choice([12, 40])
    mode = draw.choice(["mean", "cls", "lasttoken", "weightedmean"])
    whole = draw.random() < 0.7
    modules: list[Any] = [transformer, Pooling(32, pooling_mode=mode, include_prompt=whole)]
    if draw.random() < 0.6:
        modules.append(Normalize())
    default = draw.choice([None, *prompts])
    model = SentenceTransformer(
        modules=modules, prompts=prompts or None, default_prompt_name=default, device="cpu"
    )
    model.save(str(directory / "saved"), create_model_card=False)
    parts = (kind, turned, ends, mode, f"whole={whole}", prompts, f"default {default}")
    words = f"seed {seed}: {', '.join(map(str, parts))}"
    return Made(directory / "saved", words)


def _tokenizer(draw: random.Random, *, pad_first: bool) -> tuple[PreTrainedTokenizerFast, str]:
    """A small WordPiece tokenizer, and what it puts around a text."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>"]
    if not pad_first:  # where position ids are counted from the padding's
        marks = ["<s>", "[PAD]", "</s>", "[UNK]", "[CLS]", "[SEP]"]
    letters = [*string.ascii_lowercase, *string.ascii_uppercase, ":"]
    pieces = dict.fromkeys([*marks, *_WORDS.split(), *letters, *[f"##{c}" for c in letters]])
    numbers = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=draw.random() < 0.5)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def template(single: str) -> Any:
        used = [(mark, numbers[mark]) for mark in marks if mark in single]
        return processors.TemplateProcessing(
            single=single, pair=f"{single} $B", special_tokens=used
        )

    bert = processors.BertProcessing(("[SEP]", numbers["[SEP]"]), ("[CLS]", numbers["[CLS]"]))
    choices = {
        "BertProcessing": bert,
        "both ends": template("[CLS] $A [SEP]"),
        "EOS": template("$A </s>"),
        "BOS": template("<s> $A"),
        "nothing": None,
    }
    ends = draw.choice(sorted(choices))
    if choices[ends] is not None:
        backend.post_processor = choices[ends]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        bos_token="<s>",
        eos_token="</s>",
        padding_side=draw.choice(["left", "right"]),
        model_max_length=draw.choice([64, 128, int(1e30)]),
    )
    return tokenizer, ends
