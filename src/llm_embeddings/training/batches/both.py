"""What one update of GRIT sees: pairs to embed, and conversations to write."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import Any

from ...records.examples import Conversation, Example, read_conversations, read_examples
from ...records.sources import Source
from .mixture import Mixture
from .pairs import Pair, choose

_LOSSES = ("embedding", "generative")
_STRIPPED = "\t\n :"  # what gritlm's training takes off both ends of an instruction


@dataclass(frozen=True, slots=True)
class Both:
    """What one update learns from; either list may be empty."""

    pairs: list[Pair]
    conversations: list[Conversation]


class BothData:
    """Examples and conversations, each with a batch size of its own; either may be left out.

    Attributes:
        updates: Updates in the epochs of the examples or, without any, of the conversations; None
            = without end.
    """

    def __init__(
        self,
        examples: Sequence[Source],
        conversations: Sequence[Source],
        *,
        sizes: tuple[int, int],
        negatives: int,
        instruction: str,
        epochs: int | None,
        seed: int,
        known: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Read both once.

        Args:
            examples: Files of pairs and triplets.
            conversations: Files of conversations and texts.
            sizes: Examples and conversations per update.
            negatives: Hard negatives per query.
            instruction: What queries without an instruction of their own get.
            epochs: Passes over the data; None = endless.
            seed: Seed of the order, and of the passages that are drawn.
            known: `fingerprint` of the run that goes on; () = it begins.

        Raises:
            OSError: a file cannot be read.
            ValueError: a row that does not fit.
        """
        self._sizes, self._seed = sizes, seed
        self._draw = partial(choose, negatives=negatives, instruction=instruction)
        read = partial(read_stripped, negatives=negatives > 0)
        pairs, talks = ([entry for entry in known if entry["loss"] == name] for name in _LOSSES)
        self._examples = Mixture(examples, read, seed=seed, known=pairs) if examples else None
        self._conversations = (
            Mixture(conversations, read_conversations, seed=seed, same_source=False, known=talks)
            if conversations
            else None
        )
        parts = zip((self._examples, self._conversations), sizes, strict=True)
        counts = [part.updates(size, epochs) for part, size in parts if part is not None]
        self.updates = counts[0]

    def batches(self, start: int) -> Iterator[Both]:
        """Batches from number `start` on, without end."""
        pairs: Iterator[list[Example]] = repeat([])
        conversations: Iterator[list[Conversation]] = repeat([])
        if self._examples is not None:
            pairs = self._examples.batches(self._sizes[0], start)
        if self._conversations is not None:
            conversations = self._conversations.batches(self._sizes[1], start)
        for number, (examples, talks) in enumerate(zip(pairs, conversations, strict=True), start):
            rng = random.Random(f"pairs {self._seed} {number}")
            yield Both(self._draw(examples, rng=rng), talks)

    def fingerprint(self) -> list[dict[str, Any]]:
        """`Mixture.fingerprint` of both, each entry with the loss that it is for."""
        parts = zip(_LOSSES, (self._examples, self._conversations), strict=True)
        return [
            {"loss": name, **entry}
            for name, part in parts
            if part is not None
            for entry in part.fingerprint()
        ]


def read_stripped(source: Source, *, negatives: bool) -> Iterator[Example]:
    """Examples of a file, without the colons and spaces around their instructions."""
    for example in read_examples(source, negatives=negatives):
        yield replace(
            example,
            instruction=(example.instruction or "").strip(_STRIPPED) or None,
            document_instruction=(example.document_instruction or "").strip(_STRIPPED) or None,
        )
