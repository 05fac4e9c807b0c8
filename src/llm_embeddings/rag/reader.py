"""Reader: answers questions from texts, and keeps the states (keys, values) of what it has read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Unpack

from ..generation.decoding import DecodingOptions, decoding_of
from ..generation.kv import KeyValues, bytes_per_token, check_room, joined, run_states
from ..inputs import names_checked
from .modes import Mode, Rule, check_mode, lay_out, paper_blocks, paper_prompt
from .states import StateStore

if TYPE_CHECKING:
    from ..generation import Generation, Generator, Pieces

_SOME_QUESTION = "?"  # where only the documents' part of a prompt is wanted


@dataclass(frozen=True, slots=True)
class Cost:
    """The memory that the states of some texts take.

    Attributes:
        texts: How many texts.
        tokens: How many tokens they have together.
        bytes_per_token: Bytes of the keys and values of one token in all layers.
    """

    texts: int
    tokens: int
    bytes_per_token: int

    @property
    def nbytes(self) -> int:
        """Bytes of all states, in memory or on disk."""
        return self.tokens * self.bytes_per_token


class Reader:
    """Answers questions from texts, in a mode of GritLM's paper.

    States are kept by the tokens they belong to, not by a document's id: the states of a text are
    never used for a changed one.

    Example:
        >>> reader = Reader(generator, states=StateStore("states", max_bytes=10**10))
        >>> reader.prepare(texts)  # reads each of them once  # doctest: +SKIP
        >>> hits = index.search("Who wrote Faust?", k=1)
        >>> print(reader.answer("Who wrote Faust?", [hit.text for hit in hits]).text)

    Attributes:
        generator: Writes the answers.
        mode: Whose states are kept: "none", "query", "doc", "doc-query" or "query-doc". The name is
            also the order in the prompt; in "none", documents come first.
        rule: Which states: "exact" or "paper".
        states: Where they are kept; None in mode "none".
    """

    @names_checked
    def __init__(
        self,
        generator: Generator,
        *,
        mode: Mode = "doc",
        rule: Rule = "exact",
        states: StateStore | None = None,
    ) -> None:
        """Check the mode; nothing is read yet.

        Args:
            generator: Writes the answers.
            mode: Whose states are kept between questions.
            rule: "exact": answers are those without a cache. "paper": states of the pass that
                embeds (GritLM only), which change the answers, and can be combined in any order.
            states: Where states are kept; None = up to 1 GiB in the CPU's memory.

        Raises:
            ValueError: an unknown mode or rule, one that the model cannot use, or a store that
                holds states of another model.
        """
        check_mode(mode, rule, generator)
        self.generator, self.mode, self.rule = generator, mode, rule
        self._bytes_per_token = bytes_per_token(generator.model.config, generator.model.dtype)
        self.states: StateStore | None = None
        if mode != "none":
            self.states = StateStore() if states is None else states
            self.states.bind(generator.encoder.fingerprint("document", ""))

    def answer(
        self,
        question: str,
        documents: Sequence[str],
        *,
        answer_start: str = "",
        **options: Unpack[DecodingOptions],
    ) -> Generation:
        """The answer to a question.

        Args:
            question: The question.
            documents: Texts to answer from, the best first; empty = the model answers alone.
            answer_start: First words of the answer, which the model continues; "The answer is" in
                the paper.
            **options: As in `Generator.generate`.

        Returns:
            A `Generation`; its `cached_tokens` were not computed for this question.

        Raises:
            ValueError: prompt and answer are longer than the model's context, or a bad option.
        """
        decoding = decoding_of(**options)
        ids, states, cached = self._prompt(
            question, documents, answer_start, decoding.max_new_tokens
        )
        found = self.generator.generate_ids([ids], decoding, states)[0]
        return dataclasses.replace(found, cached_tokens=cached)

    def stream(
        self,
        question: str,
        documents: Sequence[str],
        *,
        answer_start: str = "",
        **options: Unpack[DecodingOptions],
    ) -> Pieces:
        """The answer in pieces, as `Generator.stream`; documents are read before the first."""
        decoding = decoding_of(**options)
        ids, states, cached = self._prompt(
            question, documents, answer_start, decoding.max_new_tokens
        )
        return _with_cached(self.generator.stream_ids(ids, decoding, states), cached)

    def prompt_ids(
        self, question: str, documents: Sequence[str], *, answer_start: str = ""
    ) -> list[int]:
        """All token ids that an answer is based on, those with kept states included."""
        if self._by_paper(documents):
            blocks = paper_blocks(self.generator, self.mode, question, documents)
            new = paper_prompt(self.generator, self.mode, question, documents, answer_start)
            return [*(token for block in blocks for token in block), *new]
        return lay_out(self.generator, self.mode, question, documents, answer_start).ids

    def cost(self, documents: Sequence[str]) -> Cost:
        """What the states of texts will take when `prepare` keeps them; nothing is computed."""
        tokens = sum(len(ids) for ids in self._prepared(documents))
        return Cost(len(documents), tokens, self._bytes_per_token)

    def prepare(self, documents: Sequence[str]) -> int:
        """Read texts now, so that no question has to wait for it.

        Texts whose states are kept are not read again, so the same call resumes an interrupted one.

        Returns:
            How many texts had to be read.

        Raises:
            ValueError: the mode keeps no documents, a text is longer than the model's context, or
                the states of all exceed the store's `max_bytes`. Then nothing has been read.
        """
        if self.states is None or "doc" not in self.mode or self._reads_behind_question:
            raise ValueError(
                f"mode={self.mode!r} with rule={self.rule!r} keeps nothing of a document before "
                "there is a question: use mode='doc'"
            )
        rows = self._prepared(documents)
        for ids in rows:
            check_room(len(ids), 0, self.generator.max_length)
        self.states.check(sum(map(len, rows)) * self._bytes_per_token)
        read = 0
        for ids in rows:
            if not self.states.has(self._kind, ids):
                self.states.put(self._kind, ids, self._read(ids))
                read += 1
        return read

    def forget(self, documents: Sequence[str]) -> None:
        """Drop the states that `prepare` keeps of texts."""
        if self.states is not None:
            for ids in self._prepared(documents):
                self.states.delete(self._kind, ids)

    @property
    def _kind(self) -> Literal["causal", "embedding"]:
        """The kind of states that the rule uses."""
        return "embedding" if self.rule == "paper" else "causal"

    @property
    def _reads_behind_question(self) -> bool:
        """Whether the states of a document depend on the question, which stands before it."""
        return self.rule == "exact" and self.mode == "query-doc"

    def _by_paper(self, documents: Sequence[str]) -> bool:
        return self.rule == "paper" and self.mode != "none" and bool(documents)

    def _prepared(self, documents: Sequence[str]) -> list[list[int]]:
        """For each text, the token ids whose states `prepare` keeps."""
        generator = self.generator
        if self.rule == "paper":
            mode: Mode = "query-doc" if self.mode == "query-doc" else "doc"
            return [paper_blocks(generator, mode, _SOME_QUESTION, [d])[-1] for d in documents]
        found = []
        for document in documents:
            laid = lay_out(generator, "doc", _SOME_QUESTION, [document])
            found.append(laid.ids[: laid.borders[0]])
        return found

    def _prompt(
        self, question: str, documents: Sequence[str], answer_start: str, new: int
    ) -> tuple[list[int], KeyValues | None, int]:
        """Ids of a prompt, states of its beginning, and how many tokens had states already."""
        if self._by_paper(documents):
            return self._paper_prompt(question, documents, answer_start, new)
        laid = lay_out(self.generator, self.mode, question, documents, answer_start)
        check_room(len(laid.ids), new, self.generator.max_length)
        if self.states is None or not laid.borders:
            return laid.ids, None, 0
        before = None
        for border in reversed(laid.borders):
            before = self.states.get(self._kind, laid.ids[:border])
            if before is not None:
                break
        cached = 0 if before is None else before.length
        beginning = laid.ids[: laid.borders[-1]]
        if cached == len(beginning):
            return laid.ids, before, cached
        whole = self._read(beginning, before)
        self.states.put(self._kind, beginning, whole)
        return laid.ids, whole, cached

    def _paper_prompt(
        self, question: str, documents: Sequence[str], answer_start: str, new: int
    ) -> tuple[list[int], KeyValues, int]:
        assert self.states is not None
        blocks = paper_blocks(self.generator, self.mode, question, documents)
        ids = [token for block in blocks for token in block]
        ids += paper_prompt(self.generator, self.mode, question, documents, answer_start)
        check_room(len(ids), new, self.generator.max_length)
        parts, cached = [], 0
        for block in blocks:
            part = self.states.get(self._kind, block)
            if part is None:
                part = self._read(block)
                self.states.put(self._kind, block, part)
            else:
                cached += len(block)
            parts.append(part.to(self.generator.device))
        return ids, joined(parts), cached

    def _read(self, ids: Sequence[int], before: KeyValues | None = None) -> KeyValues:
        """Compute states of tokens: causal ones, or those of the embedding pass by rule "paper"."""
        if self.rule == "exact":
            return self.generator.states(ids, before)
        return run_states(self.generator.encoder.backbone, ids)


def _with_cached(pieces: Pieces, cached: int) -> Pieces:
    return dataclasses.replace((yield from pieces), cached_tokens=cached)
