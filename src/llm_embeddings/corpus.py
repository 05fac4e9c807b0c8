"""Real passages that come with the package: the demo searches them, int8 calibrates on them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

_PATH = Path(__file__).parent / "data" / "corpus.jsonl"


@dataclass(frozen=True, slots=True)
class CorpusPassage:
    """A passage of the corpus that comes with the package.

    Attributes:
        id: Its id.
        title: Title of the article it is from.
        text: Its text.
    """

    id: str
    title: str
    text: str

    @property
    def passage(self) -> str:
        """Title and text as one string: what is embedded."""
        return f"{self.title}. {self.text}"


def load_corpus() -> list[CorpusPassage]:
    """All passages of the corpus (sources and licences: data/corpus_LICENSE.txt)."""
    with _PATH.open(encoding="utf-8") as lines:
        return [CorpusPassage(**json.loads(line)) for line in lines]
