"""Weights that are stored in another dtype than they are loaded in are what transformers makes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import BUNDLED, SMALL, child_environment, write_model
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (
    AutoModel,
    Gemma3TextConfig,
    LlamaConfig,
    MixtralConfig,
    Qwen3Config,
    T5Config,
    T5EncoderModel,
)

from llm_embeddings import Encoder, get_recipe
from llm_embeddings.checkpoint import converting
from llm_embeddings.checkpoint.converting import to_convert
from llm_embeddings.checkpoint.loading import load_backbone
from llm_embeddings.checkpoint.options import LoadOptions

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def also_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of any size are converted."""
    monkeypatch.setattr("llm_embeddings.checkpoint.converting._FEWEST", 0)


@pytest.mark.parametrize(
    ("stored", "wanted"), [pair for pair in itertools.product(FLOATS, FLOATS) if pair[0] != pair[1]]
)
def test_every_bit_pattern_is_converted_as_torch_does(
    tmp_path: Path, stored: torch.dtype, wanted: torch.dtype
) -> None:
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32)
    values = bits.to(torch.int16).view(stored) if stored.itemsize == 2 else _spread(bits)
    tensors = {"first": torch.ones(3), "values": values.view(256, -1), "none": torch.empty(0, 4)}
    tensors = {name: tensor.to(stored).contiguous() for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    found = to_convert(tmp_path, wanted)
    assert found is not None
    for name, tensor in tensors.items():
        got = found[name][...].to(device="cpu", dtype=wanted)
        assert got.shape == tensor.shape
        numbers = ~tensor.isnan()
        assert torch.equal(_bits(got)[numbers], _bits(tensor.to(wanted))[numbers])
        assert torch.equal(got.isnan(), ~numbers)
    assert to_convert(tmp_path, stored) is None


def _spread(bits: torch.Tensor) -> torch.Tensor:
    """Float32s of all exponents, with ties and values next to them."""
    return torch.cat([(bits * 2**16 + low).view(torch.float32) for low in (0, 2**15, 2**15 + 1)])


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int16 if tensor.dtype.itemsize == 2 else torch.int32)


CONFIGS = {
    "sharded": LlamaConfig(**SMALL),
    "scaled embeddings": Gemma3TextConfig(**SMALL, head_dim=8),
    "per-head norms": Qwen3Config(**SMALL, head_dim=8),
    "experts": MixtralConfig(**SMALL, num_local_experts=2),
    "float32 parts": T5Config(vocab_size=100, d_model=16, d_kv=8, d_ff=32, num_layers=2),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("wanted", ["bfloat16", "float32"])
def test_parameters_and_buffers_are_those_of_transformers(
    tmp_path: Path, name: str, wanted: str
) -> None:
    config: Any = CONFIGS[name]
    class_ = T5EncoderModel if name == "float32 parts" else AutoModel
    model = class_(config) if class_ is T5EncoderModel else AutoModel.from_config(config)
    model.half().save_pretrained(tmp_path, max_shard_size="1MB" if name == "sharded" else "5GB")
    stock = class_.from_pretrained(tmp_path, dtype=wanted)
    options = LoadOptions(dtype=wanted, device="cpu")
    read = stock.config.__class__.from_pretrained(tmp_path)
    found = load_backbone(tmp_path, read, get_recipe("mean"), options)
    assert type(found) is type(stock)
    assert found.config.to_dict() == stock.config.to_dict()
    assert found.name_or_path == stock.name_or_path
    for mine, theirs in (
        (dict(found.named_parameters()), dict(stock.named_parameters())),
        (dict(found.named_buffers()), dict(stock.named_buffers())),
    ):
        assert mine.keys() == theirs.keys()
        for key, tensor in mine.items():
            assert tensor.dtype == theirs[key].dtype, key
            assert torch.equal(tensor, theirs[key]), key


def test_what_has_the_dtype_already_stays_mapped(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2), "b": torch.ones(2).half()}, tmp_path / "model.safetensors")
    found = to_convert(tmp_path, torch.float32)
    assert found is not None
    read: list[str] = []
    for name, tensor in found.items():
        object.__setattr__(tensor, "mapped", {...: torch.full((2,), 7.0)})
        read += [name] if float(tensor[...].to(dtype=torch.float32)[0]) == 7 else []
    assert read == ["a"]


def test_a_file_that_ends_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Encoder.from_pretrained(BUNDLED / "e5-mistral/model", dtype="float16").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = converting.to_convert

    def cut(directory: Path, dtype: torch.dtype) -> object:
        found = whole(directory, dtype)
        with weights.open("rb+") as file:
            file.truncate(weights.stat().st_size // 2)
        return found

    monkeypatch.setattr(converting, "MODEL_TYPES", ())
    monkeypatch.setattr("llm_embeddings.checkpoint.loading.to_convert", cut)
    with pytest.raises(ValueError, match=r"model\.safetensors ends before its tensors do"):
        Encoder.from_pretrained(tmp_path, dtype="float32", device="cpu")


_PEAK = """
import json, sys
from pathlib import Path
from llm_embeddings import Encoder
import llm_embeddings.checkpoint.loading, llm_embeddings.packed.served
import peft, transformers.models.llama.modeling_llama

def peak():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024

folder, options = sys.argv[1], json.loads(sys.argv[2])
def load(name):
    adapters = [f"{folder}/{name}{number}" for number in range(1, int(sys.argv[3]) + 1)]
    return Encoder.from_pretrained(f"{folder}/{name}", device="cpu", adapters=adapters, **options)

load("small")  # what is made once in a process
Path("/proc/self/clear_refs").write_text("5")
before = peak()
encoder = load("big")
print(peak() - before, sum(weight.nbytes for weight in encoder.backbone.parameters()))
"""


def measured(models: Path, adapters: int, **options: object) -> tuple[int, int]:
    """Bytes that a new process takes to load the large model, and bytes of its weights."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PEAK, models, json.dumps(options), str(adapters)],
        env=child_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    peak, weights = map(int, done.stdout.split()[-2:])
    return peak, weights


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large model in float16 and a small one, with two adapters that fit both by their names."""
    path = tmp_path_factory.mktemp("models")
    big = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 14}
    for name, size in (("big", big), ("small", {})):
        write_model(path / name, LlamaConfig(**SMALL | size, dtype="float16"))
        base = AutoModel.from_pretrained(path / name)
        for number in (1, 2):
            config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
            get_peft_model(base, config).save_pretrained(path / f"{name}{number}")
            base = AutoModel.from_pretrained(path / name)
    return path


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "adapters", "share"),
    [("bfloat16", 0, 1.25), ("float16", 2, 1.25), ("float32", 0, 0.6)],
)
def test_weights_are_never_held_twice(
    models: Path, dtype: str, adapters: int, share: float
) -> None:
    """Those stored in float16 are not held in float32 at all."""
    peak, weights = measured(models, adapters, dtype=dtype, recipe="last-token")
    assert weights > 2**26
    assert peak < share * weights
