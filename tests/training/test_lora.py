"""Adapters on any decoder: where they lie, what is left out, and that merging them is exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.training_files import write_language_model
from transformers import (
    AutoModel,
    BloomConfig,
    DeepseekV3Config,
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen3MoeConfig,
)

from llm_embeddings.families.siblings import MEAN
from llm_embeddings.training.options import LoraOptions
from llm_embeddings.training.passes.encoding import Encoding
from llm_embeddings.training.presets import PRESETS
from llm_embeddings.training.weights.lora import Dropout, add_adapter, coverage, merged_state

LORA = LoraOptions(rank=2)
SHARED = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "pad_token_id": 0,
}
MOE = {"moe_intermediate_size": 8, "num_key_value_heads": 2, "num_experts_per_tok": 1}
DEEPSEEK = {
    "n_routed_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
}
# By name: the config, how many layers get an adapter, and what gets none.
DECODERS: dict[str, tuple[PretrainedConfig, str]] = {
    "GPT-NeoX": (GPTNeoXConfig(**SHARED), "8 of 8 linear layers"),
    "GPT-2": (
        GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2),
        "8 of 8 linear layers",
    ),
    "Falcon": (FalconConfig(**SHARED), "8 of 8 linear layers"),
    "Bloom": (
        BloomConfig(vocab_size=50, hidden_size=16, n_layer=2, n_head=2),
        "8 of 8 linear layers",
    ),
    "Phi-3": (Phi3Config(**SHARED, num_key_value_heads=1), "8 of 8 linear layers"),
    "Qwen3-MoE": (
        Qwen3MoeConfig(**SHARED, **MOE, num_experts=2, head_dim=8),
        "8 of 8 linear layers; left out: layers.*.mlp.experts.down_proj, "
        "layers.*.mlp.experts.gate_up_proj, layers.*.mlp.gate",
    ),
    "DeepSeek-V3": (
        DeepseekV3Config(**SHARED, **MOE, **DEEPSEEK),
        "10 of 16 linear layers; left out: layers.*.mlp.down_proj, "
        "layers.*.mlp.experts.down_proj, layers.*.mlp.experts.gate_up_proj, layers.*.mlp.gate, "
        "layers.*.mlp.gate_proj, layers.*.mlp.shared_experts.down_proj, "
        "layers.*.mlp.shared_experts.gate_proj, layers.*.mlp.shared_experts.up_proj, "
        "layers.*.mlp.up_proj",
    ),
}


def adapted(config: PretrainedConfig, lora: LoraOptions = LORA) -> torch.nn.Module:
    """A backbone with random adapters; new ones do nothing."""
    torch.manual_seed(0)
    backbone = AutoModel.from_config(config)
    add_adapter(backbone, lora, "base")
    for name, weight in backbone.named_parameters():
        if "lora_" in name:
            weight.data.normal_()
    return backbone.eval()


@pytest.mark.parametrize("name", DECODERS)
def test_all_linear_layers_are_adapted_and_merged(name: str) -> None:
    config, said = DECODERS[name]
    backbone = adapted(config)
    assert coverage(backbone) == f"adapters on {said}"
    trained = {n for n, weight in backbone.named_parameters() if weight.requires_grad}
    assert all("lora_" in name for name in trained)
    plain = AutoModel.from_config(config).eval()
    plain.load_state_dict(merged_state(backbone, None))
    ids = torch.tensor([[3, 7, 11]])
    found, wanted = (each(ids).last_hidden_state for each in (plain, backbone))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["Falcon", "Bloom"])
def test_dropout_of_attention_that_is_a_module_is_set(name: str) -> None:
    backbone = adapted(DECODERS[name][0])
    Encoding(backbone, MEAN, attention_dropout=0.25)  # type: ignore[arg-type]
    found = [m.p for n, m in backbone.named_modules() if n.endswith("attention_dropout")]
    assert found == [0.25, 0.25]


def test_layers_may_be_chosen_and_the_rest_is_named() -> None:
    chosen = LoraOptions(targets=("qkv_proj", "layers.1.self_attn.o_proj"))
    assert coverage(adapted(DECODERS["Phi-3"][0], chosen)) == (
        "adapters on 3 of 8 linear layers; left out: layers.*.mlp.down_proj, "
        "layers.*.mlp.gate_up_proj, layers.*.self_attn.o_proj"
    )


@pytest.mark.parametrize(("name", "target"), [("Phi-3", "q_proj"), ("DeepSeek-V3", "up_proj")])
def test_layers_that_are_not_there_are_refused(name: str, target: str) -> None:
    with pytest.raises(
        ValueError, match=rf"lora targets=\['{target}'\] names no linear layer .*o_proj"
    ):
        adapted(DECODERS[name][0], LoraOptions(targets=("o_proj", target)))
    with pytest.raises(ValueError, match="has no linear layer"):
        add_adapter(torch.nn.Embedding(2, 2), LORA, "base")  # type: ignore[arg-type]


def test_the_presets_layers_are_those_of_their_sources(tmp_path: Path) -> None:
    config = AutoModel.from_pretrained(write_language_model(tmp_path / "mistral")).config
    for name, values in PRESETS.items():
        said = coverage(adapted(config, values["lora"]))
        left = "; left out: layers.*.self_attn.k_proj" if name == "repllama" else ""
        count = 12 if left else 14
        assert said == f"adapters on {count} of 14 linear layers{left}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(dtype: torch.dtype) -> None:
    dropout, given = Dropout(0.3), torch.ones(333, 31, dtype=dtype, requires_grad=True)
    torch.manual_seed(0)
    found = dropout(given)
    torch.manual_seed(0)
    assert torch.equal(dropout(given), found), "computed again, a chunk has the same dropout"
    assert not torch.equal(dropout(given), found)
    assert found.dtype == dtype
    kept = found != 0
    assert kept.float().mean() == pytest.approx(0.7, abs=0.02)
    assert kept.float().mean(0).std() < 0.05
    torch.testing.assert_close(found[kept], (given / 0.7)[kept], rtol=1e-2, atol=0)
    found.sum().backward()
    assert given.grad is not None
    assert torch.equal(given.grad, found)
    assert torch.equal(dropout.eval()(given), given)


def test_an_adapter_has_that_dropout() -> None:
    backbone = AutoModel.from_config(DECODERS["GPT-2"][0])
    add_adapter(backbone, LoraOptions(rank=2, dropout=0.2), "base")
    found = [module.p for module in backbone.modules() if isinstance(module, Dropout)]
    assert found == [0.2] * 8
