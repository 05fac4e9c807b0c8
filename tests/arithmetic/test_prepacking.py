"""Prepacked linear layers: the same products, whatever happens to the weight; memory is asked."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import BUNDLED, assert_close
from torch import nn

from llm_embeddings import Encoder
from llm_embeddings.arithmetic import prepacking
from llm_embeddings.arithmetic.prepacking import prepack, through_onednn

E5 = BUNDLED / "e5-mistral/model"
GRITLM = BUNDLED / "gritlm-7b/model"
TEXTS = ["rain fell", "over quiet hills and far away", "nobody spoke of it"]


@pytest.fixture(autouse=True)
def works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepack on any processor that can."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch was built without oneDNN")
    monkeypatch.setattr(prepacking, "_works", lambda dtype: True)


def tree(dtype: torch.dtype = torch.float32, *, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40, bias=bias).to(dtype))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (3, 24), (2, 5, 24), (0, 24), (300, 24)])
def test_products(shape: tuple[int, ...], dtype: torch.dtype, bias: bool) -> None:
    module = tree(dtype, bias=bias)
    plain = module[0]
    layers = through_onednn(module)
    assert module[0] is layers[0] is not plain
    states = torch.randn(shape).to(dtype)
    for packs in (False, True):
        if packs:
            assert prepack(layers) == 24 * 40 * dtype.itemsize
        for given in (states, states.transpose(0, max(states.ndim - 2, 0))):
            with torch.no_grad():
                found, wanted = module(given), plain(given)
            assert found.dtype == wanted.dtype
            tolerance = torch.finfo(found.dtype).eps
            torch.testing.assert_close(found, wanted, rtol=2 * tolerance, atol=8 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_laying_out_changes_no_bit(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(256, 384).to(dtype))
    layers = through_onednn(module)
    given = [torch.randn(rows, 256).to(dtype) for rows in (2, 7, 33, 300)]
    with torch.inference_mode():
        before = [module(rows) for rows in given]
        prepack(layers)
        assert all(
            torch.equal(module(rows), found) for rows, found in zip(given, before, strict=True)
        )


def test_memory_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, size = through_onednn(tree()), 24 * 40 * 4
    forward = layers[0].forward
    monkeypatch.setattr(prepacking, "total_memory", lambda: 4 * size - 1)
    assert prepack(layers) == 0
    assert layers[0].forward is forward
    monkeypatch.setattr(prepacking, "total_memory", lambda: 4 * size)
    assert prepack(layers) == size
    assert layers[0].forward is not forward


@pytest.mark.slow
def test_a_loaded_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.from_pretrained(GRITLM, dtype="float32")
    linears = [m for m in encoder.backbone.modules() if isinstance(m, nn.Linear)]
    size = sum(linear.weight.nbytes for linear in linears)
    vectors = encoder.encode(TEXTS)
    assert encoder.scheduler.runner.copied_bytes == 0
    for _ in range(8):
        assert_close(encoder.encode(TEXTS[0]), vectors[0])
    assert encoder.scheduler.runner.copied_bytes == size > 0
    assert_close(encoder.encode(TEXTS), vectors)
    monkeypatch.setattr(prepacking, "_works", lambda dtype: False)
    plain = Encoder.from_pretrained(GRITLM, dtype="float32")
    assert_close(vectors, plain.encode(TEXTS))
    encoder.save_pretrained(tmp_path / "saved")
    assert_close(
        Encoder.from_pretrained(tmp_path / "saved", dtype="float32").encode(TEXTS), vectors
    )


def test_the_backbone_itself_stays_plain() -> None:
    """What is trained, copied and pickled knows nothing of copies: gradients flow."""
    encoder = Encoder.from_pretrained(GRITLM, dtype="float32")
    vectors = encoder.encode(TEXTS)
    for linear in encoder.backbone.modules():
        assert "forward" not in vars(linear)
    encoder.backbone(input_ids=torch.tensor([[5, 6, 7]])).last_hidden_state.sum().backward()
    layer: Any = encoder.backbone.layers[0]  # type: ignore[index]
    assert layer.mlp.up_proj.weight.grad is not None
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert_close(other.encode(TEXTS), vectors)
        with torch.no_grad():
            other.backbone.layers[0].mlp.up_proj.weight.mul_(2)
        assert np.abs(other.encode(TEXTS) - vectors).max() > 1e-3
        assert_close(encoder.encode(TEXTS), vectors)


def merge(weight: nn.Parameter) -> None:
    weight.data += 0.1  # PEFT's way: torch does not count it


def replace(weight: nn.Parameter) -> None:
    weight.data = torch.randn_like(weight)


def step(weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight[3] += 1


@pytest.mark.parametrize("change", [merge, replace, step])
@pytest.mark.parametrize("model", [GRITLM, E5], ids=["both ways", "causal, instruction kept"])
@pytest.mark.parametrize("packs", [False, True])
def test_a_weight_that_changes(
    model: Path, change: Callable[[nn.Parameter], None], packs: bool
) -> None:
    encoder = Encoder.from_pretrained(model, dtype="float32")
    for _ in range(9 if packs else 0):
        encoder.encode_query(TEXTS[0])
    assert bool(encoder.scheduler.runner.copied_bytes) == packs
    before, fingerprint = encoder.encode_query(TEXTS), encoder.fingerprint()
    layer: Any = encoder.backbone.layers[0]  # type: ignore[index]
    change(layer.self_attn.v_proj.weight)
    plain = Encoder(copy.deepcopy(encoder.backbone), encoder.tokenizer, encoder.recipe)
    after = encoder.encode_query(TEXTS)
    assert np.abs(after - before).max() > 1e-3
    assert_close(after, plain.encode_query(TEXTS))
    assert encoder.fingerprint() == plain.fingerprint()
    assert encoder.fingerprint() != fingerprint or change is step  # sampled values may be missed


@pytest.mark.parametrize("model", [GRITLM, E5], ids=["both ways", "causal, instruction kept"])
def test_an_adapter_merged_later_shows(model: Path) -> None:
    from peft import LoraConfig, get_peft_model

    encoder = Encoder.from_pretrained(model, dtype="float32")
    before, fingerprint = encoder.encode_query(TEXTS), encoder.fingerprint()
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    adapted = get_peft_model(encoder.backbone, config)
    wrapped = encoder.encode_query(TEXTS)
    assert adapted.merge_and_unload() is encoder.backbone
    plain = Encoder(copy.deepcopy(encoder.backbone), encoder.tokenizer, encoder.recipe)
    after = encoder.encode_query(TEXTS)
    assert np.abs(after - before).max() > 1e-3
    assert_close(after, plain.encode_query(TEXTS))
    assert_close(after, wrapped)
    assert encoder.fingerprint() != fingerprint
