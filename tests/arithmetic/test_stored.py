"""Weights that stay as they are stored give the vectors of converted ones, bit by bit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import BUNDLED, SMALL, write_model
from helpers.random_architectures import ARCHITECTURES, make_backbone
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModel, LlamaConfig

from llm_embeddings import Encoder
from llm_embeddings.arithmetic import mapped, prepacking, stored
from llm_embeddings.checkpoint import converting
from llm_embeddings.checkpoint.loading import load_tokenizer

TEXTS = ["rain fell over quiet hills", "", "nobody spoke of it " * 9, "the cat"]
PAIRS = [(torch.float16, "float32"), (torch.bfloat16, "float32"), (torch.float16, "bfloat16")]


@pytest.fixture(autouse=True)
def also_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of any size keep their dtype."""
    monkeypatch.setattr(converting, "_FEWEST", 0)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a decoder of an architecture in half precision."""

    def write(name: str, dtype: torch.dtype = torch.float16) -> Path:
        path = tmp_path_factory.mktemp(name)
        tokenizer = load_tokenizer(BUNDLED / "e5-mistral/model")
        backbone = make_backbone(ARCHITECTURES[name], tokenizer, 7, rows=len(tokenizer))
        backbone.to(dtype).save_pretrained(path)
        tokenizer.save_pretrained(path)
        return path

    return write


@pytest.fixture
def converts_all(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Encoder]:
    """Loads with every weight in the dtype of passes."""

    def load(path: Path, **options: Any) -> Encoder:
        with monkeypatch.context() as patch:
            patch.setattr(converting, "MODEL_TYPES", ())
            return Encoder.from_pretrained(path, recipe="mean", **options)

    return load


def load(path: Path, **options: Any) -> Encoder:
    return Encoder.from_pretrained(path, recipe="mean", **options)


KINDS = {
    name: getattr(transformers, architecture.config).model_type
    for name, architecture in ARCHITECTURES.items()
}
KNOWN = [name for name, kind in KINDS.items() if kind in stored.MODEL_TYPES]


def test_every_listed_kind_is_compared() -> None:
    assert {KINDS[name] for name in KNOWN} == stored.MODEL_TYPES


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_vectors_of_an_architecture(
    name: str, written: Callable[..., Path], converts_all: Callable[..., Encoder]
) -> None:
    path = written(name)
    ours, wanted = load(path, dtype="float32"), converts_all(path, dtype="float32")
    assert ours.model.backbone.dtype == torch.float16
    np.testing.assert_array_equal(ours.encode(TEXTS), wanted.encode(TEXTS))


@pytest.mark.parametrize(("dtype", "computed"), PAIRS)
def test_vectors_in_every_dtype(
    dtype: torch.dtype,
    computed: str,
    written: Callable[..., Path],
    converts_all: Callable[..., Encoder],
) -> None:
    path = written("qwen2", dtype)
    ours, wanted = load(path, dtype=computed), converts_all(path, dtype=computed)
    assert ours.model.backbone.dtype == dtype
    assert ours.model.dtype == wanted.model.dtype == getattr(torch, computed)
    vectors = wanted.encode(TEXTS)
    np.testing.assert_array_equal(ours.encode(TEXTS), vectors)
    assert ours.fingerprint("query", None) == wanted.fingerprint("query", None)
    for _ in range(9):  # short passes, after which weights are laid out
        np.testing.assert_array_equal(ours.encode("rain"), wanted.encode("rain"))
    np.testing.assert_array_equal(ours.encode(TEXTS), vectors)


def test_weights_are_laid_out_after_passes_of_any_length(
    written: Callable[..., Path], converts_all: Callable[..., Encoder]
) -> None:
    path, text = written("llama"), "rain " * 100
    ours, wanted = load(path, dtype="float32"), converts_all(path, dtype="float32")
    vector = wanted.encode(text)
    for number in range(9):
        np.testing.assert_array_equal(
            ours.encode(f"{text}{number}"), wanted.encode(f"{text}{number}")
        )
    assert ours.scheduler.runner.copied_bytes > 0
    assert wanted.scheduler.runner.copied_bytes == 0
    np.testing.assert_array_equal(ours.encode(text), vector)


def test_who_asks_for_the_backbone_gets_it_converted(
    written: Callable[..., Path], converts_all: Callable[..., Encoder], tmp_path: Path
) -> None:
    path = written("mistral")
    ours, wanted = load(path, dtype="float32"), converts_all(path, dtype="float32")
    fingerprint, vectors = ours.fingerprint("query", None), ours.encode(TEXTS)
    version = ours.model.version()
    assert {weight.dtype for weight in ours.backbone.parameters()} == {torch.float32}
    assert ours.backbone.config.dtype == torch.float32
    assert ours.model.version() == version
    assert ours.fingerprint("query", None) == fingerprint
    np.testing.assert_array_equal(ours.encode(TEXTS), vectors)
    for found, weight in zip(ours.backbone.parameters(), wanted.backbone.parameters(), strict=True):
        assert torch.equal(found, weight)
    with torch.no_grad():
        ours.backbone.layers[0].mlp.up_proj.weight.mul_(2)
    assert not np.array_equal(ours.encode(TEXTS), vectors)
    assert ours.fingerprint("query", None) != fingerprint


def test_saved_as_it_computes(written: Callable[..., Path], tmp_path: Path) -> None:
    ours = load(written("llama"), dtype="float32")
    ours.save_pretrained(tmp_path / "saved")
    again = Encoder.from_pretrained(tmp_path / "saved")
    assert {weight.dtype for weight in again.backbone.parameters()} == {torch.float32}
    np.testing.assert_array_equal(again.encode(TEXTS), ours.encode(TEXTS))


def test_copies_compute_the_same(written: Callable[..., Path]) -> None:
    ours = load(written("llama"), dtype="float32")
    vectors = ours.encode(TEXTS)
    for other in (copy.deepcopy(ours.model), pickle.loads(pickle.dumps(ours.model))):
        made = Encoder(other.backbone, other.tokenizer, other.recipe)
        assert made.model.dtype == torch.float32
        np.testing.assert_array_equal(made.encode(TEXTS), vectors)


def test_padded_passes_convert(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run the backbone itself."""
    path = written("qwen2")
    vectors = load(path, dtype="float32").encode(TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr("llm_embeddings.packed.choice.kernels", lambda device, dtype: [])
        ours = load(path, dtype="float32")
    assert ours.packing.startswith("padded")
    assert ours.model.backbone.dtype == torch.float32
    np.testing.assert_allclose(ours.encode(TEXTS), vectors, atol=1e-5)


def test_float32_where_bfloat16_is_slow(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights take no more than their files, so that memory is no reason for another dtype."""
    monkeypatch.setattr("llm_embeddings.arithmetic.dtype.bfloat16_pays", lambda: False)
    monkeypatch.setattr("llm_embeddings.arithmetic.dtype.fits", lambda directory, dtype: False)
    assert load(written("llama", torch.bfloat16)).model.dtype == torch.float32


def test_copies_need_memory(written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = load(written("llama"), dtype="float32")
    monkeypatch.setattr(prepacking, "_works", lambda dtype: True)
    layers = prepacking.through_onednn(_widened(ours))
    size = sum(layer.weight.numel() * 4 for layer in layers)
    monkeypatch.setattr(prepacking, "total_memory", lambda: size)
    assert prepacking.prepack(layers) == 0
    monkeypatch.setattr(prepacking, "total_memory", lambda: 2 * size)
    assert prepacking.prepack(layers) == size > 0


def _widened(encoder: Encoder) -> Any:
    from llm_embeddings.packed.twin import twin_of

    twin = twin_of(encoder.model.backbone)
    stored.widen(twin)
    return twin


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "computed"), [*PAIRS, (torch.bfloat16, "bfloat16")])
def test_integers_are_made_of_stored_weights(
    dtype: torch.dtype,
    computed: str,
    written: Callable[..., Path],
    converts_all: Callable[..., Encoder],
) -> None:
    path, options = written("qwen2", dtype), {"dtype": computed, "quantization": "int8"}
    ours, wanted = load(path, **options), converts_all(path, **options)
    np.testing.assert_array_equal(ours.encode(TEXTS), wanted.encode(TEXTS))
    assert ours.quantization_cosine == wanted.quantization_cosine
    floats = [weight.dtype for weight in ours.backbone.parameters() if weight.is_floating_point()]
    assert set(floats) <= {getattr(torch, computed), torch.float32}


@pytest.mark.slow
def test_merged_adapters_stay_when_integers_are_made(tmp_path: Path) -> None:
    """They are merged into mapped memory, which is not that of the files any more."""
    sizes = {"hidden_size": 256, "intermediate_size": 512}  # weights of several pages
    model = write_model(tmp_path / "model", LlamaConfig(**SMALL | sizes, dtype="bfloat16"))
    base = AutoModel.from_pretrained(model)
    lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(tmp_path / "lora")
    options = {"dtype": "bfloat16", "device": "cpu", "adapters": [tmp_path / "lora"]}
    whole = load(model, **options).backbone.layers[0].self_attn.v_proj.weight
    ours = load(model, quantization="int8", **options)
    assert torch.equal(ours.backbone.layers[0].self_attn.v_proj.weight, whole)
    assert ours.quantization_cosine is not None
    assert ours.quantization_cosine > 0.99


def test_changed_weights_stay_in_memory(tmp_path: Path) -> None:
    save_file(
        {"changed": torch.ones(64, 1024), "whole": torch.ones(64, 1024)}, tmp_path / "w.safetensors"
    )
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        changed, whole = (file.get_slice(name)[...] for name in ("changed", "whole"))
    changed.mul_(2)
    mapped.leave_memory([changed, whole])
    assert float(changed.mean()) == 2
    assert float(whole.mean()) == 1
