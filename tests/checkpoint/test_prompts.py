"""Named prompts, chat templates and lower-casing: as sentence-transformers, through every host."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import random_checkpoints
from langchain_llm_embeddings import LLMEmbeddings
from llama_index.embeddings.llm_embeddings import LLMEmbedding
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from sentence_transformers_llm_embeddings import as_sentence_transformer
from transformers import PreTrainedTokenizerFast

from llm_embeddings import Encoder

TEXTS = [
    *random_checkpoints.TEXTS,
    "",
    "  White Rain\n",
    "a [SEP] in </s> the text",
    "the cat sat " * 30,
]
PROMPTS = {"query": "what is ", "clustering": "hills ", "": "the empty name "}
CHAT = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
TRIMMED = "{% for m in messages %}<s>{{ m['content'] | trim }}</s>{% endfor %}<s>rain"
PARTS = "{% for m in messages %}{{ m.role }}: {{ m.content[0].text }}</s>{% endfor %}"
GENERATES = (
    "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}</s>the{% endif %}"
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a model with prompts, a chat template and settings of its first module."""

    def write(
        chat: str | None = None, prompts: dict[str, str] | None = None, **settings: Any
    ) -> Path:
        work = tmp_path_factory.mktemp("model")
        random_checkpoints.write(random_checkpoints.plain("qwen3"), work)
        if chat is not None:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "backbone")
            tokenizer.chat_template = chat
            tokenizer.save_pretrained(work / "backbone")
        transformer = Transformer(str(work / "backbone"), **settings)
        transformer.max_seq_length = 40
        modules = [transformer, Pooling(32, pooling_mode="lasttoken")]
        model = SentenceTransformer(modules=modules, prompts=prompts, device="cpu")
        model.save(str(work / "saved"), create_model_card=False)
        return work / "saved"

    return write


def compare(path: Path, names: list[str]) -> Encoder:
    """Ours and theirs as queries, as documents, and by every name."""
    theirs = SentenceTransformer(str(path), device="cpu")
    ours = Encoder.from_pretrained(path, dtype="float32")
    pairs = [
        (ours.encode_query(TEXTS), theirs.encode_query(TEXTS, batch_size=1)),
        (ours.encode_document(TEXTS), theirs.encode_document(TEXTS, batch_size=1)),
    ]
    for name in names:
        wanted = theirs.encode(TEXTS, prompt_name=name, batch_size=1)
        pairs.append((ours.encode(TEXTS, prompt_name=name), wanted))
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())
    return ours


@pytest.mark.parametrize("chat", [CHAT, TRIMMED, PARTS], ids=["plain", "trimmed", "structured"])
def test_a_chat_template_stands_around_every_text(chat: str, saved: Callable[..., Path]) -> None:
    ours = compare(saved(chat, {"query": "find it", "clustering": "group"}), ["clustering"])
    assert ours.recipe.query.suffix
    assert "find it" in ours.recipe.query.prefix


