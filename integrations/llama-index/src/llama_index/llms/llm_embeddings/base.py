"""GritLM: an `llm_embeddings` `Generator` behind LlamaIndex's `CustomLLM`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from llama_index.core.base.llms.generic_utils import (
    astream_completion_response_to_chat_response,
    completion_response_to_chat_response,
    stream_completion_response_to_chat_response,
)
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.custom import CustomLLM
from llama_index.embeddings.llm_embeddings._options import (
    ModelKeywords,
    check_encoder,
    check_options,
    load_options,
    plain_options,
)

from llm_embeddings import Encoder
from llm_embeddings.generation import GenerateOptions, Generator
from llm_embeddings.rag import Mode, Reader, Rule, StateStore

from ._convert import conversation, in_threads

PathText = str | Path
Talk = list[dict[str, str]]

# What a call may change.
_CALL_OPTIONS = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop")


class GritLM(CustomLLM):
    """Answers from a model that also embeds, for LlamaIndex.

    The weights are those of the embeddings: `GritLM(encoder=embed_model.encoder)` adds the language
    model head alone, and `LLMEmbedding(encoder=llm.encoder)` adds nothing. Both may be used at the
    same time. Options are fixed; a call's keywords change them for that call.

    Example:
        >>> from llama_index.core import Settings
        >>> Settings.embed_model = LLMEmbedding("GritLM/GritLM-7B")  # doctest: +SKIP
        >>> Settings.llm = GritLM(encoder=Settings.embed_model.encoder)  # doctest: +SKIP

    Attributes:
        model_name: Hub id or local directory, shown in events.
        max_new_tokens: Tokens an answer may have.
        temperature: 0 = the likeliest token each time; above, sampling.
        top_k: Sample among this many likeliest tokens.
        top_p: Sample among the likeliest tokens that together have this probability.
        seed: Of the samples; None = another one each time.
        stop: Strings that end an answer; they are not part of it.
        mode: What a query engine remembers of documents and questions, by the names of GritLM's
            paper: "none", "query", "doc", "doc-query" or "query-doc".
        rule: "exact" = answers are those of mode "none"; "paper" = the states that embedding leaves
            are used, which saves more reading and changes answers.
    """

    model_name: str = Field(default="", frozen=True)
    max_new_tokens: int = Field(default=256, frozen=True)
    temperature: float = Field(default=0.0, frozen=True)
    top_k: int | None = Field(default=None, frozen=True)
    top_p: float | None = Field(default=None, frozen=True)
    seed: int | None = Field(default=None, frozen=True)
    stop: list[str] = Field(default_factory=list, frozen=True)
    mode: Mode = Field(default="doc", frozen=True)
    rule: Rule = Field(default="exact", frozen=True)

    _reader: Reader = PrivateAttr()

    def __init__(
        self,
        model_name: PathText | None = None,
        *,
        encoder: Encoder | None = None,
        checkpoint: PathText | None = None,
        chat_template: str | None = None,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        mode: Mode = "doc",
        rule: Rule = "exact",
        states: StateStore | None = None,
        system_prompt: str | None = None,
        callback_manager: CallbackManager | None = None,
        **options: Unpack[ModelKeywords],
    ) -> None:
        """Load the model, or take a loaded one, then its head, and try the options on no prompt.

        Args not among the attributes:
            encoder: A loaded `Encoder` to share, instead of all that loads one.
            checkpoint: Directory or hub id that holds the language model head; None = where the
                weights came from.
            chat_template: Jinja template of prompts; None = GritLM's own format for its family,
                else the tokenizer's template.
            states: Where a query engine remembers, to be shared or on disk; None = up to 1 GiB in
                memory.
            system_prompt, callback_manager: As in LlamaIndex's `LLM`.
            **options: What loads a model, as in `LLMEmbedding`.

        Raises:
            FileNotFoundError: a directory, repository, base or weight file is missing.
            TypeError: an unknown option, or one of a wrong type.
            ValueError: neither `model_name` nor `encoder`, a model that cannot generate, or
                anything else that does not fit; the message names it and the remedy.
        """
        check_encoder(encoder)
        check_options(options, ModelKeywords.__annotations__, GritLM.__init__)
        name = model_name if encoder is None else encoder.model.backbone.name_or_path
        if name is None or (encoder is not None and model_name is not None):
            raise ValueError(
                "give either model_name or encoder: the small model inside llm-embeddings embeds "
                "and cannot generate"
            )
        fields: dict[str, Any] = {
            "model_name": str(name),
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "seed": seed,
            "stop": [stop] if isinstance(stop, str) else list(stop),
            "mode": mode,
            "rule": rule,
            "system_prompt": system_prompt,
            "callback_manager": callback_manager or CallbackManager([]),
        }
        super().__init__(**fields)
        if encoder is None:
            encoder = Encoder.open(name, load_options(plain_options(options)))
        generator = Generator(encoder, checkpoint=checkpoint, chat_template=chat_template)
        self._reader = Reader(generator, mode=mode, rule=rule, states=states)
        generator.generate([], **self.options({}))

    @classmethod
    def class_name(cls) -> str:
        """The name LlamaIndex writes into events."""
        return "GritLM"

    @property
    def metadata(self) -> LLMMetadata:
        """Context, length of an answer, and that it takes conversations."""
        return LLMMetadata(
            context_window=self.generator.max_length,
            num_output=self.max_new_tokens,
            is_chat_model=True,
            model_name=self.model_name,
        )

    @property
    def encoder(self) -> Encoder:
        """The encoder whose weights the LLM shares."""
        return self.generator.encoder

    @property
    def generator(self) -> Generator:
        """The core's generator, for all that LlamaIndex has no name for."""
        return self._reader.generator

    @property
    def reader(self) -> Reader:
        """The core's reader: `reader.prepare(texts)` reads documents before anybody asks."""
        return self._reader

    def options(self, changed: dict[str, Any]) -> GenerateOptions:
        """The core's options for one call: the object's, changed by the call's.

        Raises:
            TypeError: the call names an option that is not there.
        """
        unknown = sorted(changed.keys() - set(_CALL_OPTIONS))
        if unknown:
            raise TypeError(
                f"a call does not take {', '.join(unknown)}: it takes {', '.join(_CALL_OPTIONS)}"
            )
        found: Any = {name: changed.get(name, getattr(self, name)) for name in _CALL_OPTIONS}
        options: GenerateOptions = found
        return options

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to one turn of the user; `formatted` says nothing, the core has the format."""
        return self._complete(prompt, kwargs)

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """`complete` while the event loop goes on."""
        return await asyncio.to_thread(self._complete, prompt, kwargs)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """`complete` piece by piece."""
        return self._stream(prompt, kwargs)

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """`stream_complete` while the event loop goes on."""
        return in_threads(self._stream(prompt, kwargs))

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a conversation whose last message is the user's."""
        answer = self._complete(conversation(messages), kwargs)
        return completion_response_to_chat_response(answer)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat` while the event loop goes on."""
        answer = await asyncio.to_thread(self._complete, conversation(messages), kwargs)
        return completion_response_to_chat_response(answer)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """`chat` piece by piece."""
        pieces = self._stream(conversation(messages), kwargs)
        return stream_completion_response_to_chat_response(pieces)

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """`stream_chat` while the event loop goes on."""
        pieces = in_threads(self._stream(conversation(messages), kwargs))
        return astream_completion_response_to_chat_response(pieces)

    def _complete(self, prompt: str | Talk, changed: dict[str, Any]) -> CompletionResponse:
        found = self.generator.generate(prompt, **self.options(changed))
        counts = {
            "prompt_tokens": found.prompt_tokens,
            "completion_tokens": len(found.ids),
            "total_tokens": found.prompt_tokens + len(found.ids),
        }
        return CompletionResponse(text=found.text, additional_kwargs=counts, raw=found)

    def _stream(self, prompt: str | Talk, changed: dict[str, Any]) -> CompletionResponseGen:
        text = ""
        for piece in self.generator.stream(prompt, **self.options(changed)):
            text += piece
            yield CompletionResponse(text=text, delta=piece)
