"""The Encoder's public behaviour, family by family."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from helpers import BUNDLED, assert_close, processes, read_case

from llm_embeddings import Encoder, Recipe, get_recipe, list_recipes

TEXTS: list[str] = read_case(BUNDLED / "e5-mistral")["texts"]
BLANK = ["", " ", "\n\t", "\u200b"]


# -- shapes and types ------------------------------------------------------------------------------


def test_one_text_many_and_none(encoder: Encoder) -> None:
    dim = encoder.dimension
    one, many = encoder.encode("text"), encoder.encode(["text", "more"])
    assert (one.shape, many.shape, encoder.encode([]).shape) == ((dim,), (2, dim), (0, dim))
    assert one.dtype == many.dtype == np.float32
    assert_close(one, many[0])
    tensor = encoder.encode(["text"], as_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert_close(tensor, many[:1])


@pytest.mark.parametrize("texts", [("a", "b"), np.array(["a", "b"]), iter(["a", "b"])])
def test_any_iterable_of_strings(e5: Encoder, texts: Any) -> None:
    assert_close(e5.encode(texts), e5.encode(["a", "b"]))


def test_roles(encoder: Encoder) -> None:
    queries, documents = encoder.encode_query(TEXTS[:4]), encoder.encode_document(TEXTS[:4])
    assert_close(queries, encoder.encode(TEXTS[:4], "query"))
    assert_close(documents, encoder.encode(TEXTS[:4]))
    assert np.abs(queries - documents).max() > 0.01
    assert_close(queries, encoder.encode_query(TEXTS[:4], encoder.recipe.instruction))
    assert np.abs(queries - encoder.encode_query(TEXTS[:4], "Other")).max() > 1e-3


# -- one text, one vector --------------------------------------------------------------------------


def test_batch_order_and_padding_do_not_matter(encoder: Encoder) -> None:
    alone = np.stack([encoder.encode(text) for text in TEXTS])
    assert_close(encoder.encode(TEXTS), alone)
    assert_close(encoder.encode(TEXTS[::-1])[::-1], alone)
    assert_close(encoder.encode(TEXTS, max_batch_tokens=1), alone)
    assert_close(encoder.encode(TEXTS, max_batch_tokens=10**6), alone)


def test_threads_do_not_matter(encoder: Encoder) -> None:
    expected = {role: encoder.encode(TEXTS[:8], role) for role in ("query", "document")}
    roles = list(itertools.islice(itertools.cycle(expected), 24))
    with ThreadPoolExecutor(8) as pool:
        for role, vectors in zip(
            roles, pool.map(lambda r: encoder.encode(TEXTS[:8], r), roles), strict=True
        ):
            assert_close(vectors, expected[role])


@pytest.mark.slow
def test_processes_do_not_matter(gritlm: Encoder) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        there = pool.submit(processes.encode, BUNDLED / "gritlm-7b/model", TEXTS[:4], "query")
        assert_close(there.result(timeout=120), gritlm.encode(TEXTS[:4], "query"))


async def test_coroutines_do_not_matter(encoder: Encoder) -> None:
    calls = [encoder.aencode(text, "query", normalize=True) for text in TEXTS[:6]]
    assert_close(await asyncio.gather(*calls), encoder.encode(TEXTS[:6], "query", normalize=True))


def test_bidirectional_and_causal_side_by_side(gritlm: Encoder, e5: Encoder) -> None:
    expected = gritlm.encode(TEXTS[:4]), e5.encode(TEXTS[:4])
    with ThreadPoolExecutor(4) as pool:
        both = [pool.submit(encoder.encode, TEXTS[:4]) for encoder in (gritlm, e5) * 6]
        for index, future in enumerate(both):
            assert_close(future.result(), expected[index % 2])


# -- options ---------------------------------------------------------------------------------------


def test_normalize_and_truncate(encoder: Encoder) -> None:
    raw = encoder.encode(TEXTS[1:5], normalize=False)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert_close(encoder.encode(TEXTS[1:5], normalize=True), unit)
    short = encoder.encode(TEXTS[1:5], normalize=True, truncate_dim=8)
    assert_close(short, raw[:, :8] / np.linalg.norm(raw[:, :8], axis=1, keepdims=True))
    assert_close(encoder.encode(TEXTS[1:5], normalize=False, truncate_dim=8), raw[:, :8])


def test_similarity_is_cosine(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS[1:4], normalize=False)
    scores = encoder.similarity(vectors, vectors[0])
    assert scores.shape == (3, 1)
    assert scores[0, 0] == pytest.approx(1, abs=1e-6)
    assert_close(scores, encoder.similarity(torch.from_numpy(vectors), vectors[:1]))
    with pytest.raises(ValueError, match="do not compare"):
        encoder.similarity(vectors, vectors[:, :3])


def test_max_length_cuts(encoder: Encoder) -> None:
    long = "word " * 300
    short = encoder.encode(long, max_length=24)
    assert np.abs(short - encoder.encode(long)).max() > 1e-4
    assert_close(short, encoder.encode("word " * 200, max_length=24))


def test_progress_bar_only_when_asked(e5: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    e5.encode(["a", "b"])
    assert capsys.readouterr().err == ""
    e5.encode(["a", "b"], show_progress=True)
    assert "2/2" in capsys.readouterr().err


# -- streams and tokens ----------------------------------------------------------------------------


def test_iter_encode_streams_in_order_and_bounded(encoder: Encoder) -> None:
    taken = 0

    def source() -> Iterator[str]:
        nonlocal taken
        for text in itertools.cycle(TEXTS[1:6]):
            taken += 1
            yield text

    stream = encoder.iter_encode(source(), "query", window=7)
    assert taken == 0
    vectors = [next(stream) for _ in range(10)]
    assert taken == 21, "the window being read, and one ahead"
    assert_close(vectors, encoder.encode((TEXTS[1:6] * 2), "query"))
    assert list(encoder.iter_encode([])) == []


def test_iter_encode_checks_first_and_counts_on(e5: Encoder) -> None:
    with pytest.raises(ValueError, match="role or prompt 'queries'"):
        e5.iter_encode(["a"], "queries")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unexpected keyword argument 'normalise'"):
        e5.iter_encode(["a"], normalise=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="iter_encode takes an iterable"):
        e5.iter_encode("text")
    stream = e5.iter_encode(["a", "b", "c", None], window=2)  # type: ignore[list-item]
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(TypeError, match=r"texts\[3\] is NoneType"):
        list(stream)


def test_token_vectors_pool_to_the_text_vector(gritlm: Encoder) -> None:
    texts = TEXTS[1:8]
    for text, found in zip(texts, gritlm.encode_tokens(texts), strict=True):
        assert_close(found.vectors.mean(0), gritlm.encode(text, normalize=False))
    single = gritlm.encode_tokens(texts[0])
    assert_close(single.vectors, gritlm.encode_tokens(texts)[0].vectors)


# -- precision -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "dtype", "width"),
    [
        ("float16", np.float16, 32),
        ("int8", np.int8, 32),
        ("uint8", np.uint8, 32),
        ("binary", np.int8, 4),
        ("ubinary", np.uint8, 4),
    ],
)
def test_precisions(e5: Encoder, precision: Any, dtype: Any, width: int) -> None:
    e5.calibrate(TEXTS)
    many = e5.encode(TEXTS, precision=precision)
    assert (many.dtype, many.shape) == (dtype, (len(TEXTS), width))
    for index in (1, 8):
        assert np.array_equal(e5.encode(TEXTS[index], precision=precision), many[index])
    tensor = e5.encode(TEXTS, precision=precision, as_tensor=True)
    assert np.array_equal(tensor.numpy(), many)


def test_quantised_like_sentence_transformers(e5: Encoder) -> None:
    from sentence_transformers.util import quantize_embeddings

    e5.calibrate(TEXTS)
    vectors = e5.encode(TEXTS)
    ranges = np.stack([vectors.min(0), vectors.max(0)])
    for precision in ("int8", "uint8"):
        theirs = quantize_embeddings(vectors, precision, ranges=ranges).astype(int)
        ours = e5.encode(TEXTS, precision=precision).astype(int)
        assert np.abs(ours - theirs).max() <= 1
    for precision in ("binary", "ubinary"):
        theirs = quantize_embeddings(vectors, precision)
        assert np.array_equal(e5.encode(TEXTS, precision=precision), theirs)


def test_values_outside_the_ranges_are_clipped(e5: Encoder) -> None:
    e5.calibrate(TEXTS[1:3])
    levels = e5.encode(TEXTS, precision="int8").astype(float)
    vectors = e5.encode(TEXTS)
    low, high = e5.ranges[32, True]
    assert (levels[vectors > high[None]] == 127).all()
    assert (levels[vectors < low[None]] == -128).all()


def test_ranges_are_saved(e5: Encoder, tmp_path: Any) -> None:
    e5.calibrate(TEXTS[:5])
    e5.calibrate(TEXTS[:5], truncate_dim=8)
    e5.save_pretrained(tmp_path)
    again = Encoder.from_pretrained(tmp_path, dtype="float32")
    assert again.ranges.keys() == e5.ranges.keys()
    for dim in (None, 8):
        a, b = (x.encode(TEXTS, precision="int8", truncate_dim=dim) for x in (e5, again))
        assert np.array_equal(a, b)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [None, b"bytes", 3, {"text": "x"}])
def test_not_texts(e5: Encoder, bad: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(bad).__name__}"):
        e5.encode(bad)


@pytest.mark.parametrize("bad", [None, b"bytes", 3, ["nested"], float("nan")])
def test_not_a_string_inside_says_where(e5: Encoder, bad: Any) -> None:
    with pytest.raises(TypeError, match=rf"texts\[1\] is {type(bad).__name__}"):
        e5.encode(["fine", bad])


def test_blank_texts_are_finite_and_alone(encoder: Encoder) -> None:
    for role in ("query", "document"):
        vectors = encoder.encode([*BLANK, *TEXTS], role)
        assert np.isfinite(vectors).all()
        assert (np.linalg.norm(vectors, axis=1) > 0).all()
        assert_close(vectors[: len(BLANK)], [encoder.encode(text, role) for text in BLANK])


def test_text_far_over_the_limit(encoder: Encoder) -> None:
    assert np.isfinite(encoder.encode("A sentence of some words. " * 20_000)).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"role": "queries"}, ValueError, "role or prompt 'queries' is not one of"),
        ({"precision": "int4"}, ValueError, "precision='int4' is not one of"),
        ({"truncate_dim": 33}, ValueError, "truncate_dim=33 is not between 1 and the dimension 32"),
        ({"truncate_dim": 0}, ValueError, "truncate_dim=0"),
        ({"max_length": 0}, ValueError, "max_length=0"),
        ({"max_length": 40_000}, ValueError, "32768 positions"),
        ({"max_batch_tokens": 0}, ValueError, "max_batch_tokens=0"),
        ({"instruction": 3}, TypeError, "instruction must be a string"),
        ({"batch_size": 8}, TypeError, "batch_size"),
    ],
)
def test_bad_options(
    e5: Encoder, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        e5.encode(["text"], **options)
    with pytest.raises(error, match=message):
        e5.encode([], **options)


def test_unknown_options_of_the_other_entries(e5: Encoder) -> None:
    for call in (e5.encode_query, e5.encode_document):
        with pytest.raises(TypeError, match="normalise"):
            call(["x"], normalise=True)  # type: ignore[call-arg]


def test_a_vector_that_is_not_finite_names_its_text(tmp_path: Any) -> None:
    encoder = Encoder.from_pretrained(BUNDLED / "e5-mistral/model", dtype="float32")
    token = encoder.tokenize("Bitcoin")[0][1]
    with torch.no_grad():
        encoder.backbone.embed_tokens.weight[token] = float("inf")
    with pytest.raises(ValueError, match=r"texts\[2\] \('Bitcoin'\)"):
        encoder.encode(["a", "b", "Bitcoin"])
    with pytest.raises(ValueError, match=r"texts\[1\] \('Bitcoin'\)") as caught:
        encoder.encode_tokens(["a", "Bitcoin"])
    assert caught.traceback, "the failed call's frames are still alive"
    assert not torch.is_inference_mode_enabled()


def test_interrupt_stops_promptly(gritlm: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    forward = type(gritlm.backbone).forward

    def interrupted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.01)
        return forward(*args, **options)

    monkeypatch.setattr(type(gritlm.backbone), "forward", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            gritlm.encode([f"text {i}" for i in range(200)], max_batch_tokens=1)
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    assert np.isfinite(gritlm.encode(TEXTS[:2])).all()
    assert calls < 100


# -- fingerprints ----------------------------------------------------------------------------------


def test_fingerprints_tell_apart_what_vectors_tell_apart(
    e5: Encoder, gritlm: Encoder, llm2vec: Encoder
) -> None:
    prints = [
        e5.fingerprint("query"),
        e5.fingerprint("document"),
        e5.fingerprint("query", "Other"),
        gritlm.fingerprint("query"),
        llm2vec.fingerprint("query"),
        Encoder(e5.backbone, e5.tokenizer, e5.recipe.replace(pooling="mean")).fingerprint("query"),
        Encoder.from_pretrained(BUNDLED / "llm2vec-mistral/mntp", dtype="float32").fingerprint(
            "query"
        ),
        Encoder.from_pretrained(BUNDLED / "e5-mistral/model", dtype="bfloat16").fingerprint(
            "query"
        ),
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(value) == 32 for value in prints)
    assert e5.fingerprint("query") == e5.fingerprint("query", e5.recipe.instruction)
    again = Encoder.from_pretrained(BUNDLED / "e5-mistral/model", dtype="float32")
    assert again.fingerprint("query") == e5.fingerprint("query")


# -- recipes ---------------------------------------------------------------------------------------


def test_recipes_are_listed_and_found() -> None:
    names = list_recipes()
    assert len(names) == len(set(names)) > 40
    assert list_recipes("*gritlm*") == [name for name in names if "GritLM" in name]
    assert list_recipes("nothing*") == []
    for name in names:
        recipe = get_recipe(name)
        assert recipe.name == name
        assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert get_recipe("GRITLM/gritlm-7b") is get_recipe("GritLM/GritLM-7B")
    with pytest.raises(ValueError, match=r"unknown recipe 'e5-mistral'.*e5-mistral-7b-instruct"):
        get_recipe("e5-mistral")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "sum"}, "pooling='sum' is not one of"),
        ({"pooling": ("mean", "sum")}, "is not one of"),
        ({"pooling": "last_k_mean"}, "last_k goes with"),
        ({"max_length": 0}, "max_length=0 must be 1 or more"),
        ({"instruction": "x"}, "has no '{instruction}'"),
        ({"causal": None}, "causal=None"),
    ],
)
def test_recipes_are_validated(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_recipe("mean").replace(**changes)


def test_recipes_do_not_change() -> None:
    with pytest.raises(AttributeError):
        get_recipe("mean").causal = False  # type: ignore[misc]
    with pytest.raises(TypeError, match="poling"):
        get_recipe("mean").replace(poling="mean")
