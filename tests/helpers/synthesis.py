"""A chat model that fails as endpoints do, and a clock that does not make tests wait."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import selectors
from collections import Counter
from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

# Shares of prompts. Those of TRANSIENT fail once; those of LASTING whenever they are asked; the
# rest are answered, but not well.
TRANSIENT = {"timeout": 0.02, "rate limit": 0.03, "unreachable": 0.02, "once not JSON": 0.02}
LASTING = {"not JSON": 0.02, "refusal": 0.02, "truncated": 0.02, "rejected": 0.01}
POOR = {"duplicate": 0.03, "language": 0.03}
WORDS = (
    "amber basin cedar delta ember fjord grove harbor inlet jungle kettle lagoon meadow nectar "
    "orchard pebble quarry ridge summit thicket upland valley willow yonder zephyr bridge castle "
    "dragon engine forest garden hammer island jacket kitchen ladder mirror needle office pencil"
).split()
JOINS = (
    "about the, behind a, which the old, under my, and another, with every, near that, "
    "without any, before his, because of her, like the first, over our, if this, into their"
).split(", ")
GERMAN = (
    "Der alte Leuchtturm steht noch immer auf der Insel, und jeden Abend erzählt der Wärter den "
    "Kindern des Dorfes eine Geschichte von den Schiffen, die hier einst vorbeigefahren sind. "
    "Nummer {}, und niemand weiß genau, wie viele es waren."
)


class EndpointError(Exception):
    """What the SDKs of providers raise: an exception with a status code."""

    def __init__(self, status_code: int, words: str) -> None:
        super().__init__(words)
        self.status_code = status_code


class FlakyChat(BaseChatModel):
    """Answers every prompt of this package; what goes wrong depends on the prompt alone.

    Prompts of the same text (few) share their fate; `prompts` counts calls by prompt.
    """

    latency: float = 0.0
    shares: Mapping[str, float] = {**TRANSIENT, **LASTING, **POOR}
    _prompts: Counter[str] = PrivateAttr(default_factory=Counter)
    _under_way: int = PrivateAttr(default=0)
    _most: int = PrivateAttr(default=0)

    @property
    def _llm_type(self) -> str:
        return "flaky"

    @property
    def prompts(self) -> Counter[str]:
        return self._prompts

    @property
    def most_at_once(self) -> int:
        return self._most

    def fate(self, prompt: str) -> str:
        """A key of `shares`; "" = all is well. Prompts for tasks are always answered."""
        if "JSON list" in prompt:
            return ""
        place = number_of(prompt) / 2**32
        for name, share in self.shares.items():
            place -= share
            if place < 0:
                return name
        return ""

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        prompt = str(messages[-1].content)
        self._prompts[prompt] += 1
        self._under_way += 1
        self._most = max(self._most, self._under_way)
        try:
            await asyncio.sleep(self.latency)
            fate = self.fate(prompt)
            if fate in TRANSIENT and self._prompts[prompt] > 1:
                fate = ""
            if fate == "timeout":
                await asyncio.sleep(1e6)
        finally:
            self._under_way -= 1
        errors = {"rate limit": (429, "slow down"), "unreachable": (503, "overloaded")}
        errors["rejected"] = (400, "not this prompt")
        if fate in errors:
            raise EndpointError(*errors[fate])
        text = said(prompt, fate, self._prompts[prompt])
        about = {"finish_reason": "length" if fate == "truncated" else "stop"}
        usage = {"input_tokens": 300, "output_tokens": 100, "total_tokens": 400}
        message = AIMessage(text, response_metadata=about, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])


def number_of(prompt: str) -> int:
    """32 bits that depend on a prompt alone."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4])


def said(prompt: str, fate: str, turn: int = 0) -> str:
    """A reply to a prompt of this package; tasks differ from turn to turn."""
    number = number_of(prompt)
    if "JSON list" in prompt:
        number += turn
        return json.dumps([f"Find what somebody wrote about {w}, case {number}." for w in WORDS])
    if fate in ("not JSON", "once not JSON"):
        return '{"user_query": "' + sentence(prompt, 8) + '" oops}'
    if fate == "refusal":
        return "I'm sorry, but I can't help with that."
    keys = re.findall(r'"(\w+)"(?:[:, ]|\.| and| as|\n)', prompt.partition("Follow these")[0])
    texts = {key: sentence(f"{prompt} {key}", 30) for key in dict.fromkeys(keys)}
    if fate == "duplicate":
        texts = {key: sentence(key, 30) for key in texts}
    if fate == "language":
        texts = {key: GERMAN.format(f"{number} {key}") for key in texts}
    reply = json.dumps(texts, ensure_ascii=False)
    return reply[: len(reply) // 2] if fate == "truncated" else f"```json\n{reply}\n```"


def sentence(about: str, length: int) -> str:
    """English words, drawn by a text, in sentences that a language classifier knows."""
    digest = hashlib.shake_256(about.encode()).digest(2 * length)
    drawn = [
        f"{JOINS[join % len(JOINS)]} {WORDS[word % len(WORDS)]}"
        for join, word in zip(digest[::2], digest[1::2], strict=True)
    ]
    return f"This is {' '.join(drawn)}."


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next thing that waits."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and timeout:
            self._loop.now += timeout
        assert found or timeout is not None, "nothing is left that could happen"
        return found


def run_virtually(coroutine: Any) -> tuple[Any, float]:
    """The result of a coroutine, and the seconds it would have taken."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(coroutine), loop.now
