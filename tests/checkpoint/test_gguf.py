"""Files of llama.cpp: vectors of the model that was written into them, or a refusal by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from helpers import BUNDLED, SMALL, assert_close
from helpers.compatibility import run
from transformers import (
    AutoModel,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from llm_embeddings import Encoder, get_recipe
from llm_embeddings.generation import Generator
from llm_embeddings.training import MNTP, train_mntp

TOKENIZER = BUNDLED / "e5-mistral/model/tokenizer.json"
SIZES = SMALL | {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, rope_theta=20000.0, rms_norm_eps=1e-5),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=128),
}
NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TEXTS = ["Paris is the capital of France.", "Cats purr."]


def name_of(key: str) -> str:
    parts, _, kind = key.rpartition(".")
    if not parts.startswith("layers."):
        return f"{NAMES[parts]}.{kind}"
    _, number, name = parts.split(".", 2)
    return f"blk.{number}.{NAMES[name]}.{kind}"


def written(path: Path, kind: str, **changes: Any) -> tuple[Path, Any]:
    """A file as llama.cpp's converter writes it, of a random model; the model.

    Args:
        path: A directory, for the file and tokenizer.json.
        kind: Architecture.
        changes: `blocks` for Q8_0, `more` for other metadata, `tensors` for more of them.
    """
    config = CONFIGS[kind]
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    file = path / f"{kind}.gguf"
    writer = gguf.GGUFWriter(file, kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_key_length(changes.get("key_length", 128 if kind == "qwen3" else 32))
    for key, value in changes.get("more", {}).items():
        writer.add_float32(key, value)
    tensors = {name_of(key): weight for key, weight in model.state_dict().items()}
    for name, weight in (tensors | changes.get("tensors", {})).items():
        values = weight.float().numpy()
        if kind == "llama" and (".attn_q." in name or ".attn_k." in name):
            # llama.cpp pairs neighbours where transformers pairs halves.
            values = values.reshape(2, 2, -1, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
        if changes.get("blocks") and values.ndim == 2:
            blocks = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, np.ascontiguousarray(values))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    if changes.get("tokenizer", True):
        (path / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
        settings = TOKENIZER.parent / "tokenizer_config.json"
        (path / "tokenizer_config.json").write_bytes(settings.read_bytes())
    return file, model


def vectors_of(backbone: Any) -> Any:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(TOKENIZER.parent)
    encoder = Encoder(backbone, tokenizer, get_recipe("last-token"))
    return encoder.encode(TEXTS)


@pytest.mark.parametrize("kind", CONFIGS)
def test_vectors_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    file, model = written(tmp_path, kind)
    found = Encoder.from_pretrained(file, recipe="last-token", device="cpu")
    assert found.backbone.dtype == torch.float32
    assert_close(found.encode(TEXTS), vectors_of(model), 1e-6)


def test_blocks_are_unpacked_as_the_stock_class_unpacks_them(tmp_path: Path) -> None:
    file, model = written(tmp_path, "llama", blocks=True)
    stock = AutoModel.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    found = Encoder.from_pretrained(tmp_path, recipe="last-token", device="cpu", dtype="float32")
    wanted = vectors_of(stock)
    assert_close(found.encode(TEXTS), wanted, 1e-6)
    assert 1e-5 < np.abs(wanted - vectors_of(model)).max() < 0.05
    found.save_pretrained(tmp_path / "saved")
    saved = Encoder.from_pretrained(tmp_path / "saved", device="cpu", dtype="float32")
    assert_close(saved.encode(TEXTS), wanted, 1e-6)


def test_info_reads_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, model = written(tmp_path, "qwen2")
    monkeypatch.setattr("llm_embeddings.checkpoint.gguf._backbone", None)
    shown = run("info", str(file), "--recipe", "last-token", "--text", "cats").stdout
    count = sum(weight.numel() for weight in model.parameters())
    assert f"{count / 1e6:,.1f} million" in shown
    assert "the GGUF file" in shown
    assert "last token" in shown


def test_memory_is_asked_before_numbers_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = written(tmp_path, "llama")
    monkeypatch.setattr("llm_embeddings.arithmetic.memory.total_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"llama\.gguf take .* choose a smaller form"):
        Encoder.from_pretrained(file, recipe="mean", device="cpu", dtype="float32")


def test_a_tokenizer_inside(tmp_path: Path) -> None:
    file, _ = written(tmp_path, "qwen2", tokenizer=False)
    with pytest.raises(FileNotFoundError, match="holds no tokenizer that can be read"):
        Encoder.from_pretrained(file, recipe="mean", device="cpu")
    with pytest.raises(ValueError, match="puts what the tokenizer's files put around a text"):
        Encoder.from_pretrained(file, recipe=get_recipe("mean").replace(bos=None), device="cpu")
    words = with_words(file, "qwen2")
    encoder = Encoder.from_pretrained(words, recipe="last-token", device="cpu")
    assert encoder.tokenize("cat tac") == [[28, 26, 19, 0, 2, 29]]


def test_what_needs_a_whole_checkpoint_says_so(tmp_path: Path) -> None:
    file, _ = written(tmp_path, "llama")
    encoder = Encoder.from_pretrained(file, recipe="mean", device="cpu")
    with pytest.raises(FileNotFoundError, match="nor a hub id like .*: it only embeds"):
        Generator(encoder)
    options = MNTP(model=str(file), output=tmp_path / "result", data=("texts.txt",))
    with pytest.raises(FileNotFoundError, match="nor a hub id like .*: it only embeds"):
        train_mntp(options)


def test_words_are_split_as_the_file_says(tmp_path: Path) -> None:
    file, _ = written(tmp_path, "qwen2", tokenizer=False)
    digits = Encoder.from_pretrained(with_words(file, "smollm"), recipe="mean", device="cpu")
    plain = Encoder.from_pretrained(with_words(file, "gpt-2"), recipe="mean", device="cpu")
    assert digits.tokenize("a  1") == [[0, 31, 30]]
    assert plain.tokenize("a  1") == [[0, 26, 26, 30]]
    for split in ("bloom", ""):
        with pytest.raises(ValueError, match=f"splits words as '{split}', which transformers"):
            Encoder.from_pretrained(with_words(file, split), recipe="mean", device="cpu")


def with_words(file: Path, split: str) -> Path:
    """A file beside another, with its model and a tokenizer that splits words in some way."""
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    path = file.with_name("words.gguf")
    writer = gguf.GGUFWriter(path, "qwen2")
    reader = gguf.GGUFReader(file)
    for key, field in reader.fields.items():
        if key.startswith("qwen2."):
            writer.add_key_value(key, field.contents(), field.types[0])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.add_tokenizer_model("gpt2")
    if split:
        writer.add_tokenizer_pre(split)
    writer.add_token_list([*letters, "Ġ", "ca", "cat", "<end>", "1", "ĠĠ"])
    writer.add_token_merges(["c a", "ca t", "Ġ Ġ"])
    writer.add_token_types([1] * 29 + [3, 1, 1])
    writer.add_eos_token_id(29)
    writer.add_bos_token_id(25)  # named, and never put before a text
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"more": {"llama.rope.scaling.factor": 8.0}}, r"sets llama\.rope\.scaling\.factor, which"),
        ({"tensors": {"rope_freqs.weight": torch.ones(16)}}, "numbers and LlamaModel"),
        ({"key_length": 16}, r"llama\.attention\.key_length is not the 32"),
    ],
)
def test_what_would_be_lost_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file, _ = written(tmp_path, "llama", **changes)
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(file, recipe="mean", device="cpu")


def test_files_and_options_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = written(tmp_path, "llama")
    for options, message in (
        ({}, "does not say how it embeds"),
        ({"recipe": "mean", "adapters": ["x"]}, "adapters is not for a GGUF file"),
        ({"recipe": "mean", "device_map": "auto"}, "device_map is not for a GGUF file"),
    ):
        with pytest.raises(ValueError, match=message):
            Encoder.from_pretrained(file, **options)
    (tmp_path / "second.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r"several models \(llama\.gguf, second\.gguf\)"):
        Encoder.from_pretrained(tmp_path, recipe="mean")
    half = file.read_bytes()[: file.stat().st_size // 2]
    for content in (b"GGUF", b"nothing of the kind", half):
        (tmp_path / "second.gguf").write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as GGUF"):
            Encoder.from_pretrained(tmp_path / "second.gguf", recipe="mean")
    part = file.rename(tmp_path / "big-00001-of-00002.gguf")
    with pytest.raises(ValueError, match="is one part of a model"):
        Encoder.from_pretrained(part, recipe="mean")
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"architecture 'mamba'; those read here are llama"):
        Encoder.from_pretrained(tmp_path / "other.gguf", recipe="mean")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"llm-embeddings\[gguf\]"):
        Encoder.from_pretrained(tmp_path / "other.gguf", recipe="mean")


def test_a_recipe_beside_the_file(tmp_path: Path) -> None:
    file, model = written(tmp_path, "llama")
    facts = {"format": 1, "recipe": get_recipe("last-token").to_dict()}
    (tmp_path / "llm_embeddings.json").write_text(json.dumps(facts))
    found = Encoder.from_pretrained(file, device="cpu")
    assert_close(found.encode(TEXTS), vectors_of(model), 1e-6)
