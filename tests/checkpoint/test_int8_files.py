"""Weights in int8 on disk: the encoder that was saved comes back, and nothing reads them wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers import BUNDLED, compiles
from helpers.training import quick, triplets
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel
from typer.testing import CliRunner

from llm_embeddings import Encoder
from llm_embeddings.arithmetic.mapped import mapped_places
from llm_embeddings.arithmetic.quantization import quantize
from llm_embeddings.checkpoint.files import INT8_NAME
from llm_embeddings.checkpoint.int8_files import read_int8, write_int8
from llm_embeddings.checkpoint.options import LoadOptions
from llm_embeddings.cli import app
from llm_embeddings.training import Contrastive, train_contrastive

MODEL = BUNDLED / "e5-mistral/model"
TEXTS = ["magnets", "Iron filings lie along the lines of a field.", ""]
SIDECAR = "llm_embeddings.json"
Folder = tuple[Encoder, Path]
pytestmark = [compiles, pytest.mark.slow]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """An encoder in int8, and where it was saved."""
    path = tmp_path_factory.mktemp("int8") / "saved"
    encoder = Encoder.from_pretrained(MODEL, device="cpu", dtype="float32", quantization="int8")
    encoder.calibrate(TEXTS)
    encoder.save_pretrained(path)
    return encoder, path


@pytest.fixture
def folder(saved: Folder, tmp_path: Path) -> Path:
    """A copy of the folder, to be damaged."""
    return Path(shutil.copytree(saved[1], tmp_path / "copy"))


def same_vectors(found: Encoder, wanted: Encoder) -> bool:
    return all(
        np.array_equal(found.encode(TEXTS, role), wanted.encode(TEXTS, role))
        for role in ("query", "document")
    )


def test_the_encoder_that_was_saved_comes_back(
    saved: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, path = saved

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("weights are quantised, or a sample is embedded")

    monkeypatch.setattr("llm_embeddings.arithmetic.calibration.sample", never)
    monkeypatch.setattr("llm_embeddings.arithmetic.quantization.quantize", never)
    same: list[dict[str, Any]] = [{}, {"quantization": "int8"}, {"dtype": "float32"}]
    for options in [*same, {"device": "cpu"}]:
        found = Encoder.from_pretrained(path, **options)
        assert same_vectors(found, encoder)
    assert found.quantization_cosine == encoder.quantization_cosine is not None
    assert found.fingerprint() == encoder.fingerprint()
    assert found.ranges.keys() == encoder.ranges.keys() != set()
    assert found.packing == encoder.packing
    ticket = found.ticket()
    assert ticket is not None
    assert same_vectors(ticket.open(Encoder.open), encoder)


def test_a_recipe_may_be_named(saved: Folder) -> None:
    found = Encoder.from_pretrained(saved[1], recipe=saved[0].recipe.replace(instruction="Find"))
    assert np.array_equal(found.encode(TEXTS), saved[0].encode(TEXTS))


def test_weights_are_mapped(saved: Folder) -> None:
    found = Encoder.from_pretrained(saved[1]).model.backbone
    places = mapped_places()
    if not places:
        pytest.skip("this system does not say what is mapped")
    for weight in found.parameters():
        assert any(first <= weight.data_ptr() < last for first, last in places)


def test_no_other_library_reads_them(saved: Folder) -> None:
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModel.from_pretrained(saved[1])
    with pytest.raises(OSError, match=r"model\.safetensors"):
        SentenceTransformer(str(saved[1]))


def test_what_is_in_both_forms_has_two_fingerprints(saved: Folder) -> None:
    assert Encoder.from_pretrained(MODEL, dtype="float32").fingerprint() != saved[0].fingerprint()


def test_saved_again_in_place_and_elsewhere(folder: Path, saved: Folder, tmp_path: Path) -> None:
    found = Encoder.from_pretrained(folder)
    found.save_pretrained(folder)
    assert same_vectors(found, saved[0])
    found.save_pretrained(tmp_path / "again")
    for path in (folder, tmp_path / "again"):
        assert (path / INT8_NAME).read_bytes() == (saved[1] / INT8_NAME).read_bytes()
        assert same_vectors(Encoder.from_pretrained(path), saved[0])


def test_a_folder_holds_one_form(folder: Path, saved: Folder, tmp_path: Path) -> None:
    plain = Encoder.from_pretrained(MODEL)
    with pytest.raises(ValueError, match=f"{INT8_NAME}, weights in another form"):
        plain.save_pretrained(folder)
    plain.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"model\.safetensors, weights in another form"):
        saved[0].save_pretrained(tmp_path / "plain")
    for path in (folder, tmp_path / "plain"):
        assert (path / SIDECAR).is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype='bfloat16': .* compute in float32"),
        ({"quantization": "fp8"}, "quantization='fp8': .* were saved in int8"),
        ({"device": "meta"}, "device='meta': "),
        ({"device_map": "auto"}, "device_map='auto': "),
        ({"adapters": [BUNDLED / "llm2vec-mistral/supervised"]}, r"adapters=\['.*supervised'\]: "),
    ],
)
def test_options_that_integers_cannot_follow(
    saved: Folder, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"{message}.*load the original checkpoint"):
        Encoder.from_pretrained(saved[1], **options)


def edit_json(name: str, **values: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        held = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps(held | values))

    return damage


def edit_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        said = {"activations": json.dumps({"0.mlp": "silu", "1.mlp": "silu"})}
        weights = load_file(path / INT8_NAME)
        change(weights)
        save_file(weights, path / INT8_NAME, said)

    return damage


def cut(path: Path) -> None:
    data = (path / INT8_NAME).read_bytes()
    (path / INT8_NAME).write_bytes(data[: len(data) // 2])


Q = "layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / INT8_NAME).unlink(), f"{INT8_NAME} is missing"),
        (lambda path: (path / SIDECAR).unlink(), f"no {SIDECAR} that says what it is"),
        (cut, "is not a whole safetensors file"),
        (edit_weights(lambda w: w.pop(f"{Q}.scale")), rf"lacks {Q}\.scale"),
        (edit_weights(lambda w: w.pop("layers.1.self_attn.v_proj.weight")), "lacks .*v_proj"),
        (edit_weights(lambda w: w.update(more=torch.ones(1))), "without a place for it, more"),
        (
            edit_weights(lambda w: w.update({f"{Q}.weight": w[f"{Q}.weight"].float()})),
            rf"another shape or dtype {Q}\.weight",
        ),
        (
            edit_weights(lambda w: w.update({f"{Q}.scale": w[f"{Q}.scale"][1:].clone()})),
            rf"another shape or dtype {Q}\.scale",
        ),
        (edit_weights(lambda w: w[f"{Q}.scale"].fill_(float("nan"))), r"scale .* not finite"),
        (edit_json("config.json", dtype="bfloat16"), "another shape or dtype"),
        (edit_json(SIDECAR, quantization={"kind": "int2"}), "'int2'.*update llm-embeddings"),
        (edit_json(SIDECAR, quantization=["int8"]), "update llm-embeddings"),
    ],
)
def test_damage_is_named(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Encoder.from_pretrained(folder)


@pytest.mark.parametrize("said", [None, "[]", '{"0.mlp": "relu"}'])
def test_activations_are_named_and_known(folder: Path, said: str | None) -> None:
    weights = load_file(folder / INT8_NAME)
    save_file(weights, folder / INT8_NAME, None if said is None else {"activations": said})
    with pytest.raises(ValueError, match="activation"):
        Encoder.from_pretrained(folder)


def test_too_little_memory(saved: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_embeddings.arithmetic.memory.total_memory", lambda: 1000)
    with pytest.raises(ValueError, match=rf"{INT8_NAME} take .* in int8.*: take a larger machine"):
        Encoder.from_pretrained(saved[1])


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("Llama", torch.float32),
        ("Llama", torch.bfloat16),
        ("Qwen2", torch.bfloat16),
        ("Phi3", torch.float32),
        ("Gemma", torch.bfloat16),
        ("Mixtral", torch.float32),
    ],
)
def test_every_architecture_comes_back(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    sizes = dict(vocab_size=96, hidden_size=64, intermediate_size=160, num_hidden_layers=2)
    sizes |= dict(num_attention_heads=4, num_key_value_heads=2, head_dim=16, pad_token_id=0)
    more = {"num_local_experts": 2} if family == "Mixtral" else {}
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes, **more)
    backbone = AutoModel.from_config(config, dtype=dtype).eval()
    quantize(backbone, "int8")
    write_int8(backbone, tmp_path)
    read = transformers.AutoConfig.from_pretrained(tmp_path)
    found = read_int8(tmp_path, read, LoadOptions())
    ids = torch.arange(24).reshape(2, 12)
    with torch.inference_mode():
        wanted = backbone(input_ids=ids, use_cache=False).last_hidden_state
        assert torch.equal(found(input_ids=ids, use_cache=False).last_hidden_state, wanted)
    assert {name: type(one) for name, one in found.named_modules()} == {
        name: type(one) for name, one in backbone.named_modules()
    }


def test_export_and_info(saved: Folder, tmp_path: Path) -> None:
    runner, out = CliRunner(), tmp_path / "out"
    told = ["export", str(out), "--model", str(MODEL), "--quantization", "int8"]
    refused = runner.invoke(app, [*told, "--for", "vllm"])
    assert refused.exit_code != 0
    assert not out.exists()
    made = runner.invoke(app, [*told, "--dtype", "float32"])
    assert made.exit_code == 0, made.output
    assert same_vectors(Encoder.from_pretrained(out), saved[0])
    shown = runner.invoke(app, ["info", str(out)])
    plain = runner.invoke(app, ["info", str(MODEL)])
    words = " ".join(shown.output.split())
    assert f"int8, for a CPU; lowest cosine {saved[0].quantization_cosine:.5f}" in words
    assert f"mapped from {INT8_NAME}" in words
    [counted] = [line for line in plain.output.splitlines() if line.startswith("parameters")]
    assert counted in shown.output.splitlines()


def test_neither_exported_nor_trained(saved: Folder, tmp_path: Path) -> None:
    found = Encoder.from_pretrained(saved[1])
    with pytest.raises(ValueError, match="computed in int8 cannot be exported"):
        found.export_sentence_transformers(tmp_path / "out")
    options = Contrastive(**quick(tmp_path, triplets(tmp_path / "rows.jsonl"), model=str(saved[1])))
    with pytest.raises(ValueError, match="computed in int8 cannot be trained"):
        train_contrastive(options)
