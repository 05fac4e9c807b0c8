"""Messages of the package, which speak of Python's keywords, in the words of a command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# What a message offers that has no keyword of its own on a command line, in order.
_PHRASES = (
    (r"recipe=Recipe\(\.\.\.\)", "--recipe FILE.json"),
    (r"recipe=<one of list_recipes\('([^']*)'\)>", r"--recipe with one of `recipes '\1'`"),
    (r"\ba Recipe object to insist", "--recipe FILE.json to insist"),
    (r"\blist_recipes\(\)", "`llm-embeddings recipes`"),
)
_QUOTES = "\"'"
_VALUE = r"('[^']*'|\"[^\"]*\"|\([^)]*\)|\[[^\]]*\]|[^\s,;:)]+)"


def spoken(message: str, options: Mapping[str, str]) -> str:
    """A message with options in place of keywords.

    `learning_rate=0.1` becomes `--learning-rate 0.1`, `resume=True` `--resume`, `lora=False`
    `--no-lora`. A keyword alone is known by its underscore, so that no other word is taken for one.

    Args:
        message: What an exception says.
        options: The option of the command by the name of its keyword.
    """
    for pattern, words in _PHRASES:
        message = re.sub(pattern, words, message)
    if not options:
        return message
    names = "|".join(map(re.escape, sorted(options, key=len, reverse=True)))

    def given(match: re.Match[str]) -> str:
        option, value = options[match[1]], match[2]
        if value in ("True", "False"):
            on = option.replace("--no-", "--")
            return on if value == "True" else on.replace("--", "--no-", 1)
        return f"{option} {value[1:-1] if value[0] in _QUOTES else value}"

    message = re.sub(rf"(?<![\w.-])({names})={_VALUE}", given, message)
    alone = "|".join(re.escape(name) for name in options if "_" in name)
    if not alone:
        return message
    return re.sub(rf"(?<![\w.-])({alone})(?![\w(=.])", lambda match: options[match[1]], message)


@contextmanager
def in_options(options: Mapping[str, str]) -> Iterator[None]:
    """Let a `ValueError` speak of the options of a command.

    Raises:
        ValueError: what is raised inside, in other words.
    """
    try:
        yield
    except ValueError as error:
        said = ValueError(spoken(str(error), options))
        for note in getattr(error, "__notes__", []):
            said.add_note(spoken(note, options))
        raise said from error
