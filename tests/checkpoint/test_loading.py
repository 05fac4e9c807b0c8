"""Loading: layouts, recipe resolution, and what must be refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import BUNDLED, assert_close
from safetensors.torch import load_file, save_file
from transformers import MambaConfig, MambaModel

from llm_embeddings import Encoder, Recipe, Template, get_recipe

E5 = BUNDLED / "e5-mistral/model"
GRITLM = BUNDLED / "gritlm-7b/model"
LLM2VEC = BUNDLED / "llm2vec-mistral"
TEXTS = ["Bitcoin", "How much protein should a female eat per day?"]


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, dirs_exist_ok=True)
    return target


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def load(model: Path | str | None = None, **options: Any) -> Encoder:
    return Encoder.from_pretrained(model, dtype="float32", **options)


# -- recipes ---------------------------------------------------------------------------------------


def test_families_are_recognised_from_their_files() -> None:
    assert load(GRITLM).recipe.replace(name="", source="") == get_recipe(
        "GritLM/GritLM-7B"
    ).replace(name="", source="")
    listed = get_recipe("McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp-supervised")
    found = load(LLM2VEC / "mntp").recipe
    assert found.replace(name="", source="", bos="<s>") == listed.replace(
        name="", source="", base=None
    )
    e5 = load(E5).recipe
    assert (e5.pooling, e5.causal, e5.bos, e5.eos) == ("last_token", True, "<s>", "</s>")
    assert e5.query == get_recipe("intfloat/e5-mistral-7b-instruct").query


@pytest.mark.slow
def test_argument_beats_sidecar_beats_files(tmp_path: Path) -> None:
    load(E5).save_pretrained(tmp_path)
    edit_json(tmp_path / "llm_embeddings.json", lambda v: v["recipe"].update(max_length=77))
    assert load(tmp_path).max_length == 77
    mine = get_recipe("last-token").replace(max_length=9)
    assert load(tmp_path, recipe=mine).recipe is mine
    assert load(tmp_path, recipe="last-token").recipe is get_recipe("last-token")


def test_unrecognised_checkpoint_is_refused_with_a_way_out(tmp_path: Path) -> None:
    model = copy(E5, tmp_path / "mystery")
    (model / "modules.json").unlink()
    with pytest.raises(ValueError, match=r"cannot tell from its files how .*recipe=Recipe"):
        load(model)
    assert load(model, recipe="mean").encode("text").shape == (32,)


def test_plain_recipes_put_no_bos_that_the_tokenizer_does_not_put(tmp_path: Path) -> None:
    """What was saved with one keeps it, and a Recipe object insists."""
    model = copy(E5, tmp_path / "chat")
    (model / "modules.json").unlink()
    edit_json(model / "tokenizer.json", lambda values: values.update(post_processor=None))
    for name in ("mean", "last-token"):
        fitted = load(model, recipe=name)
        assert fitted.recipe == get_recipe(name).replace(bos=False)
        insisted = load(model, recipe=get_recipe(name))
        assert insisted.tokenize(["a"])[0] == [1, *fitted.tokenize(["a"])[0]]
    insisted.save_pretrained(tmp_path / "saved")
    assert load(tmp_path / "saved").tokenize(["a"])[0][0] == 1


def test_another_family_under_a_listed_name_is_refused() -> None:
    with pytest.raises(ValueError, match="files are those of gritlm"):
        load(GRITLM, recipe="intfloat/e5-mistral-7b-instruct")
    with pytest.raises(
        ValueError, match=r"pooling is \('mean',\), but its files say \('last_token',\)"
    ):
        load(E5, recipe="GritLM/GritLM-7B")
    with pytest.raises(ValueError, match=r"pooling is \('last_k_mean',\)"):
        load(E5, recipe="BAAI/LLARA-passage")
    with pytest.raises(ValueError, match="needs the token '<s1>'"):
        load(E5, recipe=get_recipe("BAAI/LLARA-passage"))
    with pytest.raises(ValueError, match=r"eos='<\|endoftext\|>'.*does not have"):
        load(E5, recipe="Qwen/Qwen3-Embedding-0.6B")
    insisted = get_recipe("intfloat/e5-mistral-7b-instruct").replace(name="mine")
    assert load(GRITLM, recipe=insisted).recipe is insisted


def test_remote_code_is_not_run(tmp_path: Path) -> None:
    model = copy(E5, tmp_path / "remote")
    edit_json(model / "config.json", lambda v: v.update(auto_map={"AutoModel": "modeling_x.X"}))
    with pytest.raises(ValueError, match=r"needs remote code \(modeling_x.X\)"):
        load(model)


@pytest.mark.parametrize("name", ["nvidia/NV-Embed-v2", "BidirLM/BidirLM-1B-Embedding"])
def test_unsupported_siblings_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is not supported: .*remote code"):
        load(name)


def test_misspelt_name_offers_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="intfloat/e5-mistral-7b-instruct"):
        load("intfloat/e5-mistral-7b-instrct", local_files_only=True)
    with pytest.raises(ValueError, match="unknown recipe 'no-such-recipe'"):
        load("not/fetched", recipe="no-such-recipe")
    with pytest.raises(FileNotFoundError, match="neither a directory nor a hub id"):
        load("./no/such/place")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modules": ["Transformer", "Pooling", "LSTM"]}, "only Transformer and Pooling"),
        ({"modules": ["Transformer", "Pooling", "Dense"]}, "dense head's width=None"),
        ({"pooling_mode": "sum"}, "pooling .* is not one of"),
        ({"prompts": {"sts": "In {instruction}: "}}, "the prompt 'sts' is .* cannot be put"),
        ({"prompts": {"passage": "Text: "}}, "a prompt 'passage' and none named 'document'"),
    ],
)
def test_sentence_transformers_files_beyond_us(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    model = copy(E5, tmp_path / "st")
    if "modules" in change:
        modules = json.loads((model / "modules.json").read_text())
        for module, kind in zip(modules, change["modules"], strict=True):
            module["type"] = f"sentence_transformers.models.{kind}"
        (model / "modules.json").write_text(json.dumps(modules))
    elif "prompts" in change:
        edit_json(model / "config_sentence_transformers.json", lambda v: v.update(change))
    else:
        edit_json(model / "1_Pooling/config.json", lambda v: v.update(change))
    with pytest.raises(ValueError, match=message):
        load(model)


# -- adapters --------------------------------------------------------------------------------------


def test_chain_equals_adapters_given_by_hand(llm2vec: Encoder) -> None:
    by_hand = load(
        LLM2VEC / "base",
        adapters=[LLM2VEC / "mntp", LLM2VEC / "supervised"],
        recipe=llm2vec.recipe,
    )
    assert_close(by_hand.encode(TEXTS), llm2vec.encode(TEXTS))


def test_adapter_dtypes_and_merge_in_bfloat16(llm2vec: Encoder) -> None:
    halved = Encoder.from_pretrained(
        LLM2VEC / "mntp", adapters=[LLM2VEC / "supervised"], dtype="bfloat16"
    )
    assert {p.dtype for p in halved.backbone.parameters()} == {torch.bfloat16}
    weight = llm2vec.backbone.layers[0].self_attn.q_proj.weight
    assert torch.equal(
        halved.backbone.layers[0].self_attn.q_proj.weight, weight.to(torch.bfloat16)
    ), "updates are summed in float32 and rounded once"


def test_merged_weights_can_be_trained_and_carry_no_adapter(llm2vec: Encoder) -> None:
    names, weights = zip(*llm2vec.backbone.named_parameters(), strict=True)
    assert all(weight.requires_grad for weight in weights)
    assert not any("lora" in name for name in names)


@pytest.mark.parametrize("config", [None, "base", "saved"])
def test_second_stage_alone_is_refused(
    tmp_path: Path, config: str | None, llm2vec: Encoder
) -> None:
    """Whatever was saved beside it: all stages name the raw base."""
    case = copy(LLM2VEC, tmp_path / "case")
    stage = case / "supervised"
    if config is not None:
        shutil.copyfile(case / "base/config.json", stage / "config.json")
    if config == "saved":
        (stage / "llm2vec_config.json").write_text("{}")
        shutil.copyfile(case / "mntp/tokenizer.json", stage / "tokenizer.json")
    with pytest.raises(ValueError, match="second-stage LLM2Vec adapter"):
        load(stage)
    assert_close(load(case / "mntp", adapters=[stage]).encode(TEXTS), llm2vec.encode(TEXTS))


def test_first_stage_without_its_mark(tmp_path: Path) -> None:
    """A user's own MNTP run saves no config.json; where it belongs is said by who loads it."""
    case = copy(LLM2VEC, tmp_path / "case")
    edit_json(
        case / "base/config.json",
        lambda values: values.update(_name_or_path="mistralai/Mistral-7B-Instruct-v0.2"),
    )
    wanted = load(case / "mntp").encode(TEXTS)
    (case / "mntp/config.json").unlink()
    with pytest.raises(ValueError, match="if this is the first stage, pass the base"):
        load(case / "mntp")
    assert_close(load(case / "base", adapters=[case / "mntp"]).encode(TEXTS), wanted)
    named = "McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp"
    assert_close(load(case / "mntp", recipe=named).encode(TEXTS), wanted)


