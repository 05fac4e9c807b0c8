"""Int8 layers against the layers they were made from, on tiny models of every supported family."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import BUNDLED, compiles
from torch import nn
from transformers import AutoModel, PreTrainedModel

from llm_embeddings import Encoder
from llm_embeddings.arithmetic import quantization
from llm_embeddings.arithmetic.int8 import Int8GatedMlp, Int8Linear
from llm_embeddings.arithmetic.quantization import quantization_of, quantize, sample_cosine
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.corpus import load_corpus

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
}
FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Phi3", "Gemma")


def model(family: str, dtype: torch.dtype = torch.float32, **options: Any) -> PreTrainedModel:
    """Random weights that keep unit scale through the layers, and biases that matter."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES | options)
    backbone: PreTrainedModel = AutoModel.from_config(config).eval()
    with torch.no_grad():
        backbone.get_input_embeddings().weight.normal_()
        for module in backbone.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5)
                if module.bias is not None:
                    module.bias.normal_()
    return backbone.to(dtype)


def states(backbone: PreTrainedModel, length: int = 24) -> torch.Tensor:
    ids = torch.arange(2 * length).reshape(2, length) % SIZES["vocab_size"]
    with torch.inference_mode():
        return backbone(input_ids=ids, use_cache=False).last_hidden_state.float()


def worst_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=-1).min())


def of_type(backbone: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in backbone.modules() if isinstance(module, kind)]


@pytest.mark.slow
@compiles
@pytest.mark.parametrize("family", FAMILIES)
def test_states_stay_close(family: str) -> None:
    backbone = model(family)
    plain = states(backbone)
    quantize(backbone, "int8")
    found = states(backbone)
    plain_left = {name for name, m in backbone.named_modules() if type(m) is nn.Linear}
    assert {name.rpartition(".")[2] for name in plain_left} <= {"v_proj"}
    assert len(of_type(backbone, Int8GatedMlp)) == SIZES["num_hidden_layers"]
    assert worst_cosine(plain, found) >= 0.999
    assert not torch.equal(plain, found)


@compiles
@pytest.mark.slow
def test_vectors_of_a_trained_model_stay_close() -> None:
    """Trained models have channels far larger than the rest, which random ones do not have."""
    encoder = Encoder.from_pretrained(dtype="float32")
    texts = [document.text[:300] for document in load_corpus()[::6]]
    plain = encoder.encode(texts)
    quantize(encoder.backbone, "int8")
    assert sample_cosine(plain, encoder.encode(texts)) >= 0.998


@pytest.mark.slow
@compiles
@pytest.mark.parametrize(("family", "option"), [("Qwen2", {}), ("Llama", {"mlp_bias": True})])
def test_biases_are_kept(family: str, option: dict[str, bool]) -> None:
    backbone = model(family, **option)
    plain = states(backbone)
    biases = {name: p.clone() for name, p in backbone.named_parameters() if "bias" in name}
    quantize(backbone, "int8")
    kept = {name: p for name, p in backbone.named_parameters() if "bias" in name}
    assert biases
    assert biases.keys() == kept.keys()
    assert all(torch.equal(biases[name], kept[name]) for name in biases)
    assert worst_cosine(plain, states(backbone)) >= 0.999


