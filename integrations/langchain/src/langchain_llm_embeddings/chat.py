"""GritLMChat: an `llm_embeddings` `Generator` behind LangChain's `BaseChatModel` interface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, PrivateAttr

from llm_embeddings.generation import GenerateOptions, Generation, Generator
from llm_embeddings.rag import Mode, Reader, Rule, StateStore

from .loading import MODEL_CONFIG, ModelFields
from .messages import Question, conversation
from .values import PathText

# What a call may change, by LangChain's name and the core's.
_CALL_OPTIONS = {
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "seed": "seed",
}


class GritLMChat(ModelFields, BaseChatModel):
    """Answers from a model that also embeds, for LangChain.

    The weights are those of the embeddings: `GritLMChat(encoder=embeddings.encoder)` adds the
    language model head alone, and `LLMEmbeddings(encoder=chat.encoder)` adds nothing. Both may be
    used at the same time. Like the embeddings, the object is frozen; `bind` changes an option.

    Documents in blocks of their own, as `DocumentPrompt` writes them, are read once and remembered.

    Setup:
        `pip install langchain-llm-embeddings`

    Instantiate:
        >>> from langchain_llm_embeddings import GritLMChat
        >>> chat = GritLMChat(model="GritLM/GritLM-7B", max_tokens=100)  # doctest: +SKIP

    Invoke:
        >>> answer = chat.invoke("What do cats do?")  # doctest: +SKIP

    Stream:
        >>> for chunk in chat.stream("What do cats do?"):  # doctest: +SKIP
        ...     print(chunk.text, end="", flush=True)

    Async:
        >>> answer = await chat.ainvoke("What do cats do?")  # doctest: +SKIP

    What loads the model and `encoder` are as in `LLMEmbeddings`, except that the small model which
    comes with `llm-embeddings` cannot generate: give `model` or `encoder`.

    Attributes:
        checkpoint: Directory or hub id that holds the language model head; None = where the
            weights came from.
        chat_template: Jinja template of prompts; None = GritLM's own format for its family, else
            the tokenizer's template.
        max_tokens: Tokens an answer may have.
        temperature: 0 = the likeliest token each time; above, sampling.
        top_k: Sample among this many likeliest tokens.
        top_p: Sample among the likeliest tokens that together have this probability.
        seed: Of the samples; None = another one each time.
        stop: Strings that end an answer; they are not part of it.
        streaming: Whether `invoke` goes token by token too, for callbacks that show them.
        mode: What is remembered of documents and questions, by the names of GritLM's paper: "none",
            "query", "doc", "doc-query" or "query-doc".
        rule: "exact" = answers are those of mode "none"; "paper" = the states that embedding leaves
            are used, which saves more reading and changes answers.
        states: Where it is remembered, to be shared or on disk; None = up to 1 GiB in memory. Not
            serialised.
    """

    model_config = MODEL_CONFIG

    checkpoint: PathText | None = None
    chat_template: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    streaming: bool = False
    mode: Mode = "doc"
    rule: Rule = "exact"
    states: StateStore | None = Field(default=None, exclude=True, repr=False)
    _reader: Reader = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Load the model unless a loaded one is given, then its head, then try the options."""
        super().model_post_init(context)
        generator = Generator(
            self.encoder, checkpoint=self.checkpoint, chat_template=self.chat_template
        )
        self._reader = Reader(generator, mode=self.mode, rule=self.rule, states=self.states)
        generator.generate([], **self._options(None, {}))

    @property
    def generator(self) -> Generator:
        """The core's generator, for all that LangChain has no name for."""
        return self._reader.generator

    @property
    def reader(self) -> Reader:
        """The core's reader: `reader.prepare(texts)` reads documents before anybody asks."""
        return self._reader

    def get_token_ids(self, text: str) -> list[int]:
        """Ids of a text alone, as `trim_messages` and others count them."""
        ids: list[int] = self.encoder.tokenizer.encode(text, add_special_tokens=False)
        return ids

    @property
    def _llm_type(self) -> str:
        return "llm-embeddings-chat"

    @property
    def _shown_name(self) -> str:
        return self.model_name or str(self.encoder.model.backbone.name_or_path)

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("checkpoint", "chat_template", *_CALL_OPTIONS, "stop", "mode", "rule")
        return {"model": self._shown_name, **{name: getattr(self, name) for name in names}}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "llm-embeddings"
        params.setdefault("ls_model_name", self._shown_name)
        return params

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """A key of LangChain's cache of answers: it names the weights, not where they came from."""
        facts = {
            **self._identifying_params,
            **self._options(stop, kwargs),
            "model": self.encoder.fingerprint("document", ""),
        }
        return json.dumps(facts, sort_keys=True)

    def _options(self, stop: list[str] | None, changed: dict[str, Any]) -> GenerateOptions:
        """The core's options for one call: the object's, changed by the call's."""
        # `stream=` is LangChain's own and has done its work by now.
        unknown = sorted(changed.keys() - _CALL_OPTIONS.keys() - {"stream"})
        if unknown:
            raise TypeError(
                f"a call does not take {', '.join(unknown)}: it takes stop, "
                f"{', '.join(_CALL_OPTIONS)}"
            )
        options: Any = {
            core: changed.get(name, getattr(self, name)) for name, core in _CALL_OPTIONS.items()
        }
        options["stop"] = (self.stop or []) if stop is None else stop
        found: GenerateOptions = options
        return found

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        options, prompt = self._options(stop, kwargs), conversation(messages)
        if isinstance(prompt, Question):
            found = self.reader.answer(prompt.text, prompt.documents, **options)
        else:
            found = self.generator.generate(prompt, **options)
        message = AIMessage(content=found.text, **self._facts(found))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        options, prompt = self._options(stop, kwargs), conversation(messages)
        if isinstance(prompt, Question):
            pieces = self.reader.stream(prompt.text, prompt.documents, **options)
        else:
            pieces = self.generator.stream(prompt, **options)
        found = None
        while found is None:
            try:
                piece = next(pieces)
            except StopIteration as end:
                found = end.value
                continue
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager is not None:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk
        last = AIMessageChunk(content="", chunk_position="last", **self._facts(found))
        yield ChatGenerationChunk(message=last)

    def _facts(self, found: Generation) -> dict[str, Any]:
        """What a message says of its answer."""
        usage = UsageMetadata(
            input_tokens=found.prompt_tokens,
            output_tokens=len(found.ids),
            total_tokens=found.prompt_tokens + len(found.ids),
            input_token_details=InputTokenDetails(cache_read=found.cached_tokens),
        )
        response = {"model_name": self._shown_name, "finish_reason": found.finish}
        return {"usage_metadata": usage, "response_metadata": response}
