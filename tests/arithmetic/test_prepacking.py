"""Prepacked linear layers: the same products, whatever happens to the weight; memory is asked."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import BUNDLED, assert_close
from torch import nn

from llm_embeddings import Encoder
from llm_embeddings.arithmetic import prepacking
from llm_embeddings.arithmetic.prepacking import PrepackedLinear, prepack, prepacked_bytes

E5 = BUNDLED / "e5-mistral/model"
GRITLM = BUNDLED / "gritlm-7b/model"
TEXTS = ["rain fell", "over quiet hills and far away", "nobody spoke of it"]


@pytest.fixture(autouse=True)
def works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepack on any processor that can."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(prepacking, "_works", lambda dtype: True)


def layer(dtype: torch.dtype = torch.float32, *, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40, bias=bias).to(dtype))


def check(prepacked: nn.Sequential, states: torch.Tensor) -> None:
    """The same as with the present weight, computed plainly."""
    with torch.no_grad():
        linear = prepacked[0]
        wanted = nn.functional.linear(states, linear.weight, linear.bias)
        found = prepacked(states)
    assert found.dtype == wanted.dtype
    tolerance = torch.finfo(found.dtype).eps
    torch.testing.assert_close(found, wanted, rtol=2 * tolerance, atol=8 * tolerance)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (3, 24), (2, 5, 24), (0, 24), (300, 24)])
def test_products(shape: tuple[int, ...], dtype: torch.dtype, bias: bool) -> None:
    module = layer(dtype, bias=bias)
    prepack(module)
    assert prepacked_bytes(module) == 24 * 40 * dtype.itemsize
    states = torch.randn(shape).to(dtype)
    check(module, states)
    check(module, states.transpose(0, max(states.ndim - 2, 0)))


def test_a_weight_that_changes() -> None:
    module = layer()
    prepack(module)
    states = torch.randn(4, 24)
    weight = module[0].weight

    def merge() -> None:
        weight.data += 0.5  # PEFT's way: torch does not count it

    def replace() -> None:
        weight.data = torch.randn(40, 24)

    def step() -> None:
        with torch.no_grad():
            weight[3, 5] += 7

    for change in (merge, replace, step):
        with torch.no_grad():
            before = module(states)
        change()
        check(module, states)
        with torch.no_grad():
            assert not torch.equal(module(states), before)


def test_gradients_and_autocast_are_torchs_own() -> None:
    module, plain = layer(), layer()
    prepack(module)
    states = torch.randn(4, 24)
    for one in (module, plain):
        one(states).square().sum().backward()
    assert_close(module[0].weight.grad, plain[0].weight.grad)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert module(states).dtype == torch.bfloat16
    with pytest.raises(RuntimeError), torch.no_grad():
        module(states.double())


def test_copies_and_pickles() -> None:
    module = layer()
    prepack(module)
    states = torch.randn(4, 24)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(other[0]) is PrepackedLinear
        with torch.no_grad():
            other[0].weight.mul_(2)
        check(other, states)
        check(module, states)
    assert list(module.state_dict()) == ["0.weight", "0.bias"]


def test_memory_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    module = layer()
    size = 24 * 40 * 4
    monkeypatch.setattr(prepacking, "total_memory", lambda: 4 * size - 1)
    prepack(module)
    assert prepacked_bytes(module) == 0
    assert type(module[0]) is nn.Linear
    monkeypatch.setattr(prepacking, "total_memory", lambda: 4 * size)
    prepack(module)
    assert prepacked_bytes(module) == size


def test_total_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[str, int] = {}
    monkeypatch.setattr(prepacking, "_limit", lambda file: limits.get(file.name))
    machine = prepacking.total_memory()
    assert machine > 2**28
    limits["memory.max"] = 5000
    assert prepacking.total_memory() == 5000
    limits["memory.limit_in_bytes"] = 4000
    assert prepacking.total_memory() == 4000
    limits.update({name: 2**62 for name in limits})  # what version 1 says when there is none
    assert prepacking.total_memory() == machine


def test_limits(tmp_path: Path) -> None:
    file = tmp_path / "memory.max"
    assert prepacking._limit(file) is None
    for text, number in (("max\n", None), ("123\n", 123)):
        file.write_text(text)
        assert prepacking._limit(file) == number


def test_a_loaded_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.from_pretrained(GRITLM, dtype="float32")
    packed = [m for m in encoder.backbone.modules() if type(m) is PrepackedLinear]
    assert len(packed) == 7 * encoder.backbone.config.num_hidden_layers
    vectors = encoder.encode(TEXTS)
    monkeypatch.setattr(prepacking, "_works", lambda dtype: False)
    plain = Encoder.from_pretrained(GRITLM, dtype="float32")
    assert not any(type(m) is PrepackedLinear for m in plain.backbone.modules())
    assert_close(vectors, plain.encode(TEXTS))
    encoder.save_pretrained(tmp_path / "saved")
    assert_close(
        Encoder.from_pretrained(tmp_path / "saved", dtype="float32").encode(TEXTS), vectors
    )


@pytest.mark.parametrize("model", [GRITLM, E5], ids=["both ways", "causal, instruction kept"])
def test_an_adapter_merged_later_shows(model: Path) -> None:
    from peft import LoraConfig, get_peft_model

    encoder = Encoder.from_pretrained(model, dtype="float32")
    before, fingerprint = encoder.encode_query(TEXTS), encoder.fingerprint()
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    encoder.backbone = get_peft_model(encoder.backbone, config).merge_and_unload()
    plain = Encoder(copy.deepcopy(encoder.backbone), encoder.tokenizer, encoder.recipe)
    after = encoder.encode_query(TEXTS)
    assert np.abs(after - before).max() > 1e-3
    assert_close(after, plain.encode_query(TEXTS))
    assert encoder.fingerprint() != fingerprint
