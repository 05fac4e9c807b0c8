"""`verify`: what must be found is found, what is right passes, and the report says which."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import BUNDLED, GOLDEN, random_checkpoints
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from llm_embeddings import Encoder, Recipe, Template
from llm_embeddings.cli import app
from llm_embeddings.families import printed
from llm_embeddings.families.llm2vec import PLAIN
from llm_embeddings.verifying import Check, Verification, peer
from llm_embeddings.verifying.examples import check_examples
from llm_embeddings.verifying.run import Origin, check_alone, check_peer

CASE = "test/printed"
CODES = {"VERIFIED": 0, "DIFFERENT": 1, "NOTHING TO COMPARE WITH": 2}


def write(path: Path, **values: Any) -> None:
    """Change some values of a JSON file."""
    read = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**read, **values}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Causal, with a window, prompts, an EOS and a limit: everything that can be lost."""
    plan = random_checkpoints.plain("mistral")
    path = random_checkpoints.write(plan, tmp_path_factory.mktemp("verify"))
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    numbers = tokenizer["model"]["vocab"]
    special = {mark: {"id": mark, "ids": [numbers[mark]], "tokens": [mark]} for mark in ("</s>",)}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [text, end],
        "pair": [text, end, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": special,
    }
    tokenizer["normalizer"]["lowercase"] = False
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    write(path / "tokenizer_config.json", model_max_length=90)
    write(path / "sentence_bert_config.json", max_seq_length=90)
    write(path / "config.json", is_causal=True, sliding_window=6)
    write(path / "1_Pooling/config.json", pooling_mode="lasttoken", include_prompt=True)
    prompts = {"query": "query: ", "document": "the "}
    write(path / "config_sentence_transformers.json", prompts=prompts, default_prompt_name=None)
    return path


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Recipe:
    found = Encoder.from_pretrained(folder, dtype="float32").recipe
    assert (found.causal, found.pooling, found.eos) == (True, "last_token", "</s>")
    assert (found.max_length, found.query.prefix) == (90, "query: ")
    return found


def named(verification: Verification, name: str) -> Check:
    (found,) = [check for check in verification.checks if check.name.startswith(name)]
    return found


def verified(path: Path, recipe: Recipe | None = None) -> Verification:
    return Encoder.from_pretrained(path, recipe=recipe, dtype="float32").verify()


def test_a_right_model_is_verified(folder: Path, recipe: Recipe) -> None:
    found = verified(folder)
    assert found.ok, str(found)
    check = named(found, peer.NAME)
    assert (check.status, check.kind) == ("equal", "peer")
    assert named(found, "printed").status == "not run"
    assert verified(folder, recipe).ok


