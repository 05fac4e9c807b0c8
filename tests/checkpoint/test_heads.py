"""Poolings and heads: as sentence-transformers computes them, saved, exported, trained through."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.random_checkpoints import TEXTS, plain, write
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Transformer,
)

from llm_embeddings import Encoder, Recipe
from llm_embeddings.packed.heads import ACTIVATIONS
from llm_embeddings.recipe import Head

LONG = "the cat sat on a mat while rain fell " * 20


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("backbone")
    write(plain("qwen3"), work)
    return work / "backbone"


@pytest.fixture
def saved(backbone: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a model of the backbone and further modules."""

    def write(*modules: Any, pooling: Any = "mean", name: str = "saved", **settings: Any) -> Path:
        torch.manual_seed(1)
        transformer = Transformer(str(backbone))
        transformer.max_seq_length = 40
        parts = [transformer, Pooling(32, pooling_mode=pooling), *modules]
        model = SentenceTransformer(modules=parts, device="cpu", **settings)
        model.save(str(tmp_path / name), create_model_card=False)
        return tmp_path / name

    return write


def theirs(path: Path) -> Any:
    return SentenceTransformer(str(path), device="cpu").encode([*TEXTS, LONG], batch_size=1)


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


HEADS: dict[str, tuple[Any, Callable[[], list[Any]], dict[str, Any]]] = {
    "dense": ("lasttoken", lambda: [Dense(32, 48)], {}),
    "two dense, no bias": (
        "mean",
        lambda: [
            Dense(32, 64, bias=False, activation_function=torch.nn.Identity()),
            Dense(64, 16, bias=False, activation_function=torch.nn.GELU()),
            Normalize(),
        ],
        {},
    ),
    "residual": (
        "max",
        lambda: [Dense(32, 32, use_residual=True), Dense(32, 8, use_residual=True), Dropout(0.5)],
        {},
    ),
    "layer norm": (
        "mean_sqrt_len_tokens",
        lambda: [LayerNorm(32), Dense(32, 32, activation_function=torch.nn.SiLU())],
        {},
    ),
    "in the middle": ("weightedmean", lambda: [Normalize(), Dense(32, 8), Normalize()], {}),
    "all poolings": (
        ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"],
        lambda: [Dense(192, 32), Normalize()],
        {},
    ),
    "another order": (["lasttoken", "cls"], lambda: [Normalize()], {}),
    "truncated": ("mean", lambda: [Normalize()], {"truncate_dim": 8}),
    "truncated behind a head": ("mean", lambda: [Dense(32, 48)], {"truncate_dim": 10}),
    "longer than the vector": ("mean", lambda: [Normalize()], {"truncate_dim": 64}),
}


