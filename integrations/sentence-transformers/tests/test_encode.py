from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers_llm_embeddings import EncoderModule, as_sentence_transformer

from llm_embeddings import Encoder, Template

TEXTS = ["Paris is in France.", "", "cats purr " * 60, "量子コンピュータ 🐈", "a", "  two\n lines "]


def close(a, b, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0)


def test_queries_and_documents_equal_the_encoder(encoder: Encoder) -> None:
    model = as_sentence_transformer(encoder)
    queries, documents = model.encode_query(TEXTS, batch_size=2), model.encode_document(TEXTS)
    close(queries, encoder.encode_query(TEXTS))
    close(documents, encoder.encode_document(TEXTS))
    close(model.encode(TEXTS), documents)
    assert np.abs(queries - documents).max() > 0.01
    assert queries.dtype == np.float32


def test_instruction_fills_the_template_on_either_side(encoder: Encoder) -> None:
    model = as_sentence_transformer(encoder)
    close(model.encode_query(TEXTS, instruction="Find"), encoder.encode_query(TEXTS, "Find"))
    close(model.encode_query(TEXTS, instruction=""), encoder.encode_query(TEXTS, ""))
    close(model.encode_document(TEXTS, instruction="Find"), encoder.encode_document(TEXTS, "Find"))


def test_a_prompt_stands_verbatim_in_place_of_the_prefix(e5: Encoder, llm2vec: Encoder) -> None:
    model = as_sentence_transformer(e5, prompts={"sts": "Instruct: Same?\nQuery: "})
    expected = e5.encode_query(TEXTS, "Same?")
    close(model.encode(TEXTS, prompt_name="sts"), expected)
    close(model.encode_query(TEXTS, prompt="Instruct: Same?\nQuery: "), expected)
    close(model.encode_query(TEXTS, prompt=""), e5.encode_query(TEXTS, ""))
    braces = model.encode(["a"], prompt="{instruction} ")
    close(braces, model.encode(["{instruction} a"]))
    with_suffix = as_sentence_transformer(llm2vec)
    prefix = llm2vec.recipe.query.render_prefix("Same?")
    close(with_suffix.encode(TEXTS, prompt=prefix), llm2vec.encode_query(TEXTS, "Same?"))


def test_prompt_name_of_a_role_is_the_whole_role(encoder: Encoder) -> None:
    model = as_sentence_transformer(encoder)
    close(model.encode(TEXTS, prompt_name="query"), encoder.encode_query(TEXTS))
    close(model.encode(TEXTS, prompt_name="document"), encoder.encode_document(TEXTS))


def test_roles_that_differ_in_their_suffix_alone(e5: Encoder) -> None:
    recipe = e5.recipe.replace(
        query=Template('"', '", next'), document=Template('"', '", same'), instruction=""
    )
    encoder = Encoder(e5.backbone, e5.tokenizer, recipe)
    model = as_sentence_transformer(encoder)
    close(model.encode(TEXTS, prompt_name="query"), encoder.encode_query(TEXTS))
    close(model.encode_query(TEXTS), encoder.encode_query(TEXTS))
    close(model.encode(TEXTS), encoder.encode_document(TEXTS))


def test_prompt_and_instruction_exclude_each_other(e5: Encoder) -> None:
    model = as_sentence_transformer(e5)
    with pytest.raises(ValueError, match="exclude each other"):
        model.encode_query(["a"], prompt="query: ", instruction="Find")


def test_default_prompt_is_what_plain_encode_uses(e5: Encoder) -> None:
    model = as_sentence_transformer(e5, default_prompt_name="query")
    close(model.encode(TEXTS), e5.encode_query(TEXTS))
    assert list(model.prompts) == ["query", "document", *dict(e5.recipe.prompts)]
    named = model.encode(TEXTS, prompt_name="sts_query")
    close(named, e5.encode(TEXTS, prompt_name="sts_query"))


def test_an_empty_prompt_of_a_role_is_refused(e5: Encoder) -> None:
    with pytest.raises(ValueError, match="recipe has no default instruction"):
        as_sentence_transformer(e5, prompts={"query": ""})
    assert as_sentence_transformer(e5, prompts={"document": ""}).prompts["document"] == ""


def test_a_model_made_of_the_bare_module_embeds_queries_as_queries(e5: Encoder) -> None:
    model = SentenceTransformer(modules=[EncoderModule(e5)], device="cpu")
    close(model.encode_query(TEXTS), e5.encode_query(TEXTS))


