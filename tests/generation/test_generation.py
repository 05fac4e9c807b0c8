"""Generation on an encoder's weights: the reference's tokens, and no word to the encoder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from helpers import BUNDLED, SMALL, golden_cases, read_case
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from llm_embeddings import Encoder
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.generation import Generator
from llm_embeddings.generation.sampling import Sampling

pytestmark = pytest.mark.slow

CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}[assistant]"


@pytest.fixture(scope="module")
def generator(gritlm: Encoder) -> Generator:
    return Generator(gritlm)


@pytest.fixture(scope="module", params=golden_cases("gritlm"), ids=lambda path: path.name)
def case(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    """A language model whose head is its embedding matrix, with a chat template."""
    torch.manual_seed(0)
    config = LlamaConfig(**SMALL, tie_word_embeddings=True, initializer_range=1.0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(BUNDLED / "e5-mistral/model")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.golden
def test_greedy_tokens_are_the_references(case: Path) -> None:
    encoder = Encoder.from_pretrained(
        case / "model", recipe=read_case(case)["hub_ids"]["model"], dtype="float32"
    )
    generator = Generator(encoder)
    golden = read_case(case)["generation"]
    for one in golden:
        assert generator.prompt_ids(one["messages"]) == one["prompt_ids"]
        found = generator.generate(one["messages"], max_new_tokens=len(one["new_ids"]))
        assert list(found.ids) == one["new_ids"]
    batch = generator.generate([one["messages"] for one in golden], max_new_tokens=24)
    assert [list(found.ids) for found in batch] == [one["new_ids"] for one in golden]


def test_head_alone_takes_memory(generator: Generator) -> None:
    mine = {weight.data_ptr() for weight in generator.encoder.backbone.parameters()}
    own = [name for name, p in generator.model.named_parameters() if p.data_ptr() not in mine]
    assert own == ["lm_head.weight"]


def test_directions_do_not_meet_in_threads(gritlm: Encoder, generator: Generator) -> None:
    texts = ["one", "a longer text of more words", "three two one " * 9, "deux mots", "fünf"]
    vectors = gritlm.encode_document(texts)
    answers = [generator.generate(text, max_new_tokens=12).ids for text in texts]
    start = threading.Barrier(6)

    def embed(_: int) -> bool:
        start.wait()
        found = [gritlm.encode_document(texts) for _ in range(15)]
        return all(np.allclose(one, vectors, rtol=0, atol=1e-5) for one in found)

    def write(place: int) -> bool:
        start.wait()
        some = [place % 5, (place + 1) % 5]
        return all(
            generator.generate(texts[i], max_new_tokens=12).ids == answers[i]
            for _ in range(3)
            for i in some
        )

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(job, place) for place in range(3) for job in (embed, write)]
        assert all(job.result() for job in jobs)
    assert gritlm.backbone.config.is_causal is False
    assert generator.model.config.is_causal is True


def test_conversations_have_one_bos(generator: Generator) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    ids = generator.prompt_ids(turns)
    assert ids.count(1) == 1
    text = generator.encoder.tokenizer.decode(ids, skip_special_tokens=False)
    assert "Be brief.\nHi\n<|assistant|>" in text
    assert generator.prompt_ids("Hi") == generator.prompt_ids([{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([{"role": "tool", "content": "x"}], "role='tool'"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "ends with"),
    ],
)
def test_conversation_is_checked(generator: Generator, prompt: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generator.generate(prompt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_k": 0}, "top_k=0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens=9"),
        ({"stop": [""]}, "stop"),
        ({"max_new_tokens": 32768}, "32768 positions"),
    ],
)
def test_options_are_checked_before_the_first_piece(
    generator: Generator, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generator.stream("text", **options)
    with pytest.raises(ValueError, match=message):
        generator.generate("text", **options)


def test_stream_gives_the_text_of_generate(generator: Generator) -> None:
    for prompt in ("one", "中文 and ünïcode"):
        pieces = list(generator.stream(prompt, max_new_tokens=20))
        assert len(pieces) > 5
        assert "".join(pieces) == generator.generate(prompt, max_new_tokens=20).text


def test_leaving_a_stream_ends_its_thread(generator: Generator) -> None:
    stream: Iterator[str] = generator.stream("text", max_new_tokens=20_000)
    assert len(list(islice(stream, 3))) == 3
    assert any(thread.name == "llm-embeddings-generate" for thread in threading.enumerate())
    stream.close()
    assert all(thread.name != "llm-embeddings-generate" for thread in threading.enumerate())


def test_stop_strings_end_an_answer(generator: Generator) -> None:
    whole = generator.generate("one", max_new_tokens=20)
    stop = whole.text[12:18]
    found = generator.generate("one", max_new_tokens=20, stop=stop)
    assert found.text == whole.text[: whole.text.index(stop)]
    assert found.finish == "stop"
    assert len(found.ids) < 20
    assert whole.finish == "length"
    assert "".join(generator.stream("one", max_new_tokens=20, stop=[stop, "zzz"])) == found.text
    batch = generator.generate(["one", "another"], max_new_tokens=20, stop=stop)
    assert batch[0] == found
    assert batch[1] == generator.generate("another", max_new_tokens=20, stop=stop)


def test_end_of_turn_ends_an_answer(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generator.generate("one", max_new_tokens=20)
    monkeypatch.setattr(generator, "_ends", [whole.ids[7]])
    found = generator.generate(["one", "another"], max_new_tokens=20)[0]
    assert found.ids == whole.ids[: whole.ids.index(whole.ids[7]) + 1]
    assert found.finish == "stop"
    longer = generator.generate("one", max_new_tokens=20, min_new_tokens=12)
    assert len(longer.ids) >= 12


def test_samples_depend_on_their_seed_alone(generator: Generator) -> None:
    options = {"max_new_tokens": 12, "temperature": 1.5, "top_k": 500, "top_p": 0.95}
    first = generator.generate("one", seed=1, **options)
    assert generator.generate(["a longer one", "one"], seed=1, **options)[1] == first
    assert generator.generate("one", seed=2, **options) != first
    assert generator.generate("one", **options) != generator.generate("one", **options)


def test_noise_draws_from_the_softmax() -> None:
    wanted = torch.tensor([0.5, 0.3, 0.15, 0.05])
    rows = 4000
    draw = Sampling(temperature=2.0, top_k=3).processors(rows)
    scores = draw(torch.zeros(rows, 1, dtype=torch.int64), wanted.log().expand(rows, 4).clone())
    found = torch.bincount(scores.argmax(1), minlength=4) / rows
    flat = torch.cat([wanted[:3].sqrt(), torch.zeros(1)])
    assert float((found - flat / flat.sum()).abs().max()) < 0.03


def test_given_beginning_of_the_answer(generator: Generator) -> None:
    plain = generator.prompt_ids("one")
    begun = generator.prompt_ids("one", answer_start="The answer is")
    assert begun[: len(plain)] == plain
    found = generator.generate("one", max_new_tokens=4, answer_start="The answer is")
    assert found.prompt_tokens == len(begun)


@pytest.mark.slow
def test_tied_head_and_template_match_the_stock_model(tied: Path) -> None:
    encoder = Encoder.from_pretrained(tied, recipe="mean", dtype="float32")
    found = Generator(encoder).generate(" Hello ", max_new_tokens=8)
    stock = AutoModelForCausalLM.from_pretrained(tied)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tied)
    ids = tokenizer("[user]Hello[assistant]", add_special_tokens=False, return_tensors="pt")
    wanted = stock.generate(ids.input_ids, max_new_tokens=8, do_sample=False, eos_token_id=2)
    assert list(found.ids) == wanted[0, ids.input_ids.shape[1] :].tolist()


def test_models_without_a_head_are_named(e5: Encoder, generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no language model head .*cannot generate"):
        Generator(e5)
    generator.encoder.save_pretrained(tmp_path)
    saved = Encoder.from_pretrained(tmp_path, dtype="float32")
    with pytest.raises(ValueError, match="a saved encoder is without it"):
        Generator(saved)
    again = Generator(saved, checkpoint=BUNDLED / "gritlm-7b/model")
    assert again.generate("one", max_new_tokens=6) == generator.generate("one", max_new_tokens=6)


@pytest.mark.slow
def test_models_without_a_chat_format_are_named(tied: Path) -> None:
    load_tokenizer(BUNDLED / "e5-mistral/model").save_pretrained(tied)
    (tied / "chat_template.jinja").unlink()
    encoder = Encoder.from_pretrained(tied, recipe="mean", dtype="float32")
    with pytest.raises(ValueError, match="no chat template"):
        Generator(encoder)
    assert Generator(encoder, chat_template=CHAT).generate("one", max_new_tokens=2).text


def test_modules_on_several_devices_are_refused() -> None:
    encoder = Encoder.from_pretrained(BUNDLED / "gritlm-7b/model", dtype="float32")
    add_hook_to_module(encoder.backbone.layers[1], AlignDevicesHook("cpu"))
    with pytest.raises(ValueError, match="spread over devices"):
        Generator(encoder)


def test_head_of_another_model_is_refused(gritlm: Encoder, tmp_path: Path) -> None:
    config = LlamaConfig(**SMALL)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="head of another checkpoint"):
        Generator(gritlm, checkpoint=tmp_path)
