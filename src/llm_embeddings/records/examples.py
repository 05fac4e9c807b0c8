"""Rows of files as what stages train on: examples, texts, conversations, LLaRA's passages.

Every reader streams one file, and every error says which line it is about.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from .columns import Columns, columns_of, is_positive
from .lines import Row, read_rows
from .sources import Source

Speaker = Literal["text", "user", "assistant"]
# LLM2Vec's training data has "instruction; SEPARATOR text" in one string
# (llm2vec/dataset/E5Data.py).
_SEPARATOR = "!@#$%^&*()"
_SCORES = ("pos_scores", "neg_scores")


@dataclass(frozen=True, slots=True)
class Example:
    """A query with what it should and should not find.

    Attributes:
        query: Its text.
        positives: At least one.
        negatives: Hard negatives; may be none.
        instruction: What the query asks for; "" = none, None = nothing is said about it.
        document_instruction: What goes before positives and negatives; None in most tasks, the
            query's instruction in symmetric ones.
        source: Which data it is from: the column "source", or the file's name.
        scores: What a teacher gives each of positives and negatives for the query; () = nothing.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    instruction: str | None = None
    document_instruction: str | None = None
    source: str = ""
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; of speaker "text" where there are no turns and the model learns every token."""

    speaker: Speaker
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A plain text (one message), or turns of user and assistant that end with the assistant.

    Attributes:
        messages: The turns.
        source: The file's name.
    """

    messages: tuple[Message, ...]
    source: str = ""


def read_examples(
    source: Source, *, negatives: bool = False, scores: bool = False
) -> Iterator[Example]:
    """Pairs and triplets.

    Args:
        source: The file; `llm_embeddings.records.columns` knows the names of its columns.
        negatives: Whether every row needs one, none of which is a positive, too.
        scores: Whether every row needs a teacher's scores, in FlagEmbedding's columns `pos_scores`
            and `neg_scores`; without, they are passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: a row that does not fit.
    """
    columns: Columns | None = None
    for index, row in enumerate(read_rows(source.path, source.rows)):
        columns = columns or columns_of(row, source)
        if columns.label is None or is_positive(row, columns.label):
            example = _example(row, columns, source, index)
            if negatives and not example.negatives:
                raise ValueError(
                    f"{row.place} has no negatives, which this stage needs: mine some, or train "
                    "without hard negatives"
                )
            if negatives and (both := set(example.positives) & set(example.negatives)):
                raise ValueError(
                    f"{row.place}: {min(both)!r:.60} is a positive and a negative of one query: "
                    "drop one of them"
                )
            yield replace(example, scores=_scores(row, example)) if scores else example


def read_texts(source: Source) -> Iterator[str]:
    """Plain texts: the lines of a .txt file, the column "text" of others.

    Raises:
        OSError: the file cannot be read.
        ValueError: a row that does not fit.
    """
    for row in read_rows(source.path, source.rows):
        yield text_of(row, source)


def text_of(row: Row, source: Source) -> str:
    """The text of a row of `read_texts`.

    Raises:
        ValueError: there is none.
    """
    name = source.columns.get("text", "text")
    column = name if isinstance(name, str) else name[0]
    return _text(_value(row, column), row, column)


def read_conversations(source: Source) -> Iterator[Conversation]:
    """What a language model learns from: "text", a string or GritLM's list of turns, or "messages".

    Raises:
        OSError: the file cannot be read.
        ValueError: a row that does not fit.
    """
    for row in read_rows(source.path, source.rows):
        if "messages" in row.values:
            yield Conversation(_turns(row, _messages(row)), source.name)
            continue
        value = _value(row, "text")
        if isinstance(value, list):
            speakers = ("user", "assistant")
            turns = [(speakers[place % 2], text) for place, text in enumerate(value)]
            yield Conversation(_turns(row, turns), source.name)
        else:
            yield Conversation((Message("text", _text(value, row, "text")),), source.name)


