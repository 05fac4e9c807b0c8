"""The options of `synthesize` as fields of a dataclass, with their help in the metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MADE, WRITER, ENDPOINT, FILTERS = (
    "What is made",
    "Who writes",
    "Endpoint and budget",
    "Filters",
)


def _about(panel: str, words: str) -> dict[str, str]:
    """A field's metadata: its panel in `--help`, and its help."""
    return {"panel": panel, "help": words}


@dataclass(frozen=True, kw_only=True)
class SynthesizeOptions:
    """The options of `llm-embeddings synthesize`; what each does is its field's metadata."""

    examples: int = field(default=1000, metadata=_about(MADE, "how many"))
    documents: tuple[Path, ...] = field(
        default=(),
        metadata=_about(MADE, "files and directories of your own to write queries for; repeatable"),
    )
    group: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            MADE,
            "NAME or NAME=WEIGHT, a group of tasks; the published mixture if left out, queries "
            "alone with --documents; repeatable",
        ),
    )
    language: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            MADE, "CODE or CODE=WEIGHT, of the texts; as published if left out; repeatable"
        ),
    )
    personas: Path | None = field(
        default=None, metadata=_about(MADE, "file of people who ask, one per line")
    )
    instruction: str | None = field(default=None, metadata=_about(MADE, "of queries for documents"))
    shortest_passage: int = field(
        default=200, metadata=_about(MADE, "characters that a passage of documents needs")
    )
    seed: int = field(default=0, metadata=_about(MADE, "of all that is drawn"))

    model: str = field(
        default="",
        metadata=_about(
            WRITER, "PROVIDER:NAME of a LangChain chat model, or local:DIRECTORY; required"
        ),
    )
    base_url: str | None = field(
        default=None,
        metadata=_about(WRITER, "of an OpenAI-compatible endpoint, with --model openai:NAME"),
    )
    temperature: float = field(
        default=1.0, metadata=_about(WRITER, "negative = not sent, for models that refuse it")
    )
    top_p: float = field(
        default=1.0, metadata=_about(WRITER, "0 = not sent, for models that refuse it")
    )
    max_reply_tokens: int = field(default=4096, metadata=_about(WRITER, "of one reply"))
    structured: Literal["auto", "always", "never"] = field(
        default="auto",
        metadata=_about(
            WRITER, "hold the model to a JSON schema; auto = where LangChain knows that it can"
        ),
    )

    concurrency: int = field(default=16, metadata=_about(ENDPOINT, "calls under way at once"))
    per_minute: float | None = field(
        default=None, metadata=_about(ENDPOINT, "most calls begun in a minute")
    )
    timeout: float = field(
        default=120.0, metadata=_about(ENDPOINT, "seconds until a call counts as lost")
    )
    retries: int = field(default=6, metadata=_about(ENDPOINT, "of a call that got no answer"))
    max_tokens: int | None = field(
        default=None, metadata=_about(ENDPOINT, "most tokens of the whole run, in and out")
    )
    max_cost: float | None = field(
        default=None, metadata=_about(ENDPOINT, "most money for the whole run, by the prices")
    )
    price_in: float = field(
        default=0.0, metadata=_about(ENDPOINT, "of a million tokens of prompts")
    )
    price_out: float = field(
        default=0.0, metadata=_about(ENDPOINT, "of a million tokens of replies")
    )

    any_language: bool = field(
        default=False, metadata=_about(FILTERS, "keep texts in another language than asked for")
    )
    near: float = field(
        default=0.8, metadata=_about(FILTERS, "similarity of near duplicates; 0 = keep them")
    )
    against: tuple[Path, ...] = field(
        default=(),
        metadata=_about(FILTERS, "evaluation sets whose texts may not come up; repeatable"),
    )
    round_trip: str | None = field(
        default=None,
        metadata=_about(
            FILTERS,
            'model that must find the document by its query, "bundled" for the small one in this '
            "package",
        ),
    )
    round_trip_top: int = field(
        default=10, metadata=_about(FILTERS, "rank at which it must be found")
    )
