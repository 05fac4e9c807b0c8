"""GritLMChat: answers, messages, options, and weights that are there once."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumps, loads
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
    trim_messages,
)
from langchain_llm_embeddings import GritLMChat, LLMEmbeddings
from pydantic import ValidationError

from llm_embeddings import Encoder

GOLDEN = Path(__file__).resolve().parents[4] / "tests/golden/gritlm-7b"
CASE = json.loads((GOLDEN / "case.json").read_text(encoding="utf-8"))
TALK: list[BaseMessage] = [
    SystemMessage("Be short."),
    HumanMessage("What do cats do?"),
    AIMessage("They purr."),
    ChatMessage("And dogs?", role="user"),
]


@pytest.mark.parametrize("run", CASE["generation"], ids=lambda run: run["messages"][-1]["content"])
def test_answers_are_the_references(chat: GritLMChat, run: dict[str, Any]) -> None:
    tokens = run["new_ids"]
    answer = chat.invoke(convert_to_messages(run["messages"]), max_tokens=len(tokens))
    assert answer.content == chat.encoder.tokenizer.decode(tokens)
    assert answer.usage_metadata == {
        "input_tokens": len(run["prompt_ids"]),
        "output_tokens": len(tokens),
        "total_tokens": len(run["prompt_ids"]) + len(tokens),
        "input_token_details": {"cache_read": 0},
    }
    assert answer.response_metadata["finish_reason"] == "length"


def test_conversation_is_the_cores(chat: GritLMChat) -> None:
    prompt = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "What do cats do?"},
        {"role": "assistant", "content": "They purr."},
        {"role": "user", "content": "And dogs?"},
    ]
    expected = chat.generator.generate(prompt, max_new_tokens=12).text
    assert chat.invoke(TALK).content == expected
    blocks = [HumanMessage(["And", {"type": "text", "text": "dogs?"}])]
    assert chat.invoke(blocks).content == chat.invoke("And\ndogs?").content


async def test_stream_is_the_answer_in_pieces(chat: GritLMChat) -> None:
    answer = chat.invoke(TALK)
    chunks = list(chat.stream(TALK))
    assert len(chunks) > 5
    assert "".join(chunk.text for chunk in chunks) == answer.content
    assert [chunk async for chunk in chat.astream(TALK)][3].content == chunks[3].content
    usage = chunks[-1].usage_metadata
    assert usage is not None
    assert answer.usage_metadata is not None
    assert usage["input_tokens"] == answer.usage_metadata["input_tokens"]
    assert usage["output_tokens"] > 0
    assert [chunk.usage_metadata for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


async def test_a_stream_that_is_left_stops(chat: GritLMChat) -> None:
    long = chat.bind(max_tokens=10_000)
    next(long.stream("Hello"))
    wait_for_the_generating_thread()
    await anext(long.astream("Hello"))
    await asyncio.to_thread(wait_for_the_generating_thread)


def wait_for_the_generating_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == "llm-embeddings-generate":
            thread.join(timeout=5)
            assert not thread.is_alive()


def test_stop_strings(chat: GritLMChat, gritlm: Encoder) -> None:
    text = str(chat.invoke("Hello").content)
    stop = text[len(text) // 2 :][:2]
    expected = text[: text.index(stop)]
    stopped = chat.invoke("Hello", stop=[stop])
    assert stopped.content == expected
    assert stopped.response_metadata["finish_reason"] == "stop"
    assert GritLMChat(encoder=gritlm, max_tokens=12, stop=[stop]).invoke("Hello").text == expected
    assert "".join(chunk.text for chunk in chat.stream("Hello", stop=[stop])) == expected


def test_options_reach_the_core(chat: GritLMChat, gritlm: Encoder) -> None:
    options = {"temperature": 1.5, "top_k": 50, "top_p": 0.9, "seed": 3}
    expected = chat.generator.generate("Hello", max_new_tokens=7, **options).text
    assert expected != chat.generator.generate("Hello", max_new_tokens=7).text
    assert GritLMChat(encoder=gritlm, max_tokens=7, **options).invoke("Hello").text == expected
    assert chat.bind(max_tokens=7, **options).invoke("Hello").text == expected


def test_weights_are_there_once(gritlm: Encoder) -> None:
    embeddings = LLMEmbeddings(encoder=gritlm)
    chat = GritLMChat(encoder=embeddings.encoder)
    assert LLMEmbeddings(encoder=chat.encoder).encoder is gritlm
    shared = {weight.data_ptr() for weight in gritlm.backbone.parameters()}
    own = [
        name
        for name, weight in chat.generator.model.named_parameters()
        if weight.data_ptr() not in shared
    ]
    assert own == ["lm_head.weight"]


async def test_embedding_and_answering_do_not_disturb_each_other(
    chat: GritLMChat, gritlm: Encoder
) -> None:
    embeddings = LLMEmbeddings(encoder=gritlm)
    questions = [f"question {number} " * (number + 1) for number in range(6)]
    vectors = embeddings.embed_documents(questions)
    answers = [chat.invoke(question).text for question in questions]
    found = await asyncio.gather(
        *(chat.ainvoke(question) for question in questions),
        *(embeddings.aembed_documents(questions) for _ in questions),
    )
    assert [message.text for message in found[:6]] == answers
    for again in found[6:]:
        np.testing.assert_allclose(again, vectors, atol=1e-5)
    assert [message.text for message in chat.batch(questions)] == answers


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([ToolMessage("4", tool_call_id="1")], "ToolMessage has no place"),
        ([HumanMessage([{"type": "image", "url": "x"}])], "type 'image'"),
        ([ChatMessage("x", role="critic")], "role='critic'"),
        ([HumanMessage("x"), AIMessage("y")], "ends with a message of the user"),
        ([AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}])], "type 'tool_call'"),
        ([SystemMessage("x"), HumanMessage([{"type": "text-plain", "text": "y"}])], "2 messages"),
        ([HumanMessage([{"type": "text-plain", "text": "y"}])], "asks nothing"),
        ([HumanMessage([{"type": "text-plain", "url": "y"}])], "type 'text-plain'"),
    ],
)
def test_what_it_cannot_read_is_refused(
    chat: GritLMChat, messages: list[BaseMessage], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        chat.invoke(messages)
    with pytest.raises(ValueError, match=message):
        list(chat.stream(messages))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_token": 3}, "max_token"),
        ({"max_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -1}, "temperature=-1"),
        ({"stop": [""]}, "stop"),
        ({"mode": "docs"}, "mode"),
        ({"rule": "fast"}, "rule"),
        ({"model": "x"}, "encoder is loaded already: leave out model"),
    ],
    ids=str,
)
def test_bad_options_fail_at_once(gritlm: Encoder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GritLMChat(encoder=gritlm, **options)


def test_bad_options_of_a_call_are_named(chat: GritLMChat) -> None:
    with pytest.raises(TypeError, match="does not take max_token: it takes stop, max_tokens"):
        chat.invoke("Hello", max_token=3)
    with pytest.raises(ValueError, match="32768 positions"):
        chat.invoke("Hello", max_tokens=40_000)


def test_model_without_a_head_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no language model head|no chat template"):
        GritLMChat()


def test_answers_of_other_weights_are_not_taken_from_a_cache(gritlm: Encoder) -> None:
    other = Encoder.from_pretrained(GOLDEN / "model", dtype="bfloat16")
    answers = InMemoryCache()
    first = GritLMChat(encoder=gritlm, max_tokens=4, cache=answers)
    assert first.invoke("Hello").text == first.invoke("Hello").text
    assert len(answers._cache) == 1
    for same in ({}, {"max_tokens": 4}):
        first.invoke("Hello", **same)
    assert len(answers._cache) == 1
    GritLMChat(encoder=other, max_tokens=4, cache=answers).invoke("Hello")
    GritLMChat(encoder=gritlm, max_tokens=5, cache=answers).invoke("Hello")
    first.invoke("Hello", temperature=0.5, seed=1)
    assert len(answers._cache) == 4


def test_tokens_are_counted_by_its_own_tokenizer(chat: GritLMChat) -> None:
    assert chat.get_token_ids("Hello") == [22557]
    room = chat.get_num_tokens_from_messages(TALK[-1:])
    kept = trim_messages(TALK, max_tokens=room, token_counter=chat, strategy="last")
    assert kept == TALK[-1:]


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_round_trip() -> None:
    chat = GritLMChat(
        model=GOLDEN / "model", dtype="float32", max_tokens=5, stop=["x"], token="hf_secret"
    )
    text = dumps(chat)
    assert "hf_secret" not in text + repr(chat)
    options: dict[str, Any] = {"valid_namespaces": ["langchain_llm_embeddings"]}
    revived = loads(text, allowed_objects=[GritLMChat], **options)
    assert revived._identifying_params == chat._identifying_params
    assert revived.invoke("Hello").text == chat.invoke("Hello").text
    shared = GritLMChat(encoder=chat.encoder)
    assert '"not_implemented"' in dumps(shared)
