"""GritLM behind LlamaIndex's LLM interface: answers, streams, options, weights loaded once."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.prompts import PromptTemplate
from llama_index.embeddings.llm_embeddings import LLMEmbedding
from llama_index.llms.llm_embeddings import GritLM

from llm_embeddings import Encoder

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[3] / "tests/golden/gritlm-7b"
CASE = json.loads((GOLDEN / "case.json").read_text(encoding="utf-8"))
TALK = [
    ChatMessage("Be short.", role="system"),
    ChatMessage("What do cats do?"),
    ChatMessage("They purr.", role="assistant"),
    ChatMessage("And dogs?"),
]


@pytest.mark.parametrize("run", CASE["generation"], ids=lambda run: run["messages"][-1]["content"])
def test_answers_are_the_references(llm: GritLM, run: dict[str, Any]) -> None:
    tokens = run["new_ids"]
    messages = [ChatMessage(one["content"], role=one["role"]) for one in run["messages"]]
    answer = llm.chat(messages, max_new_tokens=len(tokens))
    assert answer.message.content == llm.encoder.tokenizer.decode(tokens)
    assert answer.message.role == MessageRole.ASSISTANT
    assert answer.message.additional_kwargs["prompt_tokens"] == len(run["prompt_ids"])
    assert answer.message.additional_kwargs["completion_tokens"] == len(tokens)


async def test_all_methods_agree(llm: GritLM) -> None:
    expected = llm.complete("And dogs?").text
    assert (await llm.acomplete("And dogs?")).text == expected
    assert llm.chat(TALK[-1:]).message.content == expected
    pieces = list(llm.stream_complete("And dogs?"))
    assert len(pieces) > 5
    assert "".join(str(piece.delta) for piece in pieces) == pieces[-1].text == expected
    assert [one.text async for one in await llm.astream_complete("And dogs?")][-1] == expected

    talk = llm.chat(TALK).message.content
    assert talk != expected
    assert (await llm.achat(TALK)).message.content == talk
    assert [one.message.content for one in llm.stream_chat(TALK)][-1] == talk
    assert "".join([str(one.delta) async for one in await llm.astream_chat(TALK)]) == talk


def test_a_stream_that_is_left_stops(llm: GritLM) -> None:
    for piece in llm.stream_complete("Hello", max_new_tokens=10_000):
        assert piece.text
        break
    wait_for_the_generating_thread()


async def test_a_task_that_is_cancelled_stops(llm: GritLM) -> None:
    async def read() -> None:
        async for piece in await llm.astream_complete("Hello", max_new_tokens=10_000):
            started.set()
            assert piece.text

    started = asyncio.Event()
    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    await asyncio.to_thread(wait_for_the_generating_thread)


def wait_for_the_generating_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == "llm-embeddings-generate":
            thread.join(timeout=5)
            assert not thread.is_alive()


def test_options_reach_the_core(llm: GritLM) -> None:
    options = {"temperature": 1.5, "top_k": 50, "top_p": 0.9, "seed": 3, "max_new_tokens": 7}
    expected = llm.generator.generate("Hello", **options).text
    assert expected != llm.generator.generate("Hello", max_new_tokens=7).text
    assert GritLM(encoder=llm.encoder, **options).complete("Hello").text == expected
    assert llm.complete("Hello", **options).text == expected
    stop = expected[3:5]
    assert llm.complete("Hello", **options, stop=[stop]).text == expected[: expected.index(stop)]


def test_weights_are_there_once(llm: GritLM) -> None:
    embed_model = LLMEmbedding(encoder=llm.encoder)
    other = GritLM(encoder=embed_model.encoder)
    shared = {weight.data_ptr() for weight in llm.encoder.backbone.parameters()}
    weights = other.generator.model.named_parameters()
    assert [name for name, one in weights if one.data_ptr() not in shared] == ["lm_head.weight"]


async def test_embedding_and_answering_do_not_disturb_each_other(llm: GritLM) -> None:
    embed_model = LLMEmbedding(encoder=llm.encoder)
    texts = [f"question {number} " * (number + 1) for number in range(4)]
    vectors = embed_model.get_text_embedding_batch(texts)
    answers = [llm.complete(text).text for text in texts]
    found = await asyncio.gather(
        *(llm.acomplete(text) for text in texts),
        *(embed_model.aget_text_embedding_batch(texts) for _ in texts),
    )
    assert [one.text for one in found[:4]] == answers
    for again in found[4:]:
        np.testing.assert_allclose(again, vectors, atol=1e-5)


def test_loads_a_checkpoint(llm: GritLM) -> None:
    loaded = GritLM(GOLDEN / "model", dtype="float32", max_new_tokens=12)
    assert loaded.complete("Hello").text == llm.complete("Hello").text
    metadata = loaded.metadata
    assert (metadata.model_name, metadata.num_output) == (str(GOLDEN / "model"), 12)
    assert metadata.context_window == 32768
    assert metadata.is_chat_model


def test_llama_index_talks_to_it(llm: GritLM) -> None:
    prompt = PromptTemplate("What do {animal} do?")
    assert llm.predict(prompt, animal="cats") == llm.complete("What do cats do?").text
    assert "".join(llm.stream(prompt, animal="cats")) == llm.complete("What do cats do?").text
    told = GritLM(encoder=llm.encoder, max_new_tokens=12, system_prompt="Be short.")
    assert told.predict(prompt, animal="cats") == llm.chat(TALK[:2]).message.content


def test_callbacks_are_called(llm: GritLM) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    watched = GritLM(encoder=llm.encoder, callback_manager=CallbackManager([handler]))
    watched.complete("Hello", max_new_tokens=2)
    list(watched.stream_chat(TALK, max_new_tokens=2))
    assert len(handler.get_event_pairs(CBEventType.LLM)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -1.0}, "temperature=-1"),
        ({"mode": "docs"}, "mode"),
        ({"rule": "fast"}, "rule"),
        ({"model_name": "x"}, "either model_name or encoder"),
        ({"encoder": None}, "either model_name or encoder"),
    ],
    ids=str,
)
def test_bad_options_fail_at_once(llm: GritLM, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GritLM(**{"encoder": llm.encoder, **options})


def test_what_it_cannot_do_is_named(llm: GritLM) -> None:
    wrong: Any = "encoder"
    with pytest.raises(TypeError, match="encoder is str"):
        GritLM(encoder=wrong)
    with pytest.raises(TypeError, match="does not take max_tokens: it takes max_new_tokens"):
        llm.complete("Hello", max_tokens=3)
    with pytest.raises(ValueError, match="role 'tool' has no place"):
        llm.chat([ChatMessage("4", role="tool")])
    with pytest.raises(ValueError, match="ImageBlock"):
        llm.chat([ChatMessage(blocks=[ImageBlock(url="https://example.org/a.png")])])
    with pytest.raises(ValueError, match="ends with a message of the user"):
        llm.chat(TALK[:3])
    with pytest.raises(ValueError, match="frozen"):
        llm.max_new_tokens = 3


def test_model_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no language model head|no chat template"):
        GritLM(encoder=Encoder.from_pretrained())