FAULTS: dict[str, dict[str, Any]] = {
    "direction": {"causal": False},
    "window": {"window": "drop"},
    "template of queries": {"query": Template("query query: ")},
    "prompt of documents lost": {"document": Template()},
    "EOS not added": {"eos": False},
    "BOS added": {"bos": "<s>"},
    "pooling": {"pooling": "mean"},
    "limit": {"max_length": 60},
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_recipe_is_found(fault: str, folder: Path, recipe: Recipe) -> None:
    found = verified(folder, recipe.replace(**FAULTS[fault]))
    assert found.verdict == "DIFFERENT", str(found)
    assert named(found, peer.NAME).status == "different"


@pytest.mark.slow
def test_a_limit_beyond_the_sample_is_found(
    folder: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "_LONGEST", 20)
    monkeypatch.setattr(peer, "samples", lambda: ["", "a", "rain fell", "a cat"])
    found = verified(folder, recipe.replace(max_length=60))
    assert named(found, peer.NAME).words == "limit of 60 tokens here, 90 there"


@pytest.mark.slow
def test_unit_length_that_is_lost_is_found(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    kept = [
        module
        for module in json.loads((copy / "modules.json").read_text())
        if not module["type"].endswith("Normalize")
    ]
    (copy / "modules.json").write_text(json.dumps(kept))
    assert verified(copy, recipe.replace(normalize=False)).ok
    assert verified(copy, recipe.replace(normalize=True)).verdict == "DIFFERENT"


@pytest.mark.slow
def test_a_head_that_is_left_out_is_found(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    model = SentenceTransformer(str(folder), device="cpu")
    torch.manual_seed(0)
    model.insert(2, Dense(32, 32, activation_function=torch.nn.Identity()))
    model.save(str(tmp_path / "head"), create_model_card=False)
    found = verified(tmp_path / "head", recipe)
    assert named(found, peer.NAME).status == "different", str(found)


@pytest.mark.slow
def test_upper_case_that_is_kept_is_found(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    write(copy / "sentence_bert_config.json", do_lower_case=True)
    assert verified(copy).ok
    check = named(against(folder, copy), peer.NAME)
    assert check.status == "different"
    assert re.search(r"token ids are .* here and .* there", check.words)


@pytest.mark.slow
def test_a_named_prompt_that_is_another_is_found(folder: Path, tmp_path: Path) -> None:
    copies = []
    for number, prompt in enumerate(("hills ", "rain ")):
        copy = shutil.copytree(folder, tmp_path / str(number))
        prompts = {"query": "query: ", "document": "the ", "clustering": prompt}
        write(copy / "config_sentence_transformers.json", prompts=prompts)
        copies.append(copy)
    right = verified(copies[0])
    assert right.ok
    assert "vectors of query, document, clustering" in named(right, peer.NAME).words
    assert "as a clustering" in named(against(*copies), peer.NAME).words


def against(loaded: Path, directory: Path) -> Verification:
    """A model against a directory that it does not come from."""
    origin = Origin(str(directory), directory, None)
    verification, made = check_alone(Encoder.from_pretrained(loaded, dtype="float32"), origin)
    assert made is not None
    return check_peer(verification, made, origin)


@pytest.mark.slow
def test_weights_that_are_left_out_are_found(folder: Path, tmp_path: Path) -> None:
    """An adapter's part in the embeddings, for one: there is a directory with and one without."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if name.endswith("embed_tokens.weight"))
    low = torch.randn(len(weights[name]), 1) @ torch.randn(1, weights[name].shape[1])
    save_file(
        {**weights, name: weights[name] + 0.05 * low}, copy / "model.safetensors", {"format": "pt"}
    )
    found = against(folder, copy)
    assert found.verdict == "DIFFERENT"
    assert "token ids are the same" in named(found, peer.NAME).words


@pytest.mark.slow
def test_ids_that_differ_are_shown(folder: Path, recipe: Recipe) -> None:
    found = verified(folder, recipe.replace(eos=False))
    assert re.search(r"token ids are .* here and .* there", named(found, peer.NAME).words)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"causal": False}, "attention"),
        ({"normalize": True}, "finite vectors"),
        ({"bos": "<s>"}, "special tokens"),
    ],
)
def test_a_model_that_contradicts_its_recipe_fails(
    change: dict[str, Any], name: str, recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe changes behind the model's back, as no fault should be able to."""
    encoder = Encoder.from_pretrained(
        folder, recipe=recipe.replace(normalize=False), dtype="float32"
    )
    rows = type(encoder.model).rows
    wrong = dataclasses.replace(encoder.model, recipe=encoder.recipe.replace(**change))
    if "bos" in change:
        right = encoder.model
        monkeypatch.setattr(
            type(right), "rows", lambda self, *given, **more: rows(right, *given, **more)
        )
    if "normalize" in change:
        monkeypatch.setattr("llm_embeddings.call.finish", lambda vectors, **_: vectors.copy())
    encoder.model = wrong
    verification, _ = check_alone(encoder, Origin("here", None, None))
    assert named(verification, name).status == "different", str(verification)
    assert verification.verdict == "DIFFERENT"


def test_one_vector_for_all_texts_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.from_pretrained(folder, dtype="float32")
    finish = "llm_embeddings.call.finish"
    monkeypatch.setattr(finish, lambda vectors, **_: torch.ones(vectors.shape).numpy())
    verification, _ = check_alone(encoder, Origin("here", None, None))
    assert named(verification, "unlike texts").status == "different"


def example(encoder: Encoder, **changes: Any) -> printed.Example:
    """What authors would have printed for this model."""
    queries, documents = ("rain fell", "a cat"), ("rain fell over hills", "the cat sat")
    role: Any = "query"
    prefix = encoder.recipe.prefix(role)
    suffix = encoder.recipe.query.suffix
    made = encoder.similarity(encoder.encode_query(queries), encoder.encode_document(documents))
    values = tuple(tuple(float(value) * 100 for value in row) for row in made)
    given = printed.Example(
        name="test",
        checkpoints=(CASE,),
        query=printed.Side(queries, None, prefix, suffix),
        document=printed.Side(documents, None, encoder.recipe.prefix("document"), suffix),
        prompt="recipe",
        solid=True,
        source="here",
        note="",
        printed=(printed.Printed("us", "float32", 100, 6, values, 0.001, 0.01, False),),
    )
    return dataclasses.replace(given, **changes)


def printed_check(encoder: Encoder) -> Check:
    (found,) = check_examples(encoder, CASE)
    return found


def only(monkeypatch: pytest.MonkeyPatch, *examples: printed.Example) -> None:
    monkeypatch.setattr(printed, "examples", lambda: examples)


@pytest.mark.slow
def test_printed_numbers_are_met_by_their_weights_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.from_pretrained(folder, dtype="float32")
    only(monkeypatch, example(encoder))
    check = named(encoder.verify(CASE.upper()), "test (here)")
    assert check.status == "equal"
    assert check.deviation is not None
    assert check.deviation < 1e-6
    assert len(check.printed) == len(check.found) == 2
    with torch.no_grad():
        for weight in encoder.backbone.parameters():
            weight.mul_(1 + 0.2 * torch.rand_like(weight))
    found = encoder.verify(CASE)
    assert named(found, "test (here)").status == "different"
    assert found.verdict == "DIFFERENT"


@pytest.mark.parametrize(
    ("dtype", "scale", "status"),
    [("float32", 1.0, "equal"), ("float32", 1.003, "different"), ("bfloat16", 1.003, "equal")],
)
def test_tolerance_depends_on_what_the_numbers_were_made_in(
    dtype: str, scale: float, status: str, e5: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = example(e5)
    values = tuple(tuple(value * scale for value in row) for row in right.printed[0].values)
    run = dataclasses.replace(right.printed[0], dtype=dtype, values=values)
    only(monkeypatch, dataclasses.replace(right, printed=(run,)))
    assert printed_check(e5).status == status


def test_half_a_source_decides_nothing(e5: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    right = example(e5)
    wrong = dataclasses.replace(right.printed[0], values=((1.0, 2.0), (3.0, 4.0)))
    only(monkeypatch, dataclasses.replace(right, printed=(wrong,), solid=False))
    found = Verification(facts={}, checks=(printed_check(e5),))
    assert printed_check(e5).status == "different"
    assert found.verdict == "NOTHING TO COMPARE WITH"
    assert "DIFFERENT  test (here) (decides nothing)" in str(found)


def test_another_prompt_than_the_authors_is_different(
    e5: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = example(e5)
    side = dataclasses.replace(right.query, prefix="Instruct: x\nQuery:", instruction="x")
    only(monkeypatch, dataclasses.replace(right, query=side))
    check = printed_check(e5)
    assert check.status == "different"
    assert r"'Instruct: x\nQuery:'" in check.words


def test_examples_of_their_own_prompts_run_with_those(
    e5: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Encoder(
        e5.backbone,
        e5.tokenizer,
        e5.recipe.replace(query=Template("few ", " shots"), instruction=""),
    )
    right = example(other)
    sides = {
        "query": printed.Side(right.query.texts, None, "few ", " shots"),
        "document": printed.Side(right.document.texts, None, ""),
    }
    only(monkeypatch, dataclasses.replace(right, prompt="given", **sides))
    check = printed_check(e5)
    assert check.status == "equal", check


def test_llm2vec_without_its_chat_template_is_tried(
    llm2vec: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = llm2vec.recipe.replace(query=PLAIN, document=PLAIN)
    right = example(Encoder(llm2vec.backbone, llm2vec.tokenizer, plain))
    sides = {
        "query": dataclasses.replace(right.query, suffix=""),
        "document": dataclasses.replace(right.document, suffix=""),
    }
    only(monkeypatch, dataclasses.replace(right, prompt="template", **sides))
    check = printed_check(llm2vec)
    assert check.status == "different"
    assert "without the chat template it MATCHES" in check.words


@pytest.mark.slow
@pytest.mark.parametrize("model", ["e5-mistral/model", "gritlm-8x7b/model"])
def test_golden_checkpoints_are_no_published_ones(model: str) -> None:
    """Random weights in published layouts: nothing printed holds for them, and nothing is said."""
    if not (GOLDEN / model).is_dir():
        pytest.skip("not among the cases that are here")
    encoder = Encoder.from_pretrained(GOLDEN / model, dtype="float32")
    found = encoder.verify()
    assert found.verdict == "NOTHING TO COMPARE WITH", str(found)
    assert all(check.status == "equal" for check in found.checks if check.kind == "model")
    assert "hub id       not given" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "checkpoint"),
    [
        ("gritlm-7b/model", "GritLM/GritLM-7B"),
        ("e5-mistral/model", "Salesforce/SFR-Embedding-Mistral"),
    ],
)
def test_golden_checkpoints_are_not_taken_for_published_ones(model: str, checkpoint: str) -> None:
    encoder = Encoder.from_pretrained(BUNDLED / model, recipe=checkpoint, dtype="float32")
    assert named(encoder.verify(), "printed").status == "not run"
    assert encoder.verify(checkpoint).verdict == "DIFFERENT"


@pytest.mark.slow
def test_a_hub_id_that_was_loaded_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **_: str(BUNDLED / "gritlm-7b/model")
    )
    found = Encoder.from_pretrained("GritLM/GritLM-7B", dtype="float32").verify()
    assert found.facts["hub id"] == "GritLM/GritLM-7B"
    assert named(found, "GritLM (").status == "different"


@pytest.mark.slow
def test_a_closing_token_that_the_stock_tokenizer_drops_is_no_difference(e5: Encoder) -> None:
    check = named(e5.verify(), peer.NAME)
    assert check.status == "not run"
    assert "leaves out the closing token (id 2)" in check.words


def test_a_sample_that_cannot_be_embedded_is_a_difference(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(subject: object) -> None:
        raise RuntimeError("index 130 is out of bounds")

    monkeypatch.setattr(peer, "ours", fails)
    check = named(verified(folder), peer.NAME)
    assert (check.status, check.words) == (
        "different",
        "the sample fails here: RuntimeError: index 130 is out of bounds",
    )


@pytest.mark.slow
def test_no_room_for_a_second_copy_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "total_memory", lambda: 1000)
    check = named(verified(folder), peer.NAME)
    assert check.status == "not run"
    assert "no memory for a second copy" in check.words


def test_a_report_can_be_pasted(folder: Path) -> None:
    found = verified(folder)
    lines = str(found).splitlines()
    facts, _, rest = str(found).partition("\n\n")
    assert [line.split("  ")[0] for line in facts.splitlines()] == [
        "model",
        "hub id",
        "revision",
        "recipe",
        "source",
        "computed",
        "fingerprint",
        "versions",
        "machine",
    ]
    for package in ("llm-embeddings", "torch", "transformers", "sentence-transformers"):
        assert re.search(rf"\b{package} [\d.]+", facts)
    assert re.search(r"MistralModel, float32, cpu, \w+, packed", facts)
    assert all(
        re.match(r"(equal|DIFFERENT|passed|FAILED|not run) +\S|           \S", line)
        for line in rest.partition("\n\n")[0].splitlines()
    )
    assert re.search(
        r"^equal +sentence-transformers .*: largest deviation \S+, allowed 0.001$", rest, re.M
    )
    assert lines[-1] == "VERIFIED"
    written = json.loads(json.dumps(found.to_dict()))
    assert written["verdict"] == "VERIFIED"
    assert len(written["checks"]) == len(found.checks)


@pytest.mark.slow
def test_the_command_ends_as_its_verdict_says(folder: Path, tmp_path: Path) -> None:
    runner = CliRunner(env={"COLUMNS": "80", "HF_HUB_OFFLINE": "1"})
    right = runner.invoke(app, ["verify", str(folder), "--dtype", "float32"])
    assert right.exit_code == 0, right.output
    assert right.stdout.endswith("\nVERIFIED\n")
    arguments = ["--as", "GritLM/GritLM-7B", "--dtype", "float32", "--json"]
    wrong = runner.invoke(app, ["verify", str(BUNDLED / "gritlm-7b/model"), *arguments])
    assert wrong.exit_code == 1
    assert json.loads(wrong.stdout)["verdict"] == "DIFFERENT"
    nothing = runner.invoke(app, ["verify"])
    assert nothing.exit_code == 2
    assert nothing.stdout.endswith("\nNOTHING TO COMPARE WITH\n")


def test_what_cannot_be_loaded_is_code_2() -> None:
    runner = CliRunner(env={"HF_HUB_OFFLINE": "1"})
    failed = runner.invoke(app, ["verify", "./no/such/model"])
    assert failed.exit_code == 2
    assert failed.stdout == ""
    assert "error: './no/such/model' is neither a directory nor a hub id" in failed.stderr
    shown = runner.invoke(app, ["--traceback", "verify", "./no/such/model"])
    assert isinstance(shown.exception, FileNotFoundError)