def test_arguments_of_a_chat_template(saved: Callable[..., Path]) -> None:
    options = {"chat_template": {"add_generation_prompt": True}}
    ours = compare(saved(GENERATES, processing_kwargs=options), [])
    assert ours.recipe.document.suffix == "</s>the"


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ("{{ messages[0]['content'] }} {{ messages[0]['content'] }}", "does more than stand"),
        ("{{ messages[0]['content'] | upper }}</s>", "does more than stand"),
        ("{{ raise_exception('no roles') }}", "cannot render the prompt '': no roles"),
        ("the {{ messages[0]['content'] }}4", "fuses with what is around it"),
    ],
)
def test_a_chat_template_that_is_no_frame_is_refused(
    chat: str, message: str, saved: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(saved(chat))


def test_prompts_by_name(saved: Callable[..., Path], tmp_path: Path) -> None:
    path = saved(prompts=PROMPTS)
    ours = compare(path, ["query", "clustering", ""])
    wanted = ours.encode(TEXTS, prompt_name="clustering")
    assert not np.allclose(wanted, ours.encode(TEXTS))
    np.testing.assert_array_equal(
        [next(ours.iter_encode([text], prompt_name="clustering")) for text in TEXTS[:2]],
        [ours.encode(text, prompt_name="clustering") for text in TEXTS[:2]],
    )
    known = r"'grouping' is not one of \('query', 'document', '', 'clustering'\)"
    for call in (ours.encode, ours.iter_encode, ours.encode_tokens):
        with pytest.raises(ValueError, match=known):
            call(["a"], prompt_name="grouping")
    with pytest.raises(ValueError, match="instruction 'x' has no place"):
        ours.encode("a", instruction="x", prompt_name="clustering")
    with pytest.raises(ValueError, match="prompt_name is for one kind"):
        ours.encode_both("a", prompt_name="clustering")
    ours.save_pretrained(tmp_path / "again")
    again = Encoder.from_pretrained(tmp_path / "again", dtype="float32")
    np.testing.assert_array_equal(again.encode(TEXTS, prompt_name="clustering"), wanted)
    exported = tmp_path / "exported"
    ours.export_sentence_transformers(exported)
    native = SentenceTransformer(str(exported), device="cpu")
    np.testing.assert_allclose(
        native.encode(TEXTS, prompt_name="clustering", batch_size=1), wanted, atol=1e-4
    )


def test_prompts_by_name_through_the_hosts(saved: Callable[..., Path]) -> None:
    path = saved(prompts=PROMPTS)
    encoder = Encoder.from_pretrained(path, dtype="float32")
    wanted = encoder.encode(TEXTS[:3], prompt_name="clustering")
    plain = encoder.encode(TEXTS[:3])

    chain = LLMEmbeddings(encoder=encoder, document_prompt_name="clustering")
    np.testing.assert_allclose(chain.embed_documents(TEXTS[:3]), wanted, atol=1e-6)
    assert chain.embed_query("a") == LLMEmbeddings(encoder=encoder).embed_query("a")
    spaces = {
        LLMEmbeddings(encoder=encoder, document_prompt_name=name).cache_namespace("document")
        for name in (None, "clustering", "")
    }
    assert len(spaces) == 3

    index = LLMEmbedding(encoder=encoder, query_prompt_name="clustering")
    np.testing.assert_allclose(index.get_query_embedding(TEXTS[0]), wanted[0], atol=1e-6)
    np.testing.assert_allclose(index.get_text_embedding(TEXTS[0]), plain[0], atol=1e-6)
    for host in (LLMEmbeddings, LLMEmbedding):
        with pytest.raises(ValueError, match="'grouping' is not one of"):
            host(encoder=encoder, query_prompt_name="grouping")  # type: ignore[operator]

    native = as_sentence_transformer(encoder)
    np.testing.assert_allclose(
        native.encode(TEXTS[:3], prompt_name="clustering"), wanted, atol=1e-5
    )


def test_vectors_of_two_prompts_do_not_mix_in_a_cache(
    saved: Callable[..., Path], tmp_path: Path
) -> None:
    path = saved(prompts=PROMPTS)
    plain = Encoder.from_pretrained(path, dtype="float32")
    kept = Encoder.from_pretrained(path, dtype="float32", vector_cache=tmp_path / "v.sqlite")
    for _ in range(2):
        for name in (None, "clustering", "query", ""):
            np.testing.assert_allclose(
                kept.encode(TEXTS, prompt_name=name),
                plain.encode(TEXTS, prompt_name=name),
                atol=1e-6,
            )


def test_lower_case_before_everything_but_special_tokens(
    saved: Callable[..., Path], tmp_path: Path
) -> None:
    ours = compare(saved(prompts={"query": "What IS "}, do_lower_case=True), [])
    np.testing.assert_array_equal(ours.encode("THE CAT"), ours.encode("the cat"))
    ours.save_pretrained(tmp_path / "again")
    again = Encoder.from_pretrained(tmp_path / "again", dtype="float32")
    np.testing.assert_array_equal(again.encode(TEXTS), ours.encode(TEXTS))


def test_a_limit_beyond_the_positions_is_refused(saved: Callable[..., Path]) -> None:
    path = saved()
    file = path / "sentence_bert_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_seq_length": 131}))
    with pytest.raises(ValueError, match="max_seq_length = 131, and the model has 130 positions"):
        Encoder.from_pretrained(path)
