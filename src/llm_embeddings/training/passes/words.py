"""The words of a text that say what it is about, as LLaRA's targets may have them."""

from __future__ import annotations

import re

# NLTK's English stop words without apostrophes, which the rule below never leaves, and the marks
# that FlagEmbedding's research/LLARA/pretrain/data.py (7ed43d6) adds to them.
STOP_WORDS = frozenset(
    """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she
    her hers herself it its itself they them their theirs themselves what which who whom this that
    these those am is are was were be been being have has had having do does did doing a an the and
    but if or because as until while of at by for with about against between into through during
    before after above below to from up down in out on off over under again further then once here
    there when where why how all any both each few more most other some such no nor not only own
    same so than too very s t can will just don should now d ll m o re ve y ain aren couldn didn
    doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn ! , . ?
    """.split()
)


def content_words(text: str) -> str:
    """A text without punctuation and English stop words, one space between words."""
    words = re.sub(r"[\W_]+", " ", text).split()
    return " ".join(word for word in words if word.lower() not in STOP_WORDS)
