"""How the bundled model is made: what its teacher's weights become, and how they are stored."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch.nn.functional import normalize
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

sys.path.append(str(ROOT / "scripts/small"))  # the scripts import each other by name
student, transplant, wordpiece = map(import_module, ("student", "transplant", "wordpiece"))

ENTRIES = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "cat", "##s", "é", "猫", "кот", "sat"]


@pytest.fixture
def teacher() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60,
        hidden_size=96,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    model = BertModel(config, add_pooling_layer=False)
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif parameter.dim() == 2:
                parameter.normal_(0, 0.1 if "position" not in name else 0.0)
    return model


def test_the_student_begins_near_its_teacher(teacher: BertModel, tmp_path: Path) -> None:
    tokenizer, _ = wordpiece.pruned(_tokenizer_folder(tmp_path))
    rows = torch.randint(5, 60, (20, 12)).tolist()
    config = transplant.config_of(teacher, 64, tokenizer)
    config.vocab_size = 60
    model, _ = transplant.transplant(teacher, range(60), rows, config)
    ids = torch.randint(5, 60, (8, 10))
    with torch.no_grad():
        theirs = normalize(teacher(ids).last_hidden_state.mean(1))
        states = model(ids, attention_mask=torch.ones(8, 1, 10, 10, dtype=torch.bool))
        cosines = normalize(states.last_hidden_state.mean(1)) @ theirs.T
    assert cosines.argmax(1).tolist() == list(range(8))
    assert cosines.diagonal().min() > 0.99


def _tokenizer_folder(folder: Path) -> Path:
    vocab = {entry: number for number, entry in enumerate(ENTRIES)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_the_tokenizer_is_the_teachers_without_what_no_text_needs(tmp_path: Path) -> None:
    stored = Tokenizer.from_file(str(_tokenizer_folder(tmp_path) / "tokenizer.json"))
    tokenizer, kept = wordpiece.pruned(tmp_path)
    assert [ENTRIES[number] for number in kept] == [
        entry for entry in ENTRIES if entry not in ("[unused0]", "кот")
    ]
    for text in ("Cats sat", "猫 cat", "кот", "[SEP] cat", "é"):
        ids = tokenizer(text)["input_ids"]
        theirs = stored.encode(text).tokens
        assert tokenizer.convert_ids_to_tokens(ids) == [
            token if token != "кот" else "[UNK]" for token in theirs
        ]


def test_heads_in_another_basis_attend_alike() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 16, 33)
    found = transplant.paired(query, key, 2)
    for q, k, new_q, new_k in zip(
        query.split(8), key.split(8), *(part.split(8) for part in found), strict=True
    ):
        torch.testing.assert_close(new_q.T @ new_k, q.T @ k, atol=1e-4, rtol=1e-4)


def test_balanced_weights_compute_the_same() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_bias=True,
    )
    model = LlamaModel(config).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.q_proj.weight[:, 3] *= 50
            layer.mlp.up_proj.weight[:, 7] *= 50
        before = model(ids).last_hidden_state
        student.balance(model)
        after = model(ids).last_hidden_state
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    for layer in model.layers:
        assert 128 <= layer.mlp.gate_proj.weight.abs().max() < 256
        assert spread(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj) < 16
        assert spread(layer.mlp.gate_proj, layer.mlp.up_proj) < 16


def spread(*readers: torch.nn.Linear) -> float:
    """The largest weight on a channel, most by least of all channels."""
    peaks = torch.stack([layer.weight.detach().abs().amax(0) for layer in readers]).amax(0)
    return float(peaks.max() / peaks.min())


def test_the_release_says_what_it_is() -> None:
    folder = ROOT / "src/llm_embeddings/data/small"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["dtype"]) == ("llama", "float32")
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size < 30e6, "a wheel takes 30 MB at most"
