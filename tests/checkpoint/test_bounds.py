"""Checkpoints by somebody who means harm, or that were damaged: an error, soon, that names it."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import BUNDLED
from helpers.other_models import SHARD, configured, copy_of
from safetensors.torch import load_file, save_file

from llm_embeddings import Encoder, Recipe, get_recipe
from llm_embeddings.checkpoint.bounds import _backtracks, inside
from llm_embeddings.families import RECIPES

INDEX = "model.safetensors.index.json"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return copy_of(tmp_path / "model")


def changed(path: Path, name: str, change: Callable[[Any], Any]) -> None:
    values = json.loads((path / name).read_text(encoding="utf-8"))
    values = change(values) or values
    (path / name).write_text(json.dumps(values), encoding="utf-8")


def refused(path: Path, words: str, **options: Any) -> None:
    begun = time.process_time()  # the machine may be busy
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        Encoder.from_pretrained(path, device="cpu", dtype="float32", **options)
    assert time.process_time() - begun < 10


# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**6),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", 10**400),
        ("num_attention_heads", "4"),
        ("intermediate_size", 2**30),
        ("hidden_size", 2**20),
        ("vocab_size", 2**30),
        ("head_dim", 2**24),
        ("hidden_size", -1),
        ("rope_theta", float("nan")),
        ("rms_norm_eps", float("inf")),
        ("layer_types", ["full_attention"] * 3),
        ("hidden_act", "no such thing"),
        ("num_attention_heads", 3),
    ],
)
def test_configs_that_the_weights_do_not_bear_out(path: Path, key: str, value: Any) -> None:
    configured(path, **{key: value})
    refused(path, r"config\.json|do not fit")


def test_an_adapter_is_as_large_as_its_matrices(tmp_path: Path) -> None:
    case = shutil.copytree(BUNDLED / "llm2vec-mistral", tmp_path / "case")
    for values, words in (
        ({"r": 10**6}, "r = 1000000, and its matrices have"),
        ({"r": "8"}, "r = '8'"),
        ({"rank_pattern": {"(a*)*b": 4}}, "is a pattern"),
        ({"lora_alpha": float("inf")}, "lora_alpha = inf must be a finite number"),
        ({"rank_pattern": ""}, "rank_pattern = '' must be an object"),
        ({"alpha_pattern": [[]]}, r"alpha_pattern = \[\[\]\] must be an object"),
        ({"exclude_modules": "(.*)*x"}, "is a pattern"),
        ({"r": None, "lora_alpha": [[]]}, "adapter_config.json"),
    ):
        shutil.copy(BUNDLED / "llm2vec-mistral/mntp/adapter_config.json", case / "mntp")
        changed(case / "mntp", "adapter_config.json", lambda found, new=values: found | new)
        refused(case / "mntp", words)


def test_a_pattern_of_modules_is_not_run(tmp_path: Path) -> None:
    case = shutil.copytree(BUNDLED / "llm2vec-mistral", tmp_path / "case")
    pattern = {"target_modules": "(([a-z]+)*)*!"}
    wanted = Encoder.from_pretrained(case / "mntp", dtype="float32", device="cpu").encode("x y")
    changed(case / "mntp", "adapter_config.json", lambda found: found | pattern)
    found = Encoder.from_pretrained(case / "mntp", dtype="float32", device="cpu").encode("x y")
    assert found.tolist() == wanted.tolist()


# -- tokenizers ------------------------------------------------------------------------------------


def test_patterns_that_may_run_for_ever(path: Path) -> None:
    def change(values: Any) -> None:
        pattern = {"Regex": "(?:[a-z]+)*!"}
        values["pre_tokenizer"] = {
            "type": "Split",
            "pattern": pattern,
            "behavior": "Isolated",
            "invert": False,
        }

    changed(path, "tokenizer.json", change)
    refused(path, r"tokenizer\.json: the pattern .* repeats what repeats")


def test_which_patterns_may() -> None:
    for pattern in (r"(a+)+", r"(?:\s*x)*y", r"((a|b+)c){2,}", r"([a-z]*)*"):
        assert _backtracks(pattern), pattern
    for pattern in (
        r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+",
        r"(ab)+",
        r"\(a+\)+",
        r"[(a+)]+",
        r" {2,}",
    ):
        assert not _backtracks(pattern), pattern


def test_too_many_tokens_and_a_library_that_panics(path: Path) -> None:
    token = {"id": 0, "content": "", "special": False, "normalized": False}
    token |= {"single_word": False, "lstrip": False, "rstrip": False}
    many = [token | {"id": 32000 + n, "content": f"<{n}>"} for n in range(70_000)]
    changed(path, "tokenizer.json", lambda values: values | {"added_tokens": many})
    refused(path, "adds 70,000 tokens")
    changed(path, "tokenizer.json", lambda values: values | {"added_tokens": [], "model": {}})
    refused(path, r"cannot read .*tokenizer\.json")


# -- files outside ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x.safetensors", "a/../../x", "C:\\x", "a\0b", 3]
)
def test_names_stay_in_the_folder(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ValueError, match="which does not lie in its folder"):
        inside(tmp_path, name, tmp_path / "modules.json")


def test_shards_and_modules_stay_in_the_folder(path: Path) -> None:
    other = copy_of(path.parent / "other")
    for place in (str(other / SHARD), f"../other/{SHARD}"):
        weights = {"weight_map": {"norm.weight": place}}
        (path / INDEX).write_text(json.dumps(weights), encoding="utf-8")
        refused(path, re.escape(INDEX))
    (path / INDEX).write_text("{}", encoding="utf-8")
    refused(path, "no weight_map")
    again = copy_of(path.parent / "again")
    changed(again, "modules.json", lambda found: [found[0], found[1] | {"path": "../other"}])
    refused(again, r"modules\.json names '\.\./other'")


def test_links_stay_in_the_folder(path: Path) -> None:
    secret = path.parent / "secret.safetensors"
    (path / SHARD).rename(secret)
    (path / SHARD).symlink_to(secret)
    refused(path, "is a link to .*secret")


def test_the_hubs_cache_is_made_of_links(path: Path) -> None:
    blobs, place = path.parent / "models--a--b/blobs", path.parent / "models--a--b/snapshots/1"
    blobs.mkdir(parents=True)
    place.parent.mkdir()
    path.rename(place)
    (place / SHARD).rename(blobs / "0")
    (place / SHARD).symlink_to(blobs / "0")
    Encoder.from_pretrained(place, device="cpu", dtype="float32").close()


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 100_000, r"config\.json is nested too deeply"),
        ('{"hidden_size": ' + "9" * 5000 + "}", r"config\.json is not JSON"),
        ("[]", r"config\.json must hold a JSON object"),
        ("", r"config\.json is not JSON"),
    ],
    ids=["deep", "long", "list", "empty"],
)
def test_files_that_are_not_what_they_should_be(path: Path, content: str, words: str) -> None:
    (path / "config.json").write_text(content, encoding="utf-8")
    refused(path, words)


@pytest.mark.parametrize("value", [float("nan"), [[]], "512", True, 0.5, -1])
def test_limits_that_are_no_numbers_of_tokens(tmp_path: Path, value: Any) -> None:
    copy = shutil.copytree(BUNDLED / "e5-mistral/model", tmp_path / "model")
    limit = {"max_seq_length": value}
    changed(copy, "sentence_bert_config.json", lambda found: found | limit)
    refused(copy, r"model: max_seq_length = .* must be a number of tokens")


def test_prompts_that_are_none(tmp_path: Path) -> None:
    copy = shutil.copytree(BUNDLED / "e5-mistral/model", tmp_path / "model")
    name = "config_sentence_transformers.json"
    changed(copy, name, lambda found: found | {"prompts": "/etc/passwd"})
    refused(copy, "model: prompts = '/etc/passwd' must be an object")


def test_indexes_of_shards_that_transformers_cannot_read(path: Path) -> None:
    changed(path, INDEX, lambda found: found | {"metadata": "x"})
    refused(path, "index.json: metadata must be an object")
    text = (path / INDEX).read_text(encoding="utf-8")
    (path / INDEX).write_text(text, encoding="utf-8-sig")
    refused(path, "index.json begins with a byte order mark")


def test_tokens_that_are_none(tmp_path: Path) -> None:
    copy = shutil.copytree(BUNDLED / "e5-mistral/model", tmp_path / "model")
    changed(copy, "tokenizer.json", lambda found: found["added_tokens"].append("/etc/passwd"))
    refused(copy, r"tokenizer\.json: added_tokens must be objects")


def test_weights_that_are_all_zero(path: Path) -> None:
    for shard in path.glob("*.safetensors"):
        zero = {name: torch.zeros_like(one) for name, one in load_file(shard).items()}
        save_file(zero, shard, metadata={"format": "pt"})
    refused(path, "all zero")


@pytest.mark.parametrize(
    "values",
    [
        {"normalize": "false"},
        {"normalize": 1},
        {"causal": 1},
        {"max_length": True},
        {"max_length": 12.0},
        {"required_tokens": "abc"},
        {"required_tokens": [3]},
        {"bos": 1},
        {"query": "prefix"},
        {"query": {"prefix": 3}},
        {"query": {"pre": "x"}},
        {"separator": 3},
        {"name": None},
        {"heads": [{"kind": "dense", "width": 8, "bias": "no"}]},
        {"heads": [3]},
        {"prompts": {"a": 3}},
    ],
    ids=repr,
)
def test_fields_of_a_recipe_have_their_types(values: dict[str, Any]) -> None:
    whole = get_recipe("mean").to_dict() | {"query": {}, "prompts": {}} | values
    with pytest.raises(ValueError, match="recipe"):
        Recipe.from_dict(whole)


def test_every_listed_recipe_is_read_back() -> None:
    for recipe in RECIPES.values():
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"low": 3}, "low of dim 4"),
        ({"low": [1, 2, 3, float("nan")]}, "low of dim 4"),
        ({"low": [9, 9, 9, 9]}, "low of dim 4 is above high"),
        ({"high": [1, 2]}, "high of dim 4"),
        ({"dim": "4"}, "dim='4'"),
        ({"normalize": "true"}, "normalize='true'"),
        (None, "not objects"),
    ],
)
def test_ranges_are_ranges(path: Path, change: Any, words: str) -> None:
    entry = {"dim": 4, "normalize": True, "low": [0, 0, 0, 0], "high": [1, 1, 1, 1]}
    given = 3 if change is None else entry | change
    values = {"format": 1, "recipe": get_recipe("last-token").to_dict(), "ranges": [given]}
    (path / "llm_embeddings.json").write_text(json.dumps(values), encoding="utf-8")
    refused(path, rf"llm_embeddings\.json: ranges.*{re.escape(words)}")


def test_settings_of_llm2vec_have_their_types() -> None:
    from llm_embeddings.families import llm2vec

    recipe = get_recipe("McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp")
    with pytest.raises(ValueError, match=r"skip_instruction='false'"):
        llm2vec.configured(
            recipe, {"skip_instruction": "false"}, base_model="", model_type="mistral"
        )
