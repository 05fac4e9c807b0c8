"""Formats of conversations: what is learnt, and that a result is asked as it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training import MODEL, quick, triplets, write_rows
from helpers.training_files import write_language_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from llm_embeddings import Encoder
from llm_embeddings.checkpoint import sidecar
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.families.siblings import MEAN
from llm_embeddings.generation import Generator
from llm_embeddings.generation.chat import gritlm_prompt, gritlm_template, prompt_ids, with_bos
from llm_embeddings.records.examples import Conversation, Message
from llm_embeddings.training.batches.conversations import chat_of, tokenize_conversation
from llm_embeddings.training.grit import GRIT, GRIT_RECIPE, train_grit
from llm_embeddings.training.losses import IGNORED

CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}"
    "{% endif %}{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TALK = Conversation(
    (
        Message("user", "What is 2+2?"),
        Message("assistant", " four\n"),
        Message("user", "And 3 more?"),
        Message("assistant", "seven"),
    )
)


def with_template(tokenizer: PreTrainedTokenizerFast, template: str = CHATML) -> Any:
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture
def tokenizer() -> Any:
    return with_template(load_tokenizer(Path(MODEL)))


@pytest.fixture
def instruct(tmp_path: Path) -> str:
    """A language model with a chat template, whose answers end otherwise than its texts."""
    path = write_language_model(tmp_path / "instruct")
    model = AutoModelForCausalLM.from_pretrained(path)
    model.resize_token_embeddings(32002, mean_resizing=False)
    model.generation_config.eos_token_id = [2]
    model.save_pretrained(path)
    with_template(load_tokenizer(path)).save_pretrained(path)
    return str(path)


def learnt(ids: list[int], labels: list[int], tokenizer: Any) -> list[str]:
    """The learnt stretches, in words."""
    found: list[list[int]] = [[]]
    for label in labels:
        if label == IGNORED:
            found.append([])
        else:
            found[-1].append(label)
    assert all(label in (number, IGNORED) for number, label in zip(ids, labels, strict=True))
    return [tokenizer.decode(part) for part in found if part]


def test_answers_of_a_template_are_learnt_to_their_end(tokenizer: Any) -> None:
    chat = chat_of(tokenizer, "tokenizer", [2])
    assert chat.ends == (2, 32001)
    ids, labels = tokenize_conversation(tokenizer, MEAN, TALK, 200, chat)
    assert learnt(ids, labels, tokenizer) == ["four<|im_end|>", "seven<|im_end|>"]
    messages = [{"role": turn.speaker, "content": turn.text} for turn in TALK.messages[:1]]
    prompt = prompt_ids(tokenizer, MEAN, messages, CHATML)
    assert ids[: len(prompt)] == prompt
    assert labels[: len(prompt)] == [IGNORED] * len(prompt)


def test_a_template_may_think_in_its_last_answer_only(tokenizer: Any) -> None:
    tokenizer.chat_template = CHATML.replace(
        "m['content'] +",
        "('<think></think>' if loop.last and m['role'] == 'assistant' else '') + m['content'] +",
    )
    chat = chat_of(tokenizer, "tokenizer", [32001])
    ids, labels = tokenize_conversation(tokenizer, MEAN, TALK, 200, chat)
    assert learnt(ids, labels, tokenizer) == [
        "four<|im_end|>",
        "<think></think>seven<|im_end|>",
    ]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template of its own"),
        ("{{ raise_exception('no roles') }}", "refuses a conversation: no roles"),
        ("{{ messages | length }}" + CHATML, "writes the beginning of a conversation in another"),
        (CHATML.replace("m['content']", "m['content'] | upper"), "leaves out the answer 'four'"),
        ("{% for m in messages %}{{ m['content'] + ';' }}{% endfor %}", "ends .* no special token"),
    ],
)
def test_templates_that_do_not_go_with_training(
    tokenizer: Any, template: str | None, message: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(ValueError, match=message):
        chat_of(tokenizer, "tokenizer", [2])


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_the_template_of_gritlms_format_writes_it(tokenizer: Any, system: str) -> None:
    """The prompt's ids, which are also how the training row of the conversation begins."""
    messages = [{"role": turn.speaker, "content": turn.text.strip()} for turn in TALK.messages[:3]]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    tokenizer.chat_template = gritlm_template(tokenizer, GRIT_RECIPE)
    written = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert written == "<s>" + gritlm_prompt(messages, "</s>")
    ids = with_bos(tokenizer, GRIT_RECIPE, gritlm_prompt(messages, "</s>"))
    encode = tokenizer.backend_tokenizer.encode
    assert encode(written, add_special_tokens=False).ids == ids
    if not system:
        row, _ = tokenize_conversation(tokenizer, GRIT_RECIPE, TALK, 200)
        assert row[: len(ids)] == ids
    without = gritlm_template(tokenizer, GRIT_RECIPE.replace(bos=False))
    assert without == tokenizer.chat_template.removeprefix("<s>")


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "chat_format"), [("mean", None), (None, "tokenizer")])
def test_a_result_is_asked_as_it_was_trained(
    tmp_path: Path, instruct: str, chat_format: Any, recipe: str | None
) -> None:
    """By this package, by plain transformers, and by a second run of the stage."""
    talks = write_rows(
        tmp_path / "talks.jsonl", [{"text": [turn.text for turn in TALK.messages]}] * 4
    )
    more: dict[str, Any] = {"generative": (talks,), "generative_batch_size": 2, "negatives": 0}
    data = triplets(tmp_path / "stones.jsonl")
    options = quick(tmp_path, data, model=instruct, recipe=recipe, max_steps=1, **more)
    result = train_grit(GRIT(**options, chat_format=chat_format))
    saved = sidecar.read(result)
    assert saved is not None
    assert saved.chat == (chat_format or "gritlm")
    encoder = Encoder.from_pretrained(result, dtype="float32")
    generator = Generator(encoder)
    asked = generator.prompt_ids("What is 2+2?")
    row, _ = tokenize_conversation(
        encoder.tokenizer,
        encoder.recipe,
        TALK,
        200,
        chat_of(encoder.tokenizer, saved.chat, [2]),
    )
    assert row[: len(asked)] == asked
    plain = encoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 2+2?"}], add_generation_prompt=True
    )["input_ids"]
    assert plain == asked
    loaded = AutoModelForCausalLM.from_pretrained(result, dtype=torch.float32)
    assert loaded.generation_config.use_cache is not False
    ends = [2, 32001] if chat_format else 2
    assert json.loads((result / "generation_config.json").read_text())["eos_token_id"] == ends
    assert generator._ends == ([2, 32001] if chat_format else [2])
    again = GRIT(**options | {"model": str(result), "output": tmp_path / "again"})
    found = sidecar.read(train_grit(again))
    assert found is not None
    assert found.chat == saved.chat