def _example(row: Row, columns: Columns, source: Source, index: int) -> Example:
    ((framed, query),) = _pairs(row, columns.query, single=True)
    positives = _pairs(row, columns.positive)
    negatives = [pair for column in columns.negative for pair in _pairs(row, column, optional=True)]
    if not positives:
        raise ValueError(f"{row.place}: column {columns.positive!r} holds no positive")
    instruction = framed or _instruction(row, columns.instruction)
    if instruction is None:
        instruction = source.instruction_of(index)
    others = {other for other, _ in (*positives, *negatives)}
    if len(others) > 1:
        raise ValueError(f"{row.place}: its passages have different instructions: {sorted(others)}")
    document = others.pop() or (instruction if source.symmetric else None)
    name = row.values.get("source")
    return Example(
        query,
        tuple(text for _, text in positives),
        tuple(text for _, text in negatives),
        instruction,
        document or None,
        name if isinstance(name, str) and name else source.name,
    )


def _scores(row: Row, example: Example) -> tuple[float, ...]:
    """A teacher's scores of positives and negatives, in their order."""
    found: list[float] = []
    for column, texts in zip(_SCORES, (example.positives, example.negatives), strict=True):
        values = row.values.get(column)
        values = values if isinstance(values, list) else [values]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if not len(texts) == len(values) == len(numbers) or not all(map(math.isfinite, numbers)):
            raise ValueError(
                f"{row.place}: {column!r} is {row.values.get(column)!r:.60}, not a score for each "
                f"of {len(texts)} texts: score every row, or train without a teacher"
            )
        found += map(float, numbers)
    return tuple(found)


def _instruction(row: Row, column: str | None) -> str | None:
    """The instruction in a row's own column; "" says that there is none."""
    value = row.values.get(column) if column else None
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{row.place}: column {column!r} is {value!r:.60}, not a string")


def _pairs(
    row: Row, column: str, *, single: bool = False, optional: bool = False
) -> list[tuple[str, str]]:
    """Instruction ("" for none) and text of each entry of a column.

    A list of two strings is GritLM's [instruction, text] where a single text is meant, two texts
    elsewhere.
    """
    if optional and row.values.get(column) is None:
        return []
    value = _value(row, column)
    entries = [value] if single or not isinstance(value, list) else value
    return [_pair(entry, row, column) for entry in entries]


def _pair(entry: Any, row: Row, column: str) -> tuple[str, str]:
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str):
        return entry[0], _text(entry[1], row, column)
    text = _text(entry, row, column)
    instruction, separator, rest = text.partition(_SEPARATOR)
    if not separator:
        return "", text
    return instruction.strip(), _text(rest, row, column)


def _value(row: Row, column: str) -> Any:
    if column not in row.values:
        listed = ", ".join(row.values) or "none"
        raise ValueError(f"{row.place} has no column {column!r}; it has: {listed}")
    return row.values[column]


def _text(value: Any, row: Row, column: str) -> str:
    """A string that is not blank, as it is."""
    if not isinstance(value, str):
        raise ValueError(f"{row.place}: column {column!r} holds {value!r:.60}, not a text")
    if not value.strip():
        raise ValueError(f"{row.place}: column {column!r} holds an empty text: drop the row")
    return value


def _messages(row: Row) -> list[tuple[Any, Any]]:
    """Role and content of the turns of "messages"."""
    value = row.values["messages"]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise ValueError(f'{row.place}: "messages" is not a list of {{"role", "content"}}')
    return [(turn.get("role"), turn.get("content")) for turn in value]


def _turns(row: Row, turns: list[tuple[Any, Any]]) -> tuple[Message, ...]:
    """Turns, checked: user and assistant by turns, the assistant last."""
    speakers = get_args(Speaker)[1:]
    for place, (role, _) in enumerate(turns):
        if role != speakers[place % 2]:
            raise ValueError(
                f"{row.place}: turn {place + 1} is of {role!r}, not of {speakers[place % 2]!r}. "
                "Turns alternate, the user first; put a system message before the first question"
            )
    if not turns or len(turns) % 2:
        raise ValueError(
            f"{row.place}: {len(turns)} turns, none of the assistant at the end: drop the rest"
        )
    return tuple(Message(role, _text(text, row, "turn")) for role, text in turns)
