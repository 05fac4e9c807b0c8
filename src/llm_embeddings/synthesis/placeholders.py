"""What prompts are filled with: groups of tasks, values and languages, as published for E5.

Source: Wang et al. 2024, arXiv 2401.00368, section 3.1 and appendix C (value sets), figure 2 and
table 1 (sizes, languages). Where the text and table 8 differ (query lengths), the table holds.
"""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# How many thousand examples of each group the published data has.
GROUP_WEIGHTS: Mapping[str, float] = {
    "short-long": 167,
    "long-short": 122,
    "sts": 99,
    "bitext": 89,
    "long-long": 17,
    "short-short": 13,
}
GROUNDED = "grounded"  # queries for passages of one's own documents; not in the paper
SYMMETRIC = {  # group -> its one instruction
    "sts": "Retrieve semantically similar text.",
    "bitext": "Retrieve parallel sentences.",
}

_CLARITY = ("clear", "understandable with some effort", "ambiguous")
_STUDIES = ("high school", "college", "PhD")
_SCHOOLS = ("elementary school", "high school", "college")
_UNITS = ("sentence", "phrase", "passage")
_HIGH = ("4", "4.5", "5")
_QUERY = {
    "query_type": ("extremely long-tail", "long-tail", "common"),
    "query_length": ("less than 5 words", "5 to 15 words", "at least 10 words"),
    "difficulty": _STUDIES,
    "clarity": _CLARITY,
}
VALUES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "short-long": {**_QUERY, "num_words": ("50", "100", "200", "300", "400", "500")},
    "long-short": {
        "num_words": (
            "less than 10",
            "at least 10",
            "at least 50",
            "at least 100",
            "at least 200",
        ),
        "difficulty": _STUDIES,
        "clarity": _CLARITY,
    },
    "short-short": {},
    "long-long": {},
    "sts": {
        "unit": _UNITS,
        "high_score": _HIGH,
        "low_score": ("2.5", "3", "3.5"),
        "difficulty": _SCHOOLS,
    },
    "bitext": {
        "unit": _UNITS,
        "high_score": _HIGH,
        "low_score": ("1.5", "2", "2.5"),
        "difficulty": _SCHOOLS,
    },
    GROUNDED: _QUERY,
}

# The 93 languages of XLM-R (Conneau et al. 2020, arXiv 1911.02116, appendix A; scripts of one
# language counted once), by ISO 639-1 code.
_NAMES = """
af Afrikaans, am Amharic, ar Arabic, as Assamese, az Azerbaijani, be Belarusian, bg Bulgarian,
bn Bengali, br Breton, bs Bosnian, ca Catalan, cs Czech, cy Welsh, da Danish, de German, el Greek,
en English, eo Esperanto, es Spanish, et Estonian, eu Basque, fa Persian, fi Finnish, fr French,
fy Western Frisian, ga Irish, gd Scottish Gaelic, gl Galician, gu Gujarati, ha Hausa, he Hebrew,
hi Hindi, hr Croatian, hu Hungarian, hy Armenian, id Indonesian, is Icelandic, it Italian,
ja Japanese, jv Javanese, ka Georgian, kk Kazakh, km Khmer, kn Kannada, ko Korean, ku Kurdish,
ky Kyrgyz, la Latin, lo Lao, lt Lithuanian, lv Latvian, mg Malagasy, mk Macedonian, ml Malayalam,
mn Mongolian, mr Marathi, ms Malay, my Burmese, ne Nepali, nl Dutch, no Norwegian, om Oromo,
or Oriya, pa Punjabi, pl Polish, ps Pashto, pt Portuguese, ro Romanian, ru Russian, sa Sanskrit,
sd Sindhi, si Sinhala, sk Slovak, sl Slovenian, so Somali, sq Albanian, sr Serbian, su Sundanese,
sv Swedish, sw Swahili, ta Tamil, te Telugu, th Thai, tl Tagalog, tr Turkish, ug Uyghur,
uk Ukrainian, ur Urdu, uz Uzbek, vi Vietnamese, xh Xhosa, yi Yiddish, zh Chinese
"""
LANGUAGES: Mapping[str, str] = {
    entry.split()[0]: entry.split(maxsplit=1)[1] for entry in _NAMES.replace("\n", " ").split(", ")
}
# Shares of the published data in per cent. `_LARGE` have 2.7 to 3.0 each; only their sum is used.
_ENGLISH, _OTHERS = 43.1, 19.8
_LARGE = ("pl", "ja", "it", "ru", "id", "de", "fa", "es", "zh", "fr", "pt", "ar", "nl")


def published_languages() -> dict[str, float]:
    """Weights by language code: English, 13 large languages alike, the other 79 alike."""
    large = (100 - _ENGLISH - _OTHERS) / len(_LARGE)
    other = _OTHERS / (len(LANGUAGES) - len(_LARGE) - 1)
    weights = {code: large if code in _LARGE else other for code in LANGUAGES}
    return weights | {"en": _ENGLISH}


def _check_weights(what: str, weights: Mapping[str, float], known: Mapping[str, Any]) -> None:
    """Check that there are weights, that they are positive and their names known.

    Raises:
        ValueError: they are not; the message calls them `what`.
    """
    if not weights:
        raise ValueError(f"no {what}: give at least one")
    for name, weight in weights.items():
        if name not in known:
            listed = ", ".join(known)
            raise ValueError(f"{what} {name!r} is not known; known are {listed}")
        if not 0 < weight < float("inf"):
            raise ValueError(f"{what} {name}={weight}: a weight is above 0; leave it out instead")


def draw(rng: random.Random, weights: Mapping[str, float]) -> str:
    """Draw a name with a probability proportional to its weight."""
    sums = list(itertools.accumulate(weights.values()))
    place = bisect.bisect_right(sums, rng.random() * sums[-1])
    return list(weights)[min(place, len(sums) - 1)]


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws what each example is about, from the seed and the example's number alone.

    Attributes:
        seed: Seed of the run.
        groups: Weights by group of tasks.
        languages: Weights by language code.
    """

    seed: int
    groups: Mapping[str, float] = field(default_factory=lambda: dict(GROUP_WEIGHTS))
    languages: Mapping[str, float] = field(default_factory=published_languages)

    def __post_init__(self) -> None:
        """Check the weights.

        Raises:
            ValueError: an unknown name, a weight that is not positive, or bitext with one language.
        """
        _check_weights("group", self.groups, VALUES)
        _check_weights("language", self.languages, LANGUAGES)
        if "bitext" in self.groups and len(self.languages) < 2:
            raise ValueError(
                f"group bitext needs two languages, not {', '.join(self.languages)} alone: give "
                "another, or leave bitext out"
            )

    def group(self, number: int) -> str:
        """The group of example `number`."""
        return draw(self.rng("group", number), self.groups)

    def values(self, group: str, number: int) -> dict[str, str]:
        """Values for the placeholders of example `number`, by name; languages are codes.

        In bitext both languages are drawn by their weights, the second from those that remain.
        """
        rng = self.rng("values", number)
        values = {name: rng.choice(among) for name, among in VALUES[group].items()}
        if group == GROUNDED:  # the language is that of the passage
            return values
        language = draw(rng, self.languages)
        if group != "bitext":
            return values | {"language": language}
        rest = {code: weight for code, weight in self.languages.items() if code != language}
        return values | {"src_lang": language, "tgt_lang": draw(rng, rest)}

    def rng(self, *what: str | int) -> random.Random:
        """A source of randomness for one purpose, which `what` names."""
        return random.Random(" ".join(map(str, (self.seed, *what))))
