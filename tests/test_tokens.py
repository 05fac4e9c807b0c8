"""Token ids by rule, where no golden case reaches: segments, limits, offsets, odd texts."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from helpers import BUNDLED
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from llm_embeddings import Encoder, Recipe, get_recipe
from llm_embeddings.checkpoint.ends import without_foreign_bos
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.families import with_examples
from llm_embeddings.recipe import Role
from llm_embeddings.tokens import tokenize

ROLES: tuple[Role, ...] = ("query", "document")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(BUNDLED / "e5-mistral/model")


@pytest.fixture(scope="module")
def marked() -> PreTrainedTokenizerFast:
    """A Mistral tokenizer with the added tokens of LLaRA, in shuffled order, and of bge-en-icl."""
    tokenizer = load_tokenizer(BUNDLED / "e5-mistral/model")
    order = [9, 12, 7, 14, 3, 6, 15, 5, 1, 10, 13, 2, 11, 4, 8, 16]
    names = [f"<s{i}>" for i in order] + ["<instruct>", "<query>", "<response>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    return tokenizer


def plain(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_llara_segments_are_tokenised_one_by_one(marked: PreTrainedTokenizerFast) -> None:
    recipe = get_recipe("BAAI/LLARA-passage")
    for role, what, slots in (
        ("query", "predict the following passage", range(9, 17)),
        ("document", "summarize the above passage", range(1, 9)),
    ):
        row = tokenize(marked, recipe, ["one two"], role)[0]  # type: ignore[arg-type]
        suffix = plain(marked, f'", {what} within eight words: ')
        slot_ids = [marked.convert_tokens_to_ids(f"<s{i}>") for i in slots]
        head = [1, *plain(marked, '"'), *plain(marked, "one two")]
        assert row.ids[: len(head)] == head
        assert row.ids[-8:] == slot_ids
        assert row.ids[len(head) : -8] == suffix or row.ids[len(head) : -9] == suffix


def test_llara_limit_is_the_texts_alone(marked: PreTrainedTokenizerFast) -> None:
    recipe = get_recipe("BAAI/LLARA-passage")
    whole = tokenize(marked, recipe, ["a b c d e f"], "query")[0]
    short = tokenize(marked, recipe, ["a b c d e f"], "query", max_length=2)[0]
    assert (len(whole.ids) - len(short.ids), short.cut) == (4, 4)
    assert short.ids[-8:] == whole.ids[-8:]


def test_bge_en_icl_keeps_its_suffix_and_eos(marked: PreTrainedTokenizerFast) -> None:
    recipe = get_recipe("BAAI/bge-en-icl")
    long = "alpha beta gamma " * 100
    row = tokenize(marked, recipe, [long], "query", "find it", max_length=40)[0]
    assert len(row.ids) <= 40
    assert row.cut > 0
    assert row.ids[-1] == 2
    assert row.ids[0] == 1
    assert marked.decode(row.ids[:-1]).endswith("\n<response>")
    few = with_examples(recipe, [("q", "a")])
    row = tokenize(marked, few, ["now"], "query", "x")[0]
    blocks = "<instruct>x\n<query>q\n<response>a\n\n<instruct>x\n<query>now\n<response>"
    assert row.ids == [1, *plain(marked, blocks), 2]


def test_qwen3_has_no_bos_and_its_own_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    recipe = get_recipe("Qwen/Qwen3-Embedding-0.6B").replace(eos="</s>")
    assert tokenize(tokenizer, recipe, [""], "document")[0].ids == [2]
    ids = tokenize(tokenizer, recipe, ["fox"], "query", "Find")[0].ids
    assert ids == [*plain(tokenizer, "Instruct: Find\nQuery:fox"), 2]


def test_eos_survives_the_limit(tokenizer: PreTrainedTokenizerFast) -> None:
    recipe = get_recipe("intfloat/e5-mistral-7b-instruct")
    for limit in (3, 10):
        row = tokenize(tokenizer, recipe, ["word " * 50], "document", max_length=limit)[0]
        assert (len(row.ids), row.ids[0], row.ids[-1]) == (limit, 1, 2)
        assert row.ids[-2] != 2


def test_instruction_without_room_is_an_error(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match=r"no room is left for the text\. Shorten the instruction"):
        encoder.encode(["x"], "query", "very long " * 3000)
    with pytest.raises(ValueError, match="no room is left"):
        encoder.encode(["x"], "query", "fine", max_length=5)


def test_instruction_without_place_is_an_error(marked: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="'find it' has no place in the template"):
        tokenize(marked, get_recipe("BAAI/LLARA-beir"), ["x"], "query", "find it")


def test_empty_instruction_drops_its_part(gritlm: Encoder, e5: Encoder, llm2vec: Encoder) -> None:
    assert e5.tokenize("x", "query", "") == e5.tokenize("x", "document")
    assert gritlm.tokenize("x", "query", "") == gritlm.tokenize("x", "document")
    assert llm2vec.tokenize("x", "query", "  ") == llm2vec.tokenize("x", "document")
    assert e5.tokenize("x", "document", "Find") == e5.tokenize("x", "query", "Find")


def test_braces_are_text(e5: Encoder) -> None:
    ids = e5.tokenize("{instruction} {x}", "query", "a {y} {instruction}")[0]
    assert e5.tokenizer.decode(ids[1:-1]) == (
        "Instruct: a {y} {instruction}\nQuery: {instruction} {x}"
    )


def test_lone_surrogates_count_as_replacement_characters(encoder: Encoder) -> None:
    odd, defined = "a\ud800b\udfff", "a\ufffdb\ufffd"
    assert encoder.tokenize([odd, "\ud83d\ude00"]) == encoder.tokenize([defined, "\U0001f600"])


def test_one_word_over_the_limit_is_cut_not_emptied(llm2vec: Encoder) -> None:
    giant = "量子计算机如何改变密码学" * 100
    rows = tokenize(llm2vec.tokenizer, llm2vec.recipe, [giant], "document", max_length=512)
    assert 300 < len(rows[0].ids) < 420


def test_cut_texts_are_counted_in_the_debug_log(
    e5: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "llm_embeddings"):
        e5.encode(["short", "long " * 100], max_length=20)
    assert "1 of 2 texts lost" in caplog.text


def test_offsets_point_into_the_text(encoder: Encoder) -> None:
    texts = ["  Two  words", "naïve 量子 👩‍🚀 end", "", "line\nbreak </s> x"]
    for role in ROLES:
        for text, found in zip(texts, encoder.encode_tokens(texts, role), strict=True):
            assert found.vectors.shape == (len(found.offsets), encoder.dimension)
            covered = set()
            for begin, end in found.offsets.tolist():
                assert 0 <= begin <= end <= len(text)
                covered.update(range(begin, end))
            missing = [c for i, c in enumerate(text) if i not in covered and not c.isspace()]
            assert not missing


def test_offsets_of_segments(marked: PreTrainedTokenizerFast) -> None:
    recipe = get_recipe("BAAI/LLARA-passage")
    row = tokenize(marked, recipe, ["two words"], "query", with_offsets=True)[0]
    pieces = ["two words"[begin:end].strip() for begin, end in row.offsets]
    assert pieces == ["two", "words"]
    text_ids = row.ids[row.text_start : row.text_start + len(row.offsets)]
    assert text_ids == plain(marked, "two words")


def test_a_row_is_never_empty(tokenizer: PreTrainedTokenizerFast) -> None:
    bare = Recipe(name="bare", causal=True, pooling="mean", bos=False)
    assert tokenize(tokenizer, bare, [""], "document")[0].ids == [tokenizer.eos_token_id]


def test_no_bos_is_put_that_the_tokenizer_does_not_put(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(BUNDLED / "e5-mistral/model")
    mean = get_recipe("mean")
    assert without_foreign_bos(mean, tokenizer) is mean
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<unk> $A </s>", special_tokens=[("<unk>", 0), ("</s>", 2)]
    )
    assert without_foreign_bos(mean, tokenizer) == mean.replace(bos="<unk>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    assert without_foreign_bos(mean, tokenizer) == mean.replace(bos=False)
    named = mean.replace(bos="<s>")
    assert without_foreign_bos(named, tokenizer) is named
    tokenizer.save_pretrained(tmp_path)
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "add_bos_token": True}))
    assert without_foreign_bos(mean, load_tokenizer(tmp_path)) is mean
