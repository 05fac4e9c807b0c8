"""What follows the pooling: trained with the backbone, or put on a model that has nothing there."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_close
from helpers.training import (
    MODEL,
    assert_same_gradients,
    losses_of,
    quick,
    triplets,
    update,
    write_rows,
)
from helpers.training_heads import HEADED, WIDTH, options
from helpers.training_processes import run_two
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from llm_embeddings import Encoder, Recipe
from llm_embeddings.packed.heads import build
from llm_embeddings.recipe import Head
from llm_embeddings.training import (
    GRIT,
    MNTP,
    Contrastive,
    Distill,
    LLaRA,
    LoraOptions,
    SimCSE,
    contrastive,
    distill,
    grit,
    llara,
    mntp,
    simcse,
    train_contrastive,
    train_distill,
)
from llm_embeddings.training.passes.encoding import Encoding
from llm_embeddings.training.run import loop
from llm_embeddings.training.weights.loading import load_backbone_for_training, new_heads

TEXTS = ["which stone is red", "stone 3 is blue", "no stone at all"]
WEIGHT, BIAS = "0.linear.weight", "0.linear.bias"
PLAIN = LoraOptions(dropout=0.0)


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a head."""
    torch.manual_seed(3)
    plain = Encoder.from_pretrained(MODEL, recipe=HEADED.replace(heads=()), dtype="float32").model
    head = build(HEADED.heads, plain.dimension)
    path = tmp_path_factory.mktemp("headed")
    Encoder(plain.backbone, plain.tokenizer, HEADED, head=head).save_pretrained(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    triplets(tmp_path / "rows.jsonl")
    write_rows(tmp_path / "texts.jsonl", [{"text": f"stone {i} is old"} for i in range(12)])
    draw = np.random.default_rng(0)
    np.save(tmp_path / "teacher.npy", draw.normal(size=(12, WIDTH)).astype(np.float32))
    return tmp_path


def stage_of(name: str, folder: Path, **more: Any) -> Any:
    """A stage over the rows or texts of the folder."""
    if name == "contrastive":
        return contrastive._Stage(options(folder, **more))
    values = quick(folder, str(folder / "texts.jsonl"), **{"lora": PLAIN, **more})
    if name == "simcse":
        return simcse._Stage(SimCSE(**values, attention_dropout=0.1))
    return distill._Stage(Distill(**values, teacher=str(folder / "teacher.npy")))


def heads_in(path: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(path / "heads.safetensors")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("lora", [PLAIN, None])
@pytest.mark.parametrize("name", ["contrastive", "simcse", "distill"])
def test_a_head_is_trained_with_the_rest(
    name: str, lora: LoraOptions | None, headed: Path, folder: Path
) -> None:
    """In float32, and in chunks as at once."""
    found = []
    for tokens in (8192, 24):
        more: dict[str, Any] = {"model": str(headed), "recipe": None, "batch_tokens": tokens}
        stage = stage_of(name, folder, **more, dtype="auto", lora=lora)
        head = stage.model.head[0].linear
        assert head.weight.dtype == torch.float32
        optimizer = loop._optimizer(stage.model, stage._options)
        groups = [weight for group in optimizer.param_groups for weight in group["params"]]
        assert {id(head.weight), id(head.bias)} <= set(map(id, groups))
        found.append(update(stage, next(stage.batches(0))))
        assert head.weight.grad.abs().min() > 0
    if name != "simcse":  # whose dropout differs
        (loss, wanted), (again, chunked) = found
        assert again["loss"] == pytest.approx(loss["loss"], rel=1e-4)
        if lora is None:
            assert_same_gradients(chunked, wanted, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("save", ["adapter", "merged"])
def test_a_run_saves_its_head_and_goes_on_with_it(
    save: Any, headed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {"model": str(headed), "recipe": None, "max_steps": 4, "save_every": 2}
    whole = options(folder, output=folder / "whole", save=save, batch_tokens=40, **more)
    vectors: list[Any] = []
    real = contrastive._Stage.save

    def saved(self: Any, model: Any, directory: Path) -> None:
        vectors.append(self.encode(model.eval(), TEXTS, "document"))
        real(self, model, directory)

    monkeypatch.setattr(contrastive._Stage, "save", saved)
    train_contrastive(whole)
    halved = dataclasses.replace(whole, output=folder / "halved", max_steps=2)
    train_contrastive(halved)
    train_contrastive(dataclasses.replace(halved, max_steps=4, resume=True))
    assert losses_of(folder / "halved") == losses_of(folder / "whole")
    before, after, again = map(heads_in, (headed, folder / "whole", folder / "halved"))
    for key in (WEIGHT, BIAS):
        assert after[key].dtype == torch.float32
        assert (after[key] - before[key]).abs().mean() > 1e-2
        assert torch.equal(after[key], again[key])
    loaded = Encoder.from_pretrained(folder / "whole", dtype="float32")
    found = loaded.encode_document(TEXTS, normalize=False)
    assert_close(found, vectors[0], atol=2e-2 if save == "merged" else 1e-5)  # merged in bfloat16


def test_a_head_computes_in_float32_whatever_the_backbone_does() -> None:
    plain = HEADED.replace(heads=())
    made = Contrastive(model=MODEL, output=Path("out"), data="unused", recipe=HEADED)
    trained = load_backbone_for_training(made)
    assert trained.head is not None
    rows, starts = [[1, 5, 6, 7], [1, 8, 9]], [0, 0]
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        pooled = Encoding(trained.backbone, plain).vectors(rows, starts)
        found = Encoding(trained.backbone, HEADED, head=trained.head).vectors(rows, starts)
    assert_close(found.numpy(), trained.head(pooled).detach().numpy())


@pytest.mark.slow
def test_a_new_head_is_drawn_trained_and_loaded(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another width, to which lengths of matryoshka are held."""
    head = Head(kind="dense", width=48, activation="Tanh")
    more: dict[str, Any] = {"recipe": HEADED.replace(heads=(head,)), "matryoshka": (16, 48)}
    first, same, other = (
        stage_of("contrastive", folder, **more, seed=seed)._trained.head.state_dict()
        for seed in (42, 42, 7)
    )
    assert first[WEIGHT].shape == (48, 24)
    assert torch.equal(first[WEIGHT], same[WEIGHT])
    assert not torch.equal(first[WEIGHT], other[WEIGHT])
    made = options(folder, **more, save="adapter", show_progress=True)
    train_contrastive(made)
    words = "heads drawn at random, as the model has none: dense (48)"
    assert words in capsys.readouterr().out
    assert words in (made.output / "README.md").read_text()
    assert (heads_in(made.output)[WEIGHT] - first[WEIGHT]).abs().mean() > 1e-3
    encoder = Encoder.from_pretrained(made.output, dtype="float32")
    assert encoder.dimension == 48
    assert encoder.recipe.heads == (head,)
    vectors = encoder.encode_document(TEXTS)
    encoder.save_pretrained(folder / "saved")
    assert_close(
        Encoder.from_pretrained(folder / "saved", dtype="float32").encode_document(TEXTS), vectors
    )
    encoder.export_sentence_transformers(folder / "exported")
    stock = SentenceTransformer(str(folder / "exported"), device="cpu")
    assert_close(stock.encode(TEXTS, prompt_name="document", batch_size=1), vectors, atol=2e-5)
    with pytest.raises(ValueError, match="matryoshka=49 is longer than the vectors: 48"):
        stage_of("contrastive", folder, **more | {"matryoshka": (49,)})


@pytest.mark.slow
def test_a_teacher_has_the_length_of_the_head(folder: Path) -> None:
    stage = stage_of("distill", folder, recipe=HEADED)
    assert stage._turn is None
    shorter = HEADED.replace(heads=(Head(kind="dense", width=8),))
    with pytest.raises(ValueError, match=f"have {WIDTH} dimensions and the model's 8: let them be"):
        stage_of("distill", folder, recipe=shorter)
    values = quick(folder, str(folder / "texts.jsonl"), lora=PLAIN, recipe=shorter)
    teacher = str(folder / "teacher.npy")
    result = train_distill(Distill(**values, teacher=teacher, linear_map=True))
    assert Encoder.from_pretrained(result).dimension == 8


def without_weights(path: Path) -> None:
    (path / "heads.safetensors").unlink()


def named_by_modules(path: Path) -> None:
    for name in ("heads.safetensors", "llm_embeddings.json"):
        (path / name).unlink()
    types = ("Transformer", "Pooling", "Dense")
    folders = ("", "1_Pooling", "2_Dense")
    modules = [
        {"path": place, "type": f"sentence_transformers.models.{kind}"}
        for place, kind in zip(folders, types, strict=True)
    ]
    (path / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize("lose", [without_weights, named_by_modules])
def test_heads_that_a_model_should_have_are_not_drawn(
    lose: Callable[[Path], None], headed: Path, folder: Path
) -> None:
    path = folder / "model"
    shutil.copytree(headed, path)
    lose(path)
    with pytest.raises(FileNotFoundError, match="no weights for them|is missing"):
        stage_of("contrastive", folder, model=str(path), recipe=HEADED)


@pytest.mark.slow
def test_heads_of_another_form_are_not_drawn(headed: Path, folder: Path) -> None:
    wider = HEADED.replace(heads=(Head(kind="dense", width=WIDTH + 1),))
    with pytest.raises(ValueError, match="weights of the heads in .* do not fit"):
        stage_of("contrastive", folder, model=str(headed), recipe=wider)
    more = HEADED.replace(heads=(*HEADED.heads, Head(kind="dense", width=8)))
    with pytest.raises(ValueError, match="weights of the heads in .* do not fit"):
        stage_of("contrastive", folder, model=str(headed), recipe=more)
    adapter = folder / "adapter"
    adapter.mkdir()
    config = {"base_model_name_or_path": str(headed)}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert new_heads(options(folder, model=str(adapter))) == ()
    assert new_heads(options(folder)) == HEADED.heads


@pytest.mark.slow
def test_an_adapter_is_not_parted_from_its_heads(headed: Path, folder: Path) -> None:
    made = options(folder, model=str(headed), recipe=None, save="adapter", max_steps=1)
    train_contrastive(made)
    with pytest.raises(ValueError, match="holds heads that were trained with its adapter"):
        Encoder.from_pretrained(headed, adapters=[made.output])


def test_an_encoder_draws_none() -> None:
    with pytest.raises(FileNotFoundError, match="holds no weights for them"):
        Encoder.from_pretrained(MODEL, recipe=HEADED)


def test_what_a_stage_does_not_train_is_not_added(headed: Path, folder: Path) -> None:
    texts, rows = str(folder / "texts.jsonl"), str(folder / "rows.jsonl")
    talks = {"generative": (texts,), "generative_batch_size": 4, "embedding_weight": 0.0}
    chain: Recipe = grit.GRIT_RECIPE.replace(heads=HEADED.heads)
    with pytest.raises(ValueError, match="would not train the new ones of its recipe"):
        mntp._Stage(MNTP(**quick(folder, texts, recipe=HEADED)))
    with pytest.raises(ValueError, match="would not train the new ones of its recipe"):
        grit._Stage(GRIT(**quick(folder, rows, recipe=chain, **talks)))
    for more in (
        {"model": str(headed)},
        {"recipe": llara.LLARA_RECIPE.replace(heads=HEADED.heads)},
    ):
        with pytest.raises(ValueError, match="has heads, which llara neither trains nor keeps"):
            llara._Stage(LLaRA(**quick(folder, texts, **more)))


@pytest.mark.parametrize("lora", [PLAIN, None])
def test_mntp_keeps_a_head_and_evaluates_with_it(
    lora: LoraOptions | None, headed: Path, folder: Path
) -> None:
    model = folder / "model"
    shutil.copytree(MODEL, model)
    for name in ("heads.safetensors", "llm_embeddings.json"):
        shutil.copy(headed / name, model / name)
    texts = str(folder / "texts.jsonl")
    values = quick(folder, texts, model=str(model), lora=lora, block_length=12)
    stage = mntp._Stage(MNTP(**values))
    _, gradients = update(stage, next(stage.batches(0)))
    assert gradients
    assert not any(weight.requires_grad for weight in stage.model.encoding.head.parameters())
    assert stage.encode(stage.model.eval(), TEXTS, "document").shape == (3, WIDTH)
    stage.save(stage.model, folder / "out")
    assert torch.equal(heads_in(folder / "out")[WEIGHT], heads_in(headed)[WEIGHT])


@pytest.mark.slow
def test_sharded_processes_save_the_head_they_trained(folder: Path) -> None:
    train_contrastive(options(folder, output=folder / "single"))
    run_two("helpers.training_heads", folder)
    wanted = heads_in(folder / "single")
    for name in ("fsdp1", "fsdp2"):
        assert losses_of(folder / name) == pytest.approx(losses_of(folder / "single"), rel=1e-5)
        found = heads_in(folder / name)
        for key, weight in wanted.items():
            torch.testing.assert_close(found[key], weight, atol=1e-4, rtol=1e-4)
