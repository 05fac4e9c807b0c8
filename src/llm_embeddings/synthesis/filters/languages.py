"""The language filter: is a text in the language that was asked for? In doubt, it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...faces import require

# A text is rejected if it is not in the language, and in some other one, with these probabilities.
_SURE, _LIKELY = 0.95, 0.5
_ENOUGH = 60  # UTF-8 bytes: shorter texts are not judged
# Languages that a classifier confuses even in long texts, or that share a name.
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
    """Judges languages by py3langid, which brings its classifier along; nothing is downloaded."""

    def __init__(self) -> None:
        """Load the classifier.

        Raises:
            ImportError: py3langid is not installed.
        """
        need = "the language filter needs py3langid"
        langid = require("py3langid.langid", need, extra="synth")
        load = langid.LanguageIdentifier.from_model_file
        self._model: Any = load(langid.MODEL_FILE, norm_probs=True)
        self._known = {label for label, _ in self._model.rank("")}

    def other_than(self, text: str, language: str) -> str:
        """The language of a text, if that is surely not `language`; "" = it may be.

        Texts under 60 bytes, and languages that the classifier does not know, are not judged.
        """
        if language not in self._known or len(text.encode("utf-8", "replace")) < _ENOUGH:
            return ""
        ranked = self._model.rank(text)
        possible = sum(probability for found, probability in ranked if _alike(found, language))
        found, probability = ranked[0]
        return "" if possible > 1 - _SURE or probability < _LIKELY else str(found)

    def wrong(self, texts: Sequence[tuple[str, str]]) -> str:
        """Which language stands for which in the first wrong text; "" = no text is surely wrong.

        `texts` are pairs of text and the code of the language it should be in.
        """
        for text, language in texts:
            if other := self.other_than(text, language):
                return f"{other} instead of {language}"
        return ""


def _alike(one: str, other: str) -> bool:
    """Whether two language codes are equal or easily confused."""
    return one == other or any({one, other} <= family for family in _CONFUSABLE)