@pytest.mark.parametrize("case", HEADS)
def test_as_in_sentence_transformers(case: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    pooling, modules, settings = HEADS[case]
    path = saved(*modules(), pooling=pooling, **settings)
    wanted, ours = theirs(path), Encoder.from_pretrained(path, dtype="float32")
    found = ours.encode([*TEXTS, LONG])
    close(found, wanted)
    assert ours.dimension == wanted.shape[1]
    ours.save_pretrained(tmp_path / "again")
    again = Encoder.from_pretrained(tmp_path / "again", dtype="float32")
    np.testing.assert_array_equal(again.encode([*TEXTS, LONG]), found)
    assert again.fingerprint() == ours.fingerprint()
    assert Recipe.from_dict(json.loads(json.dumps(ours.recipe.to_dict()))) == ours.recipe
    if case == "another order":
        with pytest.raises(ValueError, match="do not know pooling="):
            ours.export_sentence_transformers(tmp_path / "export")
        return
    ours.export_sentence_transformers(tmp_path / "export")
    close(theirs(tmp_path / "export"), wanted)


def test_another_head_is_another_model(saved: Callable[..., Path]) -> None:
    dense = Dense(32, 16)
    first = Encoder.from_pretrained(saved(dense), dtype="float32")
    vectors, name = first.encode(TEXTS), first.fingerprint()
    with torch.no_grad():
        dense.linear.weight[0, 0] += 1
        other = Encoder.from_pretrained(saved(dense, name="other"), dtype="float32")
        assert other.fingerprint() != name
        assert np.abs(other.encode(TEXTS) - vectors).max() > 1e-3
        assert first.model.head is not None
        first.model.head[0].linear.weight[0, 0] += 1  # type: ignore[index,union-attr]
    close(first.encode(TEXTS), other.encode(TEXTS))
    assert first.fingerprint() == other.fingerprint()
    close(pickle.loads(pickle.dumps(other)).encode(TEXTS), other.encode(TEXTS))


@pytest.mark.slow
def test_every_activation_is_known_by_its_name(saved: Callable[..., Path]) -> None:
    path = saved(Dense(32, 4))
    file = path / "2_Dense" / "config.json"
    config = json.loads(file.read_text())
    for name in ACTIVATIONS:
        module = getattr(torch.nn, name)
        config["activation_function"] = f"{module.__module__}.{name}"
        file.write_text(json.dumps(config))
        close(Encoder.from_pretrained(path, dtype="float32").encode(TEXTS), theirs(path)[:-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "torch.nn.modules.activation.Softmax"}, "'Softmax' is not one of"),
        ({"activation_function": "somewhere.Swish"}, "is not a class of torch.nn"),
        ({"in_features": 16}, None),
        ({"out_features": 8}, "weights of the heads .* do not fit"),
        ({"out_features": 0}, "dense head's width=0 must be 1 or more"),
        ({"bias": False}, "weights of the heads .* do not fit"),
        ({"module_input_name": "token_embeddings"}, "module_input_name = .* is not honoured"),
        ({"gated": True}, "2_Dense/config.json: gated = true is not honoured"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    changes: dict[str, Any], message: str | None, saved: Callable[..., Path]
) -> None:
    path = saved(Dense(32, 16))
    file = path / "2_Dense" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    if message is None:  # what the weights say counts
        Encoder.from_pretrained(path, dtype="float32")
        return
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(path, dtype="float32")


def test_heads_that_do_not_chain_and_weights_that_lack(saved: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"head 0 \(layer_norm\) is for 16 values and is given 32"):
        Encoder.from_pretrained(saved(LayerNorm(16)), dtype="float32")
    path = saved(Dense(32, 16), name="lacking")
    (path / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"2_Dense.model\.safetensors is missing"):
        Encoder.from_pretrained(path, dtype="float32")


def test_a_recipe_does_not_make_heads_disappear(saved: Callable[..., Path], backbone: Path) -> None:
    path = saved(Dense(32, 16))
    with pytest.raises(ValueError, match="what follows the pooling is"):
        Encoder.from_pretrained(path, recipe="mean")
    insisted = Recipe(name="mine", causal=True, pooling="mean", bos=False)
    assert Encoder.from_pretrained(path, recipe=insisted).dimension == 32
    head = Head(kind="dense", width=16, activation="Tanh")
    with_head = insisted.replace(heads=(head,), normalize=False)
    assert Encoder.from_pretrained(path, recipe=with_head).dimension == 16
    with pytest.raises(FileNotFoundError, match="holds no weights for them"):
        Encoder.from_pretrained(backbone, recipe=with_head)


@pytest.mark.slow
def test_heads_are_trained_and_saved(saved: Callable[..., Path], tmp_path: Path) -> None:
    from llm_embeddings.training import Contrastive, train_contrastive

    path = saved(Dense(32, 16), Normalize())
    rows = [{"query": text, "positive": text.upper(), "negative": "spoke"} for text in TEXTS]
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    before = Encoder.from_pretrained(path, dtype="float32")
    train_contrastive(
        Contrastive(
            model=str(path), data=(str(data),), output=tmp_path / "out", epochs=3, batch_size=4
        )
    )
    after = Encoder.from_pretrained(tmp_path / "out", dtype="float32")
    assert after.recipe.heads == before.recipe.heads
    heads = [encoder.model.head for encoder in (before, after)]
    old, new = ({**head.state_dict()} for head in heads if head is not None)
    assert all(not torch.equal(old[name], new[name]) for name in old)
