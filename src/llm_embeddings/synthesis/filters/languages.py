"""Is a text in the language that was asked for? Says no only where it is sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_SURE, _LIKELY = 0.95, 0.5  # that it is not the language; that it is another one
_ENOUGH = 60  # UTF-8 bytes: shorter texts are not judged
# Languages that even long texts can leave open, or that share a name.
_CONFUSABLE = (
    {"zh", "wuu", "yue"},
    {"bs", "hr", "sr", "sl"},
    {"id", "ms", "jv"},
    {"no", "nb", "nn", "da", "sv"},
    {"cs", "sk"},
    {"af", "nl"},
    {"gl", "pt", "es"},
    {"bg", "mk"},
    {"ru", "uk", "be", "bg"},
    {"hi", "mr", "ne"},
    {"fa", "ps", "ur", "ar"},
    {"zu", "xh"},
    {"kk", "ky"},
    {"as", "bn"},
)


class LanguageJudge:
    """py3langid, a classifier in a file of its own; nothing is downloaded."""

    def __init__(self) -> None:
        """Load the classifier.

        Raises:
            ImportError: it is not installed.
        """
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError as error:
            raise ImportError(
                "the language filter needs py3langid: pip install 'llm-embeddings[synth]'"
            ) from error
        self._model: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self._known = {label for label, _ in self._model.rank("")}

    def other_than(self, text: str, language: str) -> str:
        """The language of a text that is surely not in `language`; "" otherwise.

        A language that the classifier does not know and texts under 60 bytes are never judged.
        """
        if language not in self._known or len(text.encode("utf-8", "replace")) < _ENOUGH:
            return ""
        ranked = self._model.rank(text)
        possible = sum(probability for found, probability in ranked if _alike(found, language))
        found, probability = ranked[0]
        return "" if possible > 1 - _SURE or probability < _LIKELY else str(found)

    def wrong(self, texts: Sequence[tuple[str, str]]) -> str:
        """What is wrong among texts with their languages; "" = nothing."""
        for text, language in texts:
            if other := self.other_than(text, language):
                return f"{other} instead of {language}"
        return ""


def _alike(one: str, other: str) -> bool:
    return one == other or any({one, other} <= family for family in _CONFUSABLE)