def test_output_options(gritlm: Encoder) -> None:
    model = as_sentence_transformer(gritlm)
    full = gritlm.encode(TEXTS)
    tensor = model.encode(TEXTS, convert_to_tensor=True, show_progress_bar=True)
    assert isinstance(tensor, torch.Tensor)
    close(tensor, full)
    close(model.encode(TEXTS[0]), full[0])
    close(
        model.encode(TEXTS, truncate_dim=8, normalize_embeddings=True),
        gritlm.encode(TEXTS, truncate_dim=8),
    )
    assert model.encode(TEXTS, precision="ubinary").tolist() == np.packbits(full > 0, -1).tolist()
    assert len(model.encode([])) == 0
    assert np.isfinite(model.encode([""])).all()
    close(model.similarity(full, full), gritlm.similarity(full, full))


def test_the_model_describes_itself(gritlm: Encoder) -> None:
    model = as_sentence_transformer(gritlm, truncate_dim=8)
    assert model.get_embedding_dimension() == 8
    assert model[0].get_embedding_dimension() == gritlm.dimension
    assert (model.device, model.dtype) == (gritlm.device, torch.float32)
    assert model.tokenizer is gritlm.tokenizer
    assert model.get_model_kwargs() == ["instruction"]
    assert gritlm.recipe.name in repr(model)


def test_max_seq_length_can_be_set_and_leaves_the_encoder_alone(e5: Encoder) -> None:
    model = as_sentence_transformer(e5)
    assert model.max_seq_length == e5.max_length
    model.max_seq_length = 24
    close(model.encode(TEXTS), e5.encode(TEXTS, max_length=24))
    assert e5.max_length > 24
    with pytest.raises(ValueError, match="max_seq_length=0"):
        model.max_seq_length = 0


def test_what_is_not_understood_is_an_error(e5: Encoder) -> None:
    model = as_sentence_transformer(e5)
    with pytest.raises(ValueError, match="task='passage'"):
        model.encode(["a"], task="passage")
    with pytest.raises(TypeError, match=r"texts\[1\] is int"):
        model.encode(["a", 1])
    with pytest.raises(ValueError, match="instructoin"):
        model.encode(["a"], instructoin="Find")


def test_a_copy_in_another_process_gives_the_same_vectors(gritlm: Encoder) -> None:
    model = pickle.loads(pickle.dumps(as_sentence_transformer(gritlm)))
    close(model.encode_query(TEXTS), gritlm.encode_query(TEXTS))


@pytest.mark.slow
def test_saved_models_load_back_in_both_libraries(encoder: Encoder, tmp_path: Path) -> None:
    model = as_sentence_transformer(encoder, prompts={"sts": "Same: "}, truncate_dim=8)
    model.max_seq_length = 100
    model.save(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    assert (again.max_seq_length, again.prompts) == (100, model.prompts)
    close(again.encode_query(TEXTS), model.encode_query(TEXTS))
    close(again.encode_document(TEXTS), model.encode_document(TEXTS))
    core = Encoder.from_pretrained(tmp_path)
    close(core.encode_query(TEXTS), encoder.encode_query(TEXTS, max_length=100))


def test_loading_takes_transformers_options(gritlm: Encoder, tmp_path: Path) -> None:
    as_sentence_transformer(gritlm).save(str(tmp_path))
    options = {"dtype": "bfloat16", "attn_implementation": "eager"}
    model = SentenceTransformer(
        str(tmp_path), trust_remote_code=True, device="cpu", model_kwargs=options
    )
    assert model.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dytpe"):
        SentenceTransformer(str(tmp_path), trust_remote_code=True, model_kwargs={"dytpe": "auto"})


def test_a_saved_model_says_what_it_needs(gritlm: Encoder, tmp_path: Path) -> None:
    as_sentence_transformer(gritlm).save(str(tmp_path))
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformer(str(tmp_path))
    path = tmp_path / "config_sentence_transformers.json"
    config = json.loads(path.read_text())
    assert config["requirements"]["sentence-transformers-llm-embeddings"]["specifier"]
    config["requirements"]["sentence-transformers-llm-embeddings"]["specifier"] = ">=99"
    path.write_text(json.dumps(config))
    with pytest.raises(ImportError, match="pip install -U .sentence-transformers-llm-embeddings"):
        SentenceTransformer(str(tmp_path), trust_remote_code=True)


@pytest.mark.slow
def test_two_worker_processes(gritlm: Encoder) -> None:
    model = as_sentence_transformer(gritlm)
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    try:
        vectors = model.encode_query(TEXTS, pool=pool, chunk_size=2)
    finally:
        model.stop_multi_process_pool(pool)
    close(vectors, gritlm.encode_query(TEXTS))