@compiles
def test_bfloat16_in_bfloat16_out_and_half_the_bytes() -> None:
    backbone = model("Llama", torch.bfloat16)
    layer = backbone.layers[0].self_attn.o_proj
    before = sum(p.nbytes for p in backbone.layers.parameters())
    plain = states(backbone)
    quantize(backbone, "int8")
    assert worst_cosine(plain, states(backbone)) >= 0.998  # bfloat16 alone: 0.9999
    assert sum(p.nbytes for p in backbone.layers.parameters()) < 0.6 * before
    weights = [module.weight for module in of_type(backbone, Int8Linear)]
    assert {weight.dtype for weight in weights} == {torch.int8}
    made = backbone.layers[0].self_attn.o_proj
    error = (made.weight * made.scale[:, None] - layer.weight.float()).abs().max(dim=1).values
    assert bool((error <= made.scale * 0.501).all())
    with torch.inference_mode():
        assert made(torch.randn(2, 3, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16


@compiles
def test_a_token_is_quantized_by_itself() -> None:
    backbone = model("Llama")
    quantize(backbone, "int8")
    layer = backbone.layers[0].self_attn.o_proj
    rows = torch.randn(7, 64)
    loud = torch.cat([rows, 1000 * rows])
    with torch.inference_mode():
        assert torch.equal(layer(rows), layer(loud)[:7])
        torch.testing.assert_close(layer(rows)[:1], layer(rows[:1]))
        torch.testing.assert_close(1000 * layer(rows), layer(loud)[7:])


@compiles
def test_an_input_is_not_taken_for_another() -> None:
    """q and k share one quantized input, only while it is the same tensor, and only once."""
    backbone = model("Llama")
    quantize(backbone, "int8")
    attention = backbone.layers[0].self_attn
    first, second = torch.randn(5, 64), torch.randn(5, 64)
    with torch.inference_mode():
        wanted = attention.k_proj(second)
        attention.q_proj(first)
        assert torch.equal(attention.k_proj(second), wanted)
        attention.q_proj(second)
        assert torch.equal(attention.k_proj(second), wanted)
        second.neg_()
        assert torch.equal(attention.k_proj(second), -wanted)


@compiles
def test_zeros_and_nan_stay_what_they_are() -> None:
    backbone = model("Llama")
    quantize(backbone, "int8")
    layer = backbone.layers[0]
    rows = torch.randn(3, 64)
    rows[0], rows[1, 5] = 0, float("nan")
    with torch.inference_mode():
        for module in (layer.self_attn.o_proj, layer.mlp):
            found = module(rows)
            assert not found[0].any()
            assert bool(found[1].isnan().all())
            assert bool(found[2].isfinite().all())


@compiles
def test_threads_and_copies_do_not_matter() -> None:
    backbone = model("Llama")
    quantize(backbone, "int8")
    wanted = {length: states(backbone, length) for length in (3, 24, 40)}
    copies = (backbone, copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone)))
    wrong: list[int] = []

    def work(length: int) -> None:
        for clone in copies:
            for _ in range(5):
                if not torch.equal(states(clone, length), wanted[length]):
                    wrong.append(length)

    threads = [threading.Thread(target=work, args=(length,)) for length in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@compiles
def test_sizes_are_compiled_once() -> None:
    """A service sees texts of any length: none of them may wait for a compiler."""
    from torch._dynamo.utils import counters

    small, large = model("Llama"), model("Llama", hidden_size=96, intermediate_size=224)
    quantize(small, "int8")
    states(small)
    counters.clear()
    quantize(large, "int8")
    for backbone in (small, large):
        for length in (1, 2, 32, 48, 64, 96):
            states(backbone, length)
        with torch.inference_mode():
            backbone(input_ids=torch.tensor([[1]]), use_cache=False)
    assert counters["stats"]["unique_graphs"] == 0


@compiles
def test_other_mlps_are_taken_layer_by_layer() -> None:
    class Squared(nn.Module):
        def __init__(self, mlp: Any) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = (
                mlp.gate_proj,
                mlp.up_proj,
                mlp.down_proj,
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down_proj(self.gate_proj(x).relu().square() * self.up_proj(x))

    backbone = model("Llama")
    for layer in backbone.layers:
        layer.mlp = Squared(layer.mlp)
    plain = states(backbone)
    quantize(backbone, "int8")
    assert of_type(backbone, Int8GatedMlp) == []
    assert worst_cosine(plain, states(backbone)) >= 0.998


@compiles
def test_experts_stay_as_they_are() -> None:
    backbone = model("Mixtral", num_local_experts=2)
    plain = states(backbone)
    quantize(backbone, "int8")
    assert len(of_type(backbone, Int8Linear)) == 3 * SIZES["num_hidden_layers"]
    assert worst_cosine(plain, states(backbone)) >= 0.999


@compiles
def test_quantized_backbone_is_marked_and_has_no_gradients() -> None:
    backbone = model("Llama")
    assert quantization_of(backbone) is None
    quantize(backbone, "int8")
    assert quantization_of(backbone) == "int8"
    assert not any(p.requires_grad for p in backbone.parameters())
    with pytest.raises(ValueError, match="quantized already"):
        quantize(backbone, "int8")


@pytest.mark.parametrize(
    ("kind", "message"),
    [("int4", "'int4' is not one of"), ("fp8", "'fp8' needs a CUDA device.*'int8'")],
)
def test_kinds_that_cannot_be(kind: Any, message: str) -> None:
    backbone = model("Llama")
    with pytest.raises(ValueError, match=message):
        quantize(backbone, kind)
    assert len(of_type(backbone.layers, nn.Linear)) == 14


def test_devices_that_cannot_be() -> None:
    backbone = model("Llama").to("meta")
    with pytest.raises(ValueError, match="'int8' runs on a CPU or on CUDA.*are on meta"):
        quantize(backbone, "int8")


def test_nothing_to_quantize() -> None:
    backbone = transformers.GPT2Model(transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ValueError, match="GPT2Model"):
        quantize(backbone, "int8")


def test_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(function: Any, *, dynamic: bool) -> Any:
        def broken(*_: Any) -> None:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

        return broken

    monkeypatch.setattr(torch, "compile", compile)
    backbone = model("Llama")
    with pytest.raises(RuntimeError, match=r"install g\+\+ and the headers of Python"):
        quantize(backbone, "int8")
    assert of_type(backbone, Int8Linear) == []
    assert all(p.requires_grad for p in backbone.parameters())


@pytest.fixture
def torchao(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A torchao that writes down what it is asked for."""
    asked: list[Any] = []
    fake: Any = ModuleType("torchao.quantization")
    fake.PerRow = lambda: "per row"
    fake.Int8DynamicActivationInt8WeightConfig = lambda: "int8 dynamic"
    fake.Float8DynamicActivationFloat8WeightConfig = lambda granularity: ("fp8", granularity)

    def quantize_(module: nn.Module, config: Any, *, filter_fn: Any) -> None:
        names = [name for name, child in module.named_modules() if filter_fn(child, name)]
        asked.append((module, config, names))

    fake.quantize_ = quantize_
    monkeypatch.setitem(sys.modules, "torchao", ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.quantization", fake)
    return asked


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, int]], None]:
    """Makes the CPU pass for a CUDA device of a compute capability."""

    def pretend(capability: tuple[int, int]) -> None:
        device = SimpleNamespace(type="cuda")
        monkeypatch.setattr(quantization, "_device", lambda *_: device)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)

    return pretend


@pytest.mark.parametrize(
    ("kind", "capability", "config"),
    [("int8", (8, 0), "int8 dynamic"), ("fp8", (9, 0), ("fp8", "per row"))],
)
def test_cuda_asks_torchao_for_the_layers_alone(
    kind: Any, capability: tuple[int, int], config: Any, torchao: list[Any], on_cuda: Any
) -> None:
    on_cuda(capability)
    backbone = model("Llama")
    quantize(backbone, kind)
    [(module, asked, names)] = torchao
    assert (module, asked) == (backbone.layers, config)
    assert len(names) == 6 * SIZES["num_hidden_layers"]
    assert not any("v_proj" in name for name in names)
    assert quantization_of(backbone) == kind


def test_fp8_needs_the_hardware(torchao: list[Any], on_cuda: Any) -> None:
    on_cuda((8, 0))
    with pytest.raises(ValueError, match=r"'fp8' needs compute capability 8.9.* 8\.0.*'int8'"):
        quantize(model("Llama"), "fp8")
    assert torchao == []


def test_missing_torchao_is_named(on_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cuda((9, 0))
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ImportError, match=r"pip install 'llm-embeddings\[quant\]'"):
        quantize(model("Llama"), "int8")


def test_sample_cosine_is_the_worst_row() -> None:
    before = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    after = np.array([[2.0, 0.0], [1.0, 1.0]], np.float32)
    assert sample_cosine(before, after) == pytest.approx(0.5**0.5)
    with pytest.raises(ValueError, match="shapes"):
        sample_cosine(before, after[:1])
    with pytest.raises(ValueError, match="shapes"):
        sample_cosine(before[:0], after[:0])


@compiles
@pytest.mark.slow
def test_an_encoder_says_how_close_it_stays() -> None:
    plain = Encoder.from_pretrained()
    encoder = Encoder.from_pretrained(quantization="int8")
    assert plain.quantization_cosine is None
    assert encoder.quantization_cosine is not None
    assert 0.998 < encoder.quantization_cosine < 1
    texts = [document.text for document in load_corpus()[:8]]
    cosines = np.diag(encoder.similarity(encoder.encode(texts), plain.encode(texts)))
    assert 0.998 < cosines.min() < 1
    assert encoder.fingerprint() != plain.fingerprint()
    assert encoder.packing == plain.packing


@compiles
@pytest.mark.slow
@pytest.mark.usefixtures("short_corpus")
def test_float_weights_go_while_integers_come(monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    quantize = Int8Linear.__init__

    def counted(self: Int8Linear, linear: nn.Linear, *args: Any, **options: Any) -> None:
        alive.append(sum(weight() is not None for weight in weights))
        weights.append(weakref.ref(linear.weight))
        quantize(self, linear, *args, **options)

    monkeypatch.setattr(Int8Linear, "__init__", counted)
    Encoder.from_pretrained(quantization="int8", device="cpu", dtype="bfloat16")
    assert len(weights) == 36
    assert max(alive) <= 2  # of the same gated MLP


@pytest.mark.parametrize(
    ("kind", "message"), [("int3", "is not one of"), ("int4", "four-bit weights. Pass a GGUF file")]
)
def test_kinds_are_checked_before_loading(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"quantization='{kind}' .*{message}"):
        Encoder.from_pretrained("no/such-model", quantization=kind)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(("width", "fits"), [(96, False), (128, True)])
def test_weights_in_4_bits_are_whole_blocks_on_a_cpu(
    width: int, fits: bool, stored: bool, tmp_path: Path
) -> None:
    """Of a model rounded when it is loaded, and of files that hold such weights."""
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: the extra qlora")
    rounding = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    sizes = {"vocab_size": 32000, "hidden_size": width, "intermediate_size": 128}
    model("Mistral", **sizes).save_pretrained(tmp_path)
    load_tokenizer(BUNDLED / "e5-mistral/model").save_pretrained(tmp_path)
    options: dict[str, Any] = {"quantization": rounding, "device_map": {"": "cpu"}}
    if stored:
        kept = AutoModel.from_pretrained(
            tmp_path, quantization_config=rounding, device_map={"": "cpu"}
        )
        kept.save_pretrained(tmp_path)
        options = {"device": "cpu"}
    if fits:
        encoder = Encoder.from_pretrained(tmp_path, recipe="mean", **options)
        assert type(encoder.backbone.layers[0].mlp.up_proj).__name__ == "Linear4bit"
        assert np.isfinite(encoder.encode("a stone")).all()
        return
    with pytest.raises(ValueError, match=r"q_proj is 96 wide, .* reads only multiples of 64 right"):
        Encoder.from_pretrained(tmp_path, recipe="mean", **options)
