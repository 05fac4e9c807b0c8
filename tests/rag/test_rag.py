"""An index, and a reader whose cached answers are those of the reference or of no cache at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import BUNDLED, SMALL, assert_close, golden_cases, read_case
from langchain_text_splitters import RecursiveCharacterTextSplitter
from transformers import AutoModelForCausalLM, MistralConfig

from llm_embeddings import Encoder
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.corpus import load_corpus
from llm_embeddings.generation import Generator
from llm_embeddings.generation.decoding import Decoding
from llm_embeddings.rag import MODES, DocumentIndex, Reader, StateStore, late_vectors, spans_of
from llm_embeddings.ranking.fusion import fuse

TEXTS = ["Paris is the capital of France.", "Cats purr when happy.", "Rust never sleeps."]
LENGTHS = (1, 7, 40, 150)


@pytest.fixture(scope="module")
def generator(gritlm: Encoder) -> Generator:
    return Generator(gritlm)


@pytest.fixture(scope="module")
def small() -> Encoder:
    return Encoder.from_pretrained()


@pytest.fixture
def index(small: Encoder) -> DocumentIndex:
    index = DocumentIndex(small)
    index.add(TEXTS, ids=["paris", "cats", "rust"], metadata=[{"n": n} for n in range(3)])
    return index


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """A causal embedder with a sliding window, and a tokenizer that merges newlines into dots."""
    path = tmp_path_factory.mktemp("windowed")
    torch.manual_seed(0)
    config = MistralConfig(**SMALL, sliding_window=16, initializer_range=0.5)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenizer = load_tokenizer(BUNDLED / "e5-mistral/model")
    tokenizer.add_tokens([".\n\n", "o\n\n"])
    tokenizer.chat_template = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}>"
    tokenizer.save_pretrained(path)
    return Generator(Encoder.from_pretrained(path, recipe="last-token", dtype="float32"))


def documents(length: int, number: int) -> list[str]:
    words = " ".join(document.text for document in load_corpus()).split()
    return [" ".join(words[n * length : (n + 1) * length]) + "." for n in range(number)]


@pytest.mark.golden
@pytest.mark.parametrize("case", golden_cases("gritlm"), ids=lambda path: path.name)
@pytest.mark.parametrize(("name", "mode"), [("doc_cache", "doc"), ("query_doc_cache", "query-doc")])
def test_paper_rule_is_the_references(case: Path, name: str, mode: str) -> None:
    encoder = Encoder.from_pretrained(
        case / "model", recipe=read_case(case)["hub_ids"]["model"], dtype="float32"
    )
    golden = read_case(case)["generation_with_cache"][name]
    reader = Reader(Generator(encoder), mode=mode, rule="paper")
    for cached in (0, golden["cache_len"]):
        found = reader.answer(golden["query"], [golden["doc"]], max_new_tokens=16)
        assert list(found.ids) == golden["new_ids"]
        assert found.prompt_tokens == golden["cache_len"] + len(golden["prompt_ids"])
        assert found.cached_tokens == cached


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", ["generator", "windowed"])
@pytest.mark.slow
def test_exact_answers_are_those_without_a_cache(
    mode: str, model: str, request: pytest.FixtureRequest
) -> None:
    generator: Generator = request.getfixturevalue(model)
    reader = Reader(generator, mode=mode)
    for length in LENGTHS:
        for number in (1, 3):
            texts = documents(length, number)
            ids = reader.prompt_ids("Who was that?", texts)
            wanted = generator.generate_ids([ids], Decoding(max_new_tokens=10))[0].ids
            first = reader.answer("Who was that?", texts, max_new_tokens=10)
            again = reader.answer("Who was that?", texts, max_new_tokens=10)
            assert first.ids == again.ids == wanted
            assert (again.cached_tokens > 0) == (mode != "none")
            assert again.cached_tokens >= first.cached_tokens


def test_prompts_are_the_published_ones(generator: Generator) -> None:
    tokenizer = generator.encoder.tokenizer
    wanted = {
        "doc": "<|user|>\nD\n\nQ\n\nAnswer the prior query while optionally using the context "
        "prior to it\n<|assistant|>\n",
        "query": "<|user|>\nQ\n\nD\n\nOptionally using the prior context answer the query prior to "
        "it\n<|assistant|>\n",
    }
    for mode, text in wanted.items():
        ids = Reader(generator, mode=mode).prompt_ids("Q", ["D"])
        assert ids == [1, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert Reader(generator).prompt_ids("Q", []) == generator.prompt_ids("Q")


def test_prepared_documents_are_not_read_again(generator: Generator) -> None:
    texts = documents(30, 3)
    reader = Reader(generator)
    cost = reader.cost(texts)
    assert reader.prepare(texts) == 3
    assert reader.prepare(texts) == 0
    assert reader.states is not None
    assert reader.states.nbytes == cost.nbytes == cost.tokens * 3 * 2 * 2 * 6 * 4
    for text in texts:
        found = reader.answer("Why?", [text], max_new_tokens=4)
        assert found.prompt_tokens > found.cached_tokens > 30
    changed = texts[0].replace(" ", " not ", 1)
    assert reader.answer("Why?", [changed], max_new_tokens=4).cached_tokens == 0
    reader.forget(texts)
    assert reader.answer("Why?", [texts[1]], max_new_tokens=4).cached_tokens == 0


def test_windowed_documents_hit_whatever_the_question_merges(windowed: Generator) -> None:
    reader = Reader(windowed)
    reader.prepare(["Hello"])
    assert reader.answer("Why?", ["Hello"], max_new_tokens=4).cached_tokens > 0
    assert reader.answer("\nWhy?", ["Hello"], max_new_tokens=4).cached_tokens > 0


def test_paper_states_go_together_in_any_order(generator: Generator) -> None:
    texts = documents(20, 2)
    reader = Reader(generator, rule="paper")
    assert reader.prepare(texts) == 2
    for order in (texts, texts[::-1]):
        found = reader.answer("Why?", order, max_new_tokens=4)
        assert found.cached_tokens == reader.cost(texts).tokens


def test_reader_streams_what_it_answers(generator: Generator) -> None:
    reader = Reader(generator)
    text = "".join(reader.stream("Why?", TEXTS, max_new_tokens=12))
    assert text == reader.answer("Why?", TEXTS, max_new_tokens=12).text


def test_states_that_cannot_fit_are_refused_before_reading(generator: Generator) -> None:
    reader = Reader(generator, states=StateStore(max_bytes=10_000))
    with pytest.raises(ValueError, match="max_bytes=10,000"):
        reader.prepare(documents(30, 3))
    assert reader.states is not None
    assert len(reader.states) == 0
    with pytest.raises(ValueError, match="32768 positions"):
        Reader(generator).prepare(["word " * 33_000])
    with pytest.raises(ValueError, match="32768 positions"):
        Reader(generator).answer("Why?", ["word " * 33_000])


def test_what_does_not_go_together_is_named(generator: Generator, windowed: Generator) -> None:
    with pytest.raises(ValueError, match="mode='docs'"):
        Reader(generator, mode="docs")
    with pytest.raises(ValueError, match="rule='fast'"):
        Reader(generator, rule="fast")
    with pytest.raises(ValueError, match="rule='paper'"):
        Reader(windowed, rule="paper")
    for mode in ("none", "query", "query-doc"):
        with pytest.raises(ValueError, match="use mode='doc'"):
            Reader(generator, mode=mode).prepare(TEXTS)


def test_hits_have_all_that_was_added(index: DocumentIndex) -> None:
    hits = index.search("What is the capital of France?", k=9)
    assert hits[0].id == "paris"
    assert len(hits) == 3
    assert (hits[0].text, hits[0].metadata) == (TEXTS[0], {"n": 0})
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    with pytest.raises(ValueError, match="k=0"):
        index.search("x", k=0)


def test_scores_are_those_of_the_encoder(index: DocumentIndex, small: Encoder) -> None:
    scores = small.similarity(small.encode_query("music"), small.encode_document(TEXTS))[0]
    found = {hit.text: hit.score for hit in index.search("music", k=3, mode="vector")}
    assert_close([found[text] for text in TEXTS], scores)


def test_words_and_vectors_rank_together(index: DocumentIndex) -> None:
    index.add(["Error QX-7741: the lock is held.", "Error QX-7742: the lock is free."], ["a", "b"])
    query = "what does qx-7742 mean"
    (words,) = index.search(query, k=1, mode="words")
    assert (words.id, words.cosine, words.score) == ("b", None, words.words)
    both = index.search(query, k=9)
    assert both[0].id == "b"
    cosines = {hit.id: hit.score for hit in index.search(query, k=9, mode="vector")}
    assert {hit.id: hit.cosine for hit in both} == pytest.approx(cosines, abs=1e-6)
    scores = fuse(*(np.array([getattr(hit, leg) for hit in both]) for leg in ("cosine", "words")))
    assert_close([hit.score for hit in both], scores)


def test_words_are_in_step_with_the_documents(index: DocumentIndex) -> None:
    def found(word: str) -> list[str]:
        return [hit.id for hit in index.search(word, k=9, mode="words")]

    index.add(["A zebra is striped."], ids=["paris"])
    assert (found("zebra"), found("capital")) == (["paris"], [])
    index.add_chunked(["one zebra. two okapi."], 11, ids=["long"])
    assert (found("okapi"), sorted(found("zebra"))) == (["long#1"], ["long#0", "paris"])
    index.add_chunked(["one quagga."], 11, ids=["long"])
    index.delete(["paris"])
    assert (found("zebra"), found("okapi"), found("quagga")) == ([], [], ["long#0"])


def test_modes_that_cannot_be_are_named(index: DocumentIndex, small: Encoder) -> None:
    with pytest.raises(ValueError, match="'both' is none of"):
        index.search("x", mode="both")
    with pytest.raises(ValueError, match="an index without faiss"):
        DocumentIndex(small, faiss="Flat").search("x", mode="hybrid")


@pytest.mark.parametrize("factory", ["Flat", "HNSW32"])
def test_faiss_finds_the_same(small: Encoder, index: DocumentIndex, factory: str) -> None:
    texts = [document.title for document in load_corpus()[:40]]
    index.add(texts)
    other = DocumentIndex(small, faiss=factory)
    other.add([*TEXTS, *texts])
    for query in ("capital of France", "How do cells divide?"):
        exact = [hit.text for hit in index.search(query, k=5, mode="vector")]
        assert [hit.text for hit in other.search(query, k=5)] == exact


def test_faiss_that_cannot_be_made_is_named(small: Encoder) -> None:
    index = DocumentIndex(small, faiss="IVF4096,Flat")
    index.add(TEXTS)
    with pytest.raises(ValueError, match="IVF4096,Flat"):
        index.search("x")


def test_empty_index_finds_nothing(small: Encoder) -> None:
    for factory in (None, "Flat"):
        index = DocumentIndex(small, faiss=factory)
        assert index.search("x") == []
        assert index.add([]) == []
        assert index.delete(["nobody"]) == 0


def test_documents_are_replaced_and_removed(index: DocumentIndex) -> None:
    index.add(["Berlin is in Germany."], ids=["paris"])
    assert len(index) == 3
    assert index.search("capital of France", k=3)[0].text != TEXTS[0]
    assert index.delete(["paris", "nobody"]) == 1
    assert [one.id for one in index.get()] == ["cats", "rust"]
    with pytest.raises(KeyError, match="paris"):
        index.get(["cats", "paris"])


def test_known_texts_are_not_embedded_again(
    index: DocumentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    encode = index.encoder.encode_document

    def counted(texts: list[str], *args: object, **options: object) -> object:
        embedded.extend(texts)
        return encode(texts, *args, **options)

    monkeypatch.setattr(index.encoder, "encode_document", counted)
    index.add([*TEXTS[:2], "New."], ids=["paris", "cats", "new"], metadata=[{"m": 1}] * 3)
    assert embedded == ["New."]
    assert [one.metadata for one in index.get(["paris", "rust"])] == [{"m": 1}, {"n": 2}]


def test_interrupted_indexing_is_resumed(
    small: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {n}" for n in range(600)]
    index = DocumentIndex(small, tmp_path / "index.db")
    encode, calls = small.encode_document, []

    def breaking(some: list[str], *args: object, **options: object) -> object:
        calls.append(len(some))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(some, *args, **options)

    monkeypatch.setattr(small, "encode_document", breaking)
    with pytest.raises(KeyboardInterrupt):
        index.add(texts)
    index.close()
    again = DocumentIndex(small, tmp_path / "index.db")
    assert len(again) == 512
    again.add(texts)
    assert calls == [256, 256, 88, 0, 0, 88]
    assert [one.text for one in again.get()] == texts


def test_index_is_saved_and_opened(index: DocumentIndex, small: Encoder, tmp_path: Path) -> None:
    index.save(tmp_path / "copy.db")
    opened = DocumentIndex(small, tmp_path / "copy.db")
    assert opened.search("cats", k=3) == index.search("cats", k=3)
    with pytest.raises(ValueError, match="made with max_length"):
        DocumentIndex(small, tmp_path / "copy.db", max_length=64)
    (tmp_path / "text.db").write_text("not an index " * 99)
    with pytest.raises(ValueError, match="cannot be read as an index of documents"):
        DocumentIndex(small, tmp_path / "text.db")


def test_index_of_another_model_is_refused(
    index: DocumentIndex, gritlm: Encoder, tmp_path: Path
) -> None:
    index.save(tmp_path / "copy.db")
    with pytest.raises(ValueError, match="made with model"):
        DocumentIndex(gritlm, tmp_path / "copy.db")


def test_documents_are_checked_first(index: DocumentIndex) -> None:
    with pytest.raises(TypeError, match="one string"):
        index.add("text")
    with pytest.raises(TypeError, match=r"texts\[1\]"):
        index.add(["a", 3])
    with pytest.raises(TypeError, match="not JSON"):
        index.add(["a"], metadata=[{"x": object()}])
    with pytest.raises(ValueError, match="2 texts, 1 ids"):
        index.add(["a", "b"], ids=["a"])
    with pytest.raises(ValueError, match="two texts"):
        index.add(["a", "b"], ids=["x", "x"])
    assert len(index) == 3
    assert index.add(["same", "same"])[0] == index.add(["same"])[0]


def test_half_characters_are_whole_ones_everywhere(
    index: DocumentIndex, generator: Generator
) -> None:
    index.add(["half \ud83d a character"], ids=["half"])
    assert index.get(["half"])[0].text == "half \ufffd a character"
    reader = Reader(generator)
    found = [
        reader.answer(f"Why {sign}?", [f"text {sign}"], max_new_tokens=4).ids
        for sign in ("\ud83d", "\ufffd")
    ]
    assert found[0] == found[1]


def test_late_vectors_are_means_in_context(gritlm: Encoder) -> None:
    text = load_corpus()[0].text
    whole = late_vectors(gritlm, text, [(0, len(text))])[0]
    assert_close(whole, gritlm.encode_document(text, normalize=True))
    spans = spans_of(text, 100)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(0 < b - a <= 100 for a, b in spans)
    tokens = gritlm.encode_tokens(text)
    for (start, end), vector in zip(spans, late_vectors(gritlm, text, spans), strict=True):
        inside = [a < end and b > start for a, b in tokens.offsets]
        mean = tokens.vectors[inside].mean(0)
        assert_close(vector, mean / np.linalg.norm(mean))


@pytest.mark.slow
def test_late_chunks_of_texts_longer_than_the_model(small: Encoder) -> None:
    text = " ".join(document.text for document in load_corpus()[:12])
    assert len(small.tokenize(text)[0]) == small.max_length
    spans = spans_of(text, 300)
    vectors = late_vectors(small, text, spans)
    assert len(vectors) == len(spans)
    alone = small.encode_document([text[a:b] for a, b in spans], normalize=True)
    own = (vectors @ alone.T).argmax(1) == np.arange(len(spans))
    assert own.mean() > 0.8
    with pytest.raises(ValueError, match="512 positions"):
        late_vectors(small, text, [(0, len(text))])


def test_chunks_live_and_die_with_their_document(index: DocumentIndex) -> None:
    splitter = RecursiveCharacterTextSplitter(chunk_size=60, chunk_overlap=20)
    text = load_corpus()[3].text
    for late in (False, True):
        names = index.add_chunked([text], splitter.split_text, ["long"], [{"a": 1}], late=late)
        assert names == [f"long#{n}" for n in range(len(names))]
        for one in index.get(names):
            start, end = one.metadata["start"], one.metadata["end"]
            assert one.text == text[start:end]
            assert one.metadata == {"a": 1, "parent": "long", "start": start, "end": end}
    assert len(index) == 3 + len(names)
    index.add_chunked(["Short now."], 60, ["long"], late=True)
    assert len(index) == 4
    index.add(["Not chunked."], ["long"])
    assert [one.id for one in index.get()] == ["paris", "cats", "rust", "long"]
    assert index.delete(["long"]) == 1


def test_late_chunking_is_refused_where_it_means_nothing(e5: Encoder, index: DocumentIndex) -> None:
    with pytest.raises(ValueError, match="last_token"):
        DocumentIndex(e5).add_chunked(TEXTS, 10, late=True)
    with pytest.raises(ValueError, match="chunk 0"):
        index.add_chunked(["some text"], lambda text: [text.upper()])
    with pytest.raises(ValueError, match="split=0"):
        index.add_chunked(["some text"], 0)