def test_adapter_with_head_prefix_fits_the_bare_decoder(tmp_path: Path, llm2vec: Encoder) -> None:
    adapter = copy(LLM2VEC / "supervised", tmp_path / "with_head")
    tensors = load_file(adapter / "adapter_model.safetensors")
    renamed = {k.replace("model.layers", "model.model.layers"): v for k, v in tensors.items()}
    save_file(renamed, adapter / "adapter_model.safetensors")
    loaded = load(LLM2VEC / "mntp", adapters=[adapter])
    assert_close(loaded.encode(TEXTS), llm2vec.encode(TEXTS))


def test_adapter_whose_base_is_missing(tmp_path: Path) -> None:
    adapter = copy(LLM2VEC / "mntp", tmp_path / "mntp")
    with pytest.raises(FileNotFoundError, match=r"base '\.\./base' of the adapter .* is missing"):
        load(adapter)


def test_adapter_of_another_shape_or_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="adapter .*supervised does not fit MistralModel"):
        load(E5, adapters=[LLM2VEC / "supervised"])
    partial = copy(LLM2VEC / "supervised", tmp_path / "partial")
    tensors = load_file(partial / "adapter_model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, partial / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="1 weights have no partner"):
        load(LLM2VEC / "mntp", adapters=[partial])
    dora = copy(LLM2VEC / "supervised", tmp_path / "dora")
    edit_json(dora / "adapter_config.json", lambda v: v.update(use_dora=True))
    with pytest.raises(ValueError, match="only plain LoRA"):
        load(LLM2VEC / "mntp", adapters=[dora])


def test_adapter_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no adapter_config.json"):
        load(E5, adapters=[tmp_path])


# -- broken files ----------------------------------------------------------------------------------


def test_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no model"):
        load(tmp_path)


def test_missing_shard(tmp_path: Path) -> None:
    model = copy(E5, tmp_path / "half")
    (model / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 2 .*model-00002-of-00002"):
        load(model)


def test_corrupt_weights(tmp_path: Path) -> None:
    model = copy(E5, tmp_path / "corrupt")
    shard = model / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model-00001-of-00002.safetensors is not a whole"):
        load(model)


def test_binary_weights_are_refused(tmp_path: Path) -> None:
    model = copy(E5, tmp_path / "bin")
    for path in model.glob("model*"):
        path.unlink()
    (model / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"only \.bin weights.*save_pretrained"):
        load(model)


def test_incomplete_weights(tmp_path: Path) -> None:
    model = copy(GRITLM, tmp_path / "incomplete")
    index = json.loads((model / "model.safetensors.index.json").read_text())
    shard = next(s for n, s in index["weight_map"].items() if "layers.1.mlp" in n)
    tensors = load_file(model / shard)
    dropped = next(name for name in tensors if "layers.1.mlp" in name)
    del tensors[dropped], index["weight_map"][dropped]
    save_file(tensors, model / shard, metadata={"format": "pt"})
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"1 weights of MistralModel are missing \(layers.1.mlp"):
        load(model)


def test_weights_of_another_shape(tmp_path: Path) -> None:
    model = copy(E5, tmp_path / "shape")
    edit_json(model / "config.json", lambda v: v.update(intermediate_size=48))
    with pytest.raises(ValueError, match=r"weights.*(fit|mismatched)"):
        load(model)


def test_no_tokenizer(tmp_path: Path) -> None:
    model = copy(E5, tmp_path / "no_tokenizer")
    (model / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json"):
        load(model)


def test_broken_sidecar(tmp_path: Path) -> None:
    load(E5).save_pretrained(tmp_path)
    edit_json(tmp_path / "llm_embeddings.json", lambda v: v["recipe"].update(poolng="mean"))
    with pytest.raises(ValueError, match="unknown recipe key 'poolng'; did you mean 'pooling'"):
        load(tmp_path)
    edit_json(tmp_path / "llm_embeddings.json", lambda v: v.update(format=2))
    with pytest.raises(ValueError, match="has format 2"):
        load(tmp_path)
    assert load(tmp_path, recipe="last-token").recipe.name == "last-token"


# -- checks at load --------------------------------------------------------------------------------


def test_architecture_that_ignores_the_switch(e5: Encoder) -> None:
    backbone = MambaModel(MambaConfig(vocab_size=32000, hidden_size=16, num_hidden_layers=2))
    recipe = Recipe(name="bidirectional-mamba", causal=False, pooling="mean")
    with pytest.raises(ValueError, match="needs bidirectional attention, but MambaModel"):
        Encoder(backbone, e5.tokenizer, recipe)
    Encoder(backbone, e5.tokenizer, recipe.replace(causal=True))


def test_broken_weights_are_found_at_load(tmp_path: Path) -> None:
    model = copy(E5, tmp_path / "nan")
    shard = model / "model-00002-of-00002.safetensors"
    tensors = load_file(shard)
    tensors[next(name for name in tensors if "layers" in name)].fill_(float("nan"))
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not finite"):
        load(model)


def test_bidirectional_recipes_lose_the_sliding_window() -> None:
    assert load(GRITLM).backbone.config.sliding_window is None
    assert load(E5).backbone.config.sliding_window == 4096


def test_bad_dtype_and_unknown_option() -> None:
    with pytest.raises(ValueError, match="dtype='float7'"):
        Encoder.from_pretrained(E5, dtype="float7")
    with pytest.raises(TypeError, match="adapters must be a list"):
        Encoder.from_pretrained(E5, adapters=str(LLM2VEC / "supervised"))
    with pytest.raises(TypeError, match="devise"):
        Encoder.from_pretrained(E5, devise="cpu")  # type: ignore[call-arg]


def test_automatic_dtype_is_never_half_on_a_cpu() -> None:
    dtype = Encoder.from_pretrained(E5, device="cpu").backbone.dtype
    native = torch.cpu.get_capabilities().get("avx512_bf16") or torch.cpu.get_capabilities().get(
        "amx_bf16"
    )
    assert dtype == (torch.bfloat16 if native else torch.float32)


# -- saving ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_save_and_load_again(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert again.recipe == encoder.recipe.replace(base=None)
    assert again.tokenize(TEXTS, "query") == encoder.tokenize(TEXTS, "query")
    for role in ("query", "document"):
        assert_close(again.encode(TEXTS, role), encoder.encode(TEXTS, role))
    assert again.fingerprint("query") == encoder.fingerprint("query")
    assert "auto_map" not in (tmp_path / "config.json").read_text()


@pytest.mark.slow
def test_plain_recipes_run_any_decoder(tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3Model

    source = load(E5)
    config = Qwen3Config(
        vocab_size=32000,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    Qwen3Model(config).save_pretrained(tmp_path)
    source.tokenizer.save_pretrained(tmp_path)
    for recipe in ("last-token", "mean", get_recipe("mean").replace(causal=False)):
        vectors = load(tmp_path, recipe=recipe).encode(TEXTS)
        assert vectors.shape == (2, 16)
        assert np.isfinite(vectors).all()


def test_template_with_its_own_recipe(tmp_path: Path) -> None:
    recipe = Recipe(
        name="mine",
        causal=True,
        pooling="last_token",
        query=Template("Task: {instruction} | ", " >", bare="| "),
        instruction="find it",
        eos=True,
    )
    encoder = load(E5, recipe=recipe)
    assert encoder.tokenize("x", "query") == encoder.tokenize("Task: find it | x >", "document")


# -- the hub ---------------------------------------------------------------------------------------


def write_cache(cache: Path, name: str, files: Path) -> None:
    """Files in the layout of the hub's cache."""
    folder = cache / f"models--{name.replace('/', '--')}"
    copy(files, folder / "snapshots" / "0123abc")
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("0123abc")


def test_hub_ids_from_the_cache(tmp_path: Path, llm2vec: Encoder, gritlm: Encoder) -> None:
    """A listed second stage brings its MNTP stage and its base, all by hub id."""
    mntp = "McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp"
    base = "mistralai/Mistral-7B-Instruct-v0.2"
    for name, files in (
        (base, LLM2VEC / "base"),
        (mntp, LLM2VEC / "mntp"),
        (f"{mntp}-supervised", LLM2VEC / "supervised"),
        ("GritLM/GritLM-7B", GRITLM),
    ):
        write_cache(tmp_path, name, files)
    for config in tmp_path.glob("models--McGill*/snapshots/*/adapter_config.json"):
        edit_json(config, lambda values: values.update(base_model_name_or_path=base))
    loaded = load(f"{mntp}-supervised", cache_dir=tmp_path, local_files_only=True)
    assert loaded.recipe is get_recipe(f"{mntp}-supervised")
    assert_close(loaded.encode(TEXTS), llm2vec.encode(TEXTS))
    loaded = load("GritLM/GritLM-7B", cache_dir=tmp_path, local_files_only=True)
    assert_close(loaded.encode(TEXTS), gritlm.encode(TEXTS))


def test_hub_id_with_a_missing_shard(tmp_path: Path) -> None:
    write_cache(tmp_path, "intfloat/e5-mistral-7b-instruct", E5)
    next(tmp_path.rglob("model-00002*")).unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 2 weight files"):
        load("intfloat/e5-mistral-7b-instruct", cache_dir=tmp_path, local_files_only=True)
