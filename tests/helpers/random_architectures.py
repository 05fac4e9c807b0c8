"""Tiny random backbones of the architectures that people embed with."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

POSITIONS = 130
_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}
_GROUPED = {**_SMALL, "num_key_value_heads": 2, "head_dim": 8}
_WINDOW = {**_GROUPED, "sliding_window": 6}
_GEMMA = {**_WINDOW, "query_pre_attn_scalar": 8}
_EXPERTS = {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_MODERNBERT = {**_SMALL, "local_attention": 8, "global_attn_every_n_layers": 2}
_ROTARY = {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}
_YARN = {
    "rope_parameters": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "rope_theta": 10000.0,
    }
}
_LLAMA3 = {
    "rope_parameters": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
        "rope_theta": 500.0,
    }
}


@dataclass(frozen=True)
class Architecture:
    """One kind of backbone.

    Attributes:
        config: Config class in transformers.
        values: What makes it small; windows are shorter than texts, so that they show.
        head: Class that carries a head as well, "" where none is common.
        turned: Whether `is_causal` in its config is a switch.
        pads: Whether positions are counted from the padding's id, which must be 1 then.
        attention: Names of attention projections, for adapters.
        feed_forward: Names of other linear layers.
    """

    config: str
    values: dict[str, Any] = field(default_factory=dict)
    head: str = ""
    turned: bool = False
    pads: bool = False
    attention: tuple[str, ...] = ("q_proj", "v_proj")
    feed_forward: tuple[str, ...] = ("up_proj", "down_proj")


def _decoder(config: str, values: dict[str, Any], **more: Any) -> Architecture:
    name = config.removesuffix("TextConfig").removesuffix("Config")
    return Architecture(config, values, f"{name}ForCausalLM", **more)


def _encoder(config: str, values: dict[str, Any], **more: Any) -> Architecture:
    names = {"attention": ("query", "value"), "feed_forward": ("dense",)} | more
    return Architecture(config, values, f"{config.removesuffix('Config')}ForMaskedLM", **names)


ARCHITECTURES: dict[str, Architecture] = {
    "albert": _encoder("AlbertConfig", {**_SMALL, "embedding_size": 32}),
    "bert": _encoder("BertConfig", _SMALL),
    "bloom": _decoder(
        "BloomConfig",
        {"hidden_size": 32, "n_layer": 2, "n_head": 4},
        attention=("query_key_value",),
        feed_forward=("dense_h_to_4h",),
    ),
    "cohere2": _decoder("Cohere2Config", _WINDOW),
    "deberta_v2": _encoder(
        "DebertaV2Config",
        {
            **_SMALL,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
        },
        attention=("query_proj", "value_proj"),
    ),
    "distilbert": _encoder(
        "DistilBertConfig",
        {
            "dim": 32,
            "hidden_dim": 48,
            "n_layers": 2,
            "n_heads": 4,
            "max_position_embeddings": POSITIONS,
        },
        attention=("q_lin", "v_lin"),
        feed_forward=("lin1",),
    ),
    "electra": Architecture(
        "ElectraConfig",
        {**_SMALL, "embedding_size": 16},
        attention=("query", "value"),
        feed_forward=("dense",),
    ),
    "ernie4_5": _decoder("Ernie4_5Config", _GROUPED),
    "eurobert": _encoder(
        "EuroBertConfig",
        _GROUPED,
        attention=("q_proj", "v_proj"),
        feed_forward=("up_proj", "down_proj"),
    ),
    "exaone4": _decoder("Exaone4Config", _WINDOW),
    "falcon": _decoder(
        "FalconConfig",
        _SMALL,
        attention=("query_key_value",),
        feed_forward=("dense_h_to_4h",),
    ),
    "gemma": _decoder("GemmaConfig", _GROUPED, turned=True),
    "gemma2": _decoder("Gemma2Config", _GEMMA),
    "gemma3": _decoder("Gemma3TextConfig", _GEMMA),
    "gemma3 both ways": _decoder(
        "Gemma3TextConfig", {**_GEMMA, "use_bidirectional_attention": True}
    ),
    "gemma3 with layer types": _decoder(
        "Gemma3TextConfig",
        {
            **_GEMMA,
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "use_bidirectional_attention": True,
        },
    ),
    "glm4": _decoder(
        "Glm4Config", {**_GROUPED, "partial_rotary_factor": 0.5}, feed_forward=("down_proj",)
    ),
    "gpt2": Architecture(
        "GPT2Config",
        {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": POSITIONS},
        "GPT2LMHeadModel",
        attention=("c_attn",),
        feed_forward=("c_fc",),
    ),
    "gpt_neox": _decoder(
        "GPTNeoXConfig",
        _SMALL,
        attention=("query_key_value",),
        feed_forward=("dense_h_to_4h",),
    ),
    "granite": _decoder(
        "GraniteConfig",
        {**_GROUPED, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    ),
    "helium": _decoder("HeliumConfig", _GROUPED),
    "llama": _decoder("LlamaConfig", _GROUPED, turned=True),
    "llama with biases": _decoder(
        "LlamaConfig", {**_GROUPED, "attention_bias": True, "mlp_bias": True}
    ),
    "llama with linear positions": _decoder("LlamaConfig", {**_GROUPED, **_ROTARY}),
    "llama 3": _decoder("LlamaConfig", {**_GROUPED, **_LLAMA3}),
    "ministral3": _decoder("Ministral3Config", _WINDOW),
    "mistral": _decoder("MistralConfig", _WINDOW, turned=True),
    "mistral without a window": _decoder(
        "MistralConfig", {**_GROUPED, "sliding_window": None}, turned=True
    ),
    "mixtral": _decoder(
        "MixtralConfig",
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
        feed_forward=("o_proj",),
    ),
    "modernbert": _encoder(
        "ModernBertConfig", _MODERNBERT, attention=("Wqkv",), feed_forward=("Wi", "Wo")
    ),
    "modernbert everywhere": _encoder(
        "ModernBertConfig",
        {**_MODERNBERT, "global_attn_every_n_layers": 1, "norm_bias": True, "attention_bias": True},
        attention=("Wqkv",),
        feed_forward=("Wi", "Wo"),
    ),
    "mpnet": _encoder("MPNetConfig", _SMALL, pads=True, attention=("q", "v")),
    "nemotron": _decoder("NemotronConfig", _GROUPED),
    "nomic_bert": _encoder(
        "NomicBertConfig", _SMALL, attention=("q_proj",), feed_forward=("down_proj",)
    ),
    "olmo2": _decoder("Olmo2Config", _GROUPED),
    "olmo3": _decoder("Olmo3Config", _WINDOW),
    "opt": _decoder(
        "OPTConfig",
        {
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": POSITIONS,
            "word_embed_proj_dim": 32,
        },
        feed_forward=("fc1",),
    ),
    "phi": _decoder("PhiConfig", _SMALL, feed_forward=("fc1",)),
    "phi3": _decoder(
        "Phi3Config",
        _GROUPED,
        turned=True,
        attention=("qkv_proj",),
        feed_forward=("gate_up_proj",),
    ),
    "qwen2": _decoder("Qwen2Config", _GROUPED, turned=True),
    "qwen2 with yarn": _decoder("Qwen2Config", {**_GROUPED, **_YARN}, turned=True),
    "qwen2_moe": _decoder("Qwen2MoeConfig", {**_EXPERTS, "shared_expert_intermediate_size": 16}),
    "qwen3": _decoder("Qwen3Config", _GROUPED, turned=True),
    "qwen3_moe": _decoder("Qwen3MoeConfig", _EXPERTS, feed_forward=("o_proj",)),
    "qwen3 with windows": _decoder(
        "Qwen3Config",
        {**_WINDOW, "use_sliding_window": True, "max_window_layers": 1},
        turned=True,
    ),
    "roberta": _encoder("RobertaConfig", _SMALL, pads=True),
    "smollm3": _decoder("SmolLM3Config", _GROUPED),
    "stablelm": _decoder("StableLmConfig", {**_SMALL, "num_key_value_heads": 4}),
    "starcoder2": _decoder("Starcoder2Config", _WINDOW, feed_forward=("c_fc",)),
    "t5": Architecture(
        "T5Config",
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
        attention=("q", "v"),
        feed_forward=("wo",),
    ),
    "xlm_roberta": _encoder("XLMRobertaConfig", _SMALL, pads=True),
}


def make_backbone(
    architecture: Architecture,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    *,
    rows: int,
    with_head: bool = False,
    **values: Any,
) -> PreTrainedModel:
    """A backbone with random weights, so large that every part of it shows in its vectors."""
    config = getattr(transformers, architecture.config)(
        **{**architecture.values, **values},
        vocab_size=rows,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    if with_head and architecture.head:
        model = getattr(transformers, architecture.head)(config)
    else:
        model = transformers.AutoModel.from_config(config, dtype=torch.float32)
    draw = random.Random(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.2)
            elif name.endswith("bias") and draw.random() < 0.5:
                weight.normal_(std=0.1)
    model.tie_weights()
    return model.eval()  # type: ignore[no-any-return]
