"""Generator: text from the weights of an `Encoder`, to which it adds the language-model head."""

from __future__ import annotations

import collections.abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from ..checkpoint import sidecar
from ..checkpoint.files import Source, find
from ..inputs import names_checked
from .causal import causal_model
from .chat import ChatPrompt, check_format, check_messages, ends_of, prompt_ids
from .decoding import (
    Decoding,
    DecodingOptions,
    batch_of,
    decoding_of,
    generate_batch,
    generate_pieces,
)
from .kv import KeyValues, cache_of, check_room, run_states
from .sampling import Sampling

if TYPE_CHECKING:
    import torch

    from ..encoder import Encoder


class GenerateOptions(DecodingOptions, total=False):
    """The keyword options of `Generator.generate`, for methods that pass them on."""

    answer_start: str


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model wrote.

    Attributes:
        text: The answer, up to a stop string or the end of the turn.
        ids: The new token ids; with a stop string, up to the token that completed it, included.
        prompt_tokens: How many tokens the prompt has.
        cached_tokens: How many of these were not computed, as their states were kept.
        finish: "stop" = end of the turn or a stop string, "length" = `max_new_tokens`.
    """

    text: str
    ids: tuple[int, ...]
    prompt_tokens: int
    cached_tokens: int
    finish: Literal["stop", "length"]


Pieces = collections.abc.Generator[str, None, Generation]


class Generator:
    """Generates answers with the weights of an encoder; only the language-model head is added.

    Several threads may embed and generate at once: generation has modules of its own around the
    same parameters, with causal attention.

    Example:
        >>> encoder = Encoder.from_pretrained("GritLM/GritLM-7B")  # doctest: +SKIP
        >>> generator = Generator(encoder)
        >>> print(generator.generate("What is the capital of France?").text)

    Attributes:
        encoder: The encoder whose weights are shared.
        model: A transformers `...ForCausalLM` around these weights.
        chat_template: Jinja template of prompts; None = GritLM's format.
    """

    @names_checked
    def __init__(
        self,
        encoder: Encoder,
        *,
        checkpoint: str | Path | None = None,
        chat_template: str | None = None,
    ) -> None:
        """Read the head and put it on the encoder's backbone.

        Args:
            encoder: A loaded encoder.
            checkpoint: Directory or hub id that holds the head; None = where the encoder's weights
                came from.
            chat_template: Jinja template of prompts; None = the format it was trained in: GritLM's
                own for its family, what `train grit` says beside its results, else the
                tokenizer's template.

        Raises:
            FileNotFoundError: the checkpoint is not there.
            ValueError: it has no head, the tokenizer no chat template, or the backbone is spread
                over devices.
        """
        self.encoder = encoder
        origin = checkpoint or encoder.backbone.name_or_path
        if not origin:
            raise ValueError("this encoder was not loaded from a checkpoint: pass checkpoint=...")
        directory = find(origin, Source())
        self.model = causal_model(encoder.backbone, directory)
        saved = sidecar.read(directory)
        trained = None if saved is None else saved.chat
        self.chat_template = check_format(encoder.tokenizer, encoder.recipe, chat_template, trained)
        self._ends = ends_of(directory, encoder.tokenizer.eos_token_id)

    @property
    def max_length(self) -> int:
        """Most tokens of prompt and answer together."""
        return int(self.model.config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.encoder.device

    @overload
    def generate(  # type: ignore[overload-overlap]  # a string is no list of prompts
        self, prompts: ChatPrompt, **options: Unpack[GenerateOptions]
    ) -> Generation: ...

    @overload
    def generate(
        self, prompts: Sequence[ChatPrompt], **options: Unpack[GenerateOptions]
    ) -> list[Generation]: ...

    @names_checked
    def generate(
        self,
        prompts: ChatPrompt | Sequence[ChatPrompt],
        *,
        max_new_tokens: int = 256,
        min_new_tokens: int = 0,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        answer_start: str = "",
    ) -> Generation | list[Generation]:
        """Answer one prompt or a batch of them.

        Args:
            prompts: A string (one turn of the user), a conversation (messages with "role" and
                "content", the user's last), or a list of these, which run as one batch.
            max_new_tokens: Most tokens of an answer.
            min_new_tokens: Fewest tokens of an answer.
            temperature: 0 = the likeliest token each time; above, sampling.
            top_k: Sample among this many likeliest tokens.
            top_p: Sample among the likeliest tokens that together have this probability.
            seed: Seed of the samples, the same for each prompt, so that an answer does not depend
                on its batch; None = a new one each time.
            stop: Strings that end an answer; they are not part of its text.
            answer_start: First words of the answer, which the model continues; they are not part
                of its text.

        Returns:
            A `Generation`, or a list of them for a list of prompts.

        Raises:
            TypeError: a prompt is neither a string nor messages.
            ValueError: an option is out of range, or a prompt and `max_new_tokens` take more than
                `max_length` tokens.
        """
        single = isinstance(prompts, str) or (
            len(prompts) > 0 and not isinstance(prompts[0], str | Sequence)
        )
        each: Any = [prompts] if single else list(prompts)
        rows = [self.prompt_ids(prompt, answer_start=answer_start) for prompt in each]
        decoding = Decoding(
            max_new_tokens, min_new_tokens, Sampling(temperature, top_k, top_p, seed), stop
        )
        found = self.generate_ids(rows, decoding) if rows else []
        return found[0] if single else found

    def stream(
        self, prompt: ChatPrompt, *, answer_start: str = "", **options: Unpack[DecodingOptions]
    ) -> Pieces:
        """The answer to one prompt in pieces, which joined are `generate(...).text`.

        To stop iterating stops the generation. The iterator ends with the value that `generate`
        returns (`yield from` gives it, or `StopIteration.value`).

        Args:
            prompt: A string or a conversation.
            answer_start: As in `generate`.
            **options: As in `generate`.

        Raises:
            TypeError: as in `generate`; raised before the first piece is asked for.
            ValueError: likewise.
        """
        ids = self.prompt_ids(prompt, answer_start=answer_start)
        return self.stream_ids(ids, decoding_of(**options))

    def prompt_ids(self, prompt: ChatPrompt, *, answer_start: str = "") -> list[int]:
        """The token ids that the model is fed for a prompt, BOS included."""
        messages = check_messages(prompt)
        encoder = self.encoder
        parts = encoder.tokenizer, encoder.recipe, messages, self.chat_template
        return prompt_ids(*parts, answer_start)

    def generate_ids(
        self,
        rows: Sequence[Sequence[int]],
        decoding: Decoding,
        states: KeyValues | None = None,
    ) -> list[Generation]:
        """`generate` for token ids.

        Args:
            rows: Token ids of each prompt, BOS included.
            decoding: How tokens are chosen, and when an answer ends.
            states: Keys and values of the first tokens of a single prompt, which are then not
                computed again.

        Raises:
            ValueError: a prompt does not fit, or states are given for a batch.
        """
        self._check(rows, decoding, states)
        inputs = batch_of(self.model, rows, cache_of(states, self.device))
        found = generate_batch(self.model, inputs, decoding, self._ends, self._text)
        cached = 0 if states is None else states.length
        return [
            Generation(answer.text, answer.ids, len(row), cached, answer.finish)
            for row, answer in zip(rows, found, strict=True)
        ]

    def stream_ids(
        self, ids: Sequence[int], decoding: Decoding, states: KeyValues | None = None
    ) -> Pieces:
        """`stream` for token ids; arguments as for `generate_ids`."""
        self._check([ids], decoding, states)
        return self._pieces(ids, decoding, states)

    def _pieces(self, ids: Sequence[int], decoding: Decoding, states: KeyValues | None) -> Pieces:
        inputs = batch_of(self.model, [ids], cache_of(states, self.device))
        answer = yield from generate_pieces(self.model, inputs, decoding, self._ends, self._text)
        cached = 0 if states is None else states.length
        return Generation(answer.text, answer.ids, len(ids), cached, answer.finish)

    def states(self, ids: Sequence[int], before: KeyValues | None = None) -> KeyValues:
        """Keys and values of the first tokens of a prompt, attended causally.

        Args:
            ids: All the tokens, those of `before` included.
            before: States of the first of them, which are not computed again.

        Returns:
            States of all tokens, on the model's device.

        Raises:
            ValueError: more tokens than the model has positions.
        """
        check_room(len(ids), 0, self.max_length)
        backbone: Any = self.model.base_model
        return run_states(backbone, ids, before)

    def _check(
        self, rows: Sequence[Sequence[int]], decoding: Decoding, states: KeyValues | None
    ) -> None:
        for row in rows:
            check_room(len(row), decoding.max_new_tokens, self.max_length)
        if states is not None and (len(rows) != 1 or states.length >= len(rows[0])):
            raise ValueError(
                f"states of {states.length} tokens go with one prompt that is longer, not with "
                f"{len(rows)} of {[len(row) for row in rows]} tokens"
            )

    def _text(self, ids: Sequence[int]) -> str:
        tokenizer: Any = self.encoder.tokenizer
        return str(
            tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
