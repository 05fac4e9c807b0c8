"""LoRA on quantised weights: near LoRA on whole ones, which the adapter is for; or refused."""

from __future__ import annotations

import json
import re
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import BUNDLED, SMALL
from helpers.training import assert_same_gradients, losses_of, quick, triplets, update
from transformers import AutoModel, BitsAndBytesConfig, MistralConfig

from llm_embeddings import Encoder
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.training import Contrastive, LoraOptions, contrastive, train_contrastive
from llm_embeddings.training.run import processes
from llm_embeddings.training.weights.loading import load_backbone_for_training

E5 = str(BUNDLED / "e5-mistral/model")
KINDS = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}
TEXTS = ["which stone is red", "stone 3 is blue"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A decoder as wide as blocks of 4-bit weights ask for."""
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: the extra qlora")
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "initializer_range": 0.1}
    AutoModel.from_config(MistralConfig(**SMALL | sizes)).save_pretrained(folder)
    load_tokenizer(Path(E5)).save_pretrained(folder)
    return str(folder)


def made(folder: Path, model: str, **more: Any) -> Contrastive:
    lora = LoraOptions(dropout=0.0)
    values = {"model": model, "recipe": "mean", "save": "adapter", "lora": lora, **more}
    return Contrastive(**quick(folder, triplets(folder / "rows.jsonl"), **values))


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def stage_of(options: Contrastive) -> Any:
    return contrastive._Stage(options)


def rounded(weight: torch.Tensor, kind: str) -> torch.Tensor:
    """A matrix as 8 bits with a scale for each row, or 4 with one for each 64 numbers, keep it."""
    from bitsandbytes.functional import get_4bit_type

    if kind == "int8":
        scale = weight.abs().amax(1, keepdim=True) / 127
        return (weight / scale).round() * scale
    blocks, code = weight.reshape(-1, 64), get_4bit_type("nf4", device="cpu")
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks / scale).unsqueeze(-1).sub(code).abs().argmin(-1)
    return (code[nearest] * scale).reshape(weight.shape)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_on_weights_rounded_beforehand(
    base: str, kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = AutoModel.from_pretrained(base)
    for layer in plain.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data = rounded(layer.weight.data, kind)
    plain.save_pretrained(tmp_path / "rounded")
    load_tokenizer(Path(base)).save_pretrained(tmp_path / "rounded")
    found = []
    for model, quantization in ((str(tmp_path / "rounded"), None), (base, kind)):
        stage = stage_of(made(tmp_path, model, quantization=quantization))
        names = [type(layer).__name__ for layer in stage.model.modules()]
        assert (KINDS[kind] in names) is (quantization is not None)
        batch = next(stage.batches(0))
        first = update(stage, batch)
        stage.encode(stage.model.eval(), TEXTS, "query")  # leaves the weights as they are
        losses, gradients = update(stage, batch)
        assert losses == first[0]
        assert_same_gradients(gradients, first[1], 0)
        found.append((losses["loss"], torch.cat([each.flatten() for each in gradients.values()])))
    (loss, gradient), (near, other) = found
    assert near == pytest.approx(loss, rel=0.02)
    assert torch.cosine_similarity(gradient, other, dim=0) > 0.999
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_does_on_whole_weights_what_it_was_trained_to(
    base: str, kind: Any, tmp_path: Path
) -> None:
    stage = stage_of(made(tmp_path, base, quantization=kind))
    weights = [weight for weight in stage.model.parameters() if weight.requires_grad]
    assert weights
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    before = unit(stage.encode(stage.model.eval(), TEXTS, "query"))
    for batch in islice(stage.batches(0), 4):
        update(stage, batch)
        optimizer.step()
    after = unit(stage.encode(stage.model.eval(), TEXTS, "query"))
    stage.save(stage.model, tmp_path / "adapter")
    loaded = Encoder.from_pretrained(tmp_path / "adapter", dtype="float32")
    found = unit(loaded.encode_query(TEXTS))
    assert (after * found).sum(1).min() > 0.98
    assert (before * after).sum(1).max() < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_runs_go_on(base: str, kind: Any, tmp_path: Path) -> None:
    found = []
    shared = {"quantization": kind, "log_every": 1, "save_every": 2, "schedule": "constant"}
    for name, steps in (("whole", [4]), ("halved", [2, 4])):
        folder = tmp_path / name
        folder.mkdir()
        for step in steps:
            options = made(folder, base, max_steps=step, resume=step != steps[0], **shared)
            train_contrastive(options)
        found.append(losses_of(options.output))
    assert found[0] == found[1]
    assert len(found[0]) == 4


def test_what_quantised_weights_cannot_do_is_named(tmp_path: Path) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"save": "merged"}, "quantization='nf4' needs save='adapter': rounded weights"),
        ({"lora": None, "save": "merged"}, "quantization='nf4' needs lora: quantised weights"),
        ({"quantization": "int2"}, "quantization='int2' is not one of"),
    )
    for changes, message in cases:
        with pytest.raises(ValueError, match=message):
            made(tmp_path, "base", **{"quantization": "nf4", **changes})


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    options = made(tmp_path, E5, quantization="nf4")
    with pytest.raises(ImportError, match=re.escape("pip install 'llm-embeddings[qlora]'")):
        load_backbone_for_training(options)


@pytest.mark.slow
def test_models_that_cannot_be_started_from_are_named(base: str, tmp_path: Path) -> None:
    stored = tmp_path / "stored"
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    rounded = AutoModel.from_pretrained(base, quantization_config=config, device_map={"": "cpu"})
    rounded.save_pretrained(stored)
    load_tokenizer(Path(base)).save_pretrained(stored)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    cases: tuple[tuple[Path, dict[str, Any], str], ...] = (
        (
            adapter,
            {"quantization": "int8"},
            "is an adapter, which quantised weights cannot take in",
        ),
        (stored, {"quantization": "int8"}, "already: leave out quantization='int8'"),
        (stored, {"save": "merged"}, "holds quantised weights, which are not trained themselves"),
        (stored, {"save": "merged", "lora": None}, "pass lora and save='adapter', or start from"),
    )
    for model, changes, message in cases:
        with pytest.raises(ValueError, match=message):
            load_backbone_for_training(made(tmp_path, str(model), **changes))
    with pytest.raises(ValueError, match="q_proj is 32 wide, and on a CPU bitsandbytes reads only"):
        load_backbone_for_training(made(tmp_path, E5, quantization="nf4"))
    assert update(stage := stage_of(made(tmp_path, str(stored))), next(stage.batches(0)))[1]


def test_shards_are_refused(tmp_path: Path) -> None:
    accelerator: Any = SimpleNamespace(state=SimpleNamespace(), distributed_type="FSDP")
    options = made(tmp_path, "base", quantization="int8")
    with pytest.raises(ValueError, match="quantised weights are not sharded: let each process"):
        processes.check_strategy(accelerator, torch.nn.Linear(2, 2), options)
