"""Published MTEB scores of listed checkpoints, and a comparison of one's own scores with them.

Only what the authors printed or submitted is here. No such scores are known of LLaRA (others
report some), LLM2Vec on Llama 3.1, 3.2, Qwen2.5 and Qwen3, and the checkpoints of
`families.siblings` but for RepLLaMA's SciFact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .instructions import ENGLISH

ALL = "MTEB English, 56 tasks"
GROUPS = {f"{kind}, mean of {len(tasks)}": kind for kind, tasks in ENGLISH.items()}
_COLUMNS = (*GROUPS, ALL)

_E5 = "arXiv 2401.00368"
_GRITLM = "arXiv 2402.09906"
_LLM2VEC = "McGill-NLP/llm2vec; embeddings-benchmark/results"
_TEVATRON = "tevatron's documentation"

_L2V = "McGill-NLP/LLM2Vec-{}-mntp"
_SHEARED, _LLAMA2, _MISTRAL, _LLAMA3 = (
    _L2V.format(base)
    for base in (
        "Sheared-LLaMA",
        "Llama-2-7b-chat-hf",
        "Mistral-7B-Instruct-v2",
        "Meta-Llama-3-8B-Instruct",
    )
)
_SUP, _UNSUP = "{}-supervised", "{}-unsup-simcse"
_BOTH = (_SUP, _UNSUP)

# Points of 100, by group in the order of `_COLUMNS`.
_MEANS = {
    "intfloat/e5-mistral-7b-instruct": (_E5, "78.47 50.26 88.34 60.21 56.90 84.66 31.40 66.63"),
    "GritLM/GritLM-7B": (_GRITLM, "79.5 50.6 87.2 60.5 57.4 83.4 30.4 66.76"),
    "GritLM/GritLM-8x7B": (_GRITLM, "78.5 50.1 85.0 59.8 55.1 83.3 29.8 65.66"),
    "GritLM/GritLM-7B-KTO": (_GRITLM, "79.6 50.1 87.1 60.5 57.1 83.5 30.5 66.7"),
    "GritLM/GritLM-8x7B-KTO": (_GRITLM, "78.7 50.0 84.4 59.4 54.1 82.5 30.8 65.2"),
    _SHEARED: (_LLM2VEC, "64.54 31.83 50.63 40.99 15.48 62.06 26.82 41.43"),
    _UNSUP.format(_SHEARED): (_LLM2VEC, "67.67 37.45 72.21 47.70 25.93 71.61 31.23 49.42"),
    _SUP.format(_SHEARED): (_LLM2VEC, "72.21 43.57 86.20 55.38 51.44 83.58 30.01 61.85"),
    _LLAMA2: (_LLM2VEC, "67.94 35.31 61.60 44.74 19.86 66.74 26.83 45.70"),
    _UNSUP.format(_LLAMA2): (_LLM2VEC, "71.57 40.83 77.89 52.95 36.75 76.41 31.38 55.36"),
    _SUP.format(_LLAMA2): (_LLM2VEC, "76.33 45.24 88.03 57.38 54.60 83.73 28.49 64.14"),
    _MISTRAL: (_LLM2VEC, "72.51 40.06 70.95 50.43 19.74 71.90 27.84 49.43"),
    _UNSUP.format(_MISTRAL): (_LLM2VEC, "74.07 40.63 80.94 53.99 38.05 78.50 30.19 56.80"),
    _SUP.format(_MISTRAL): (_LLM2VEC, "76.63 45.54 87.99 58.42 55.99 84.09 29.96 64.80"),
    _UNSUP.format(_LLAMA3): (_LLM2VEC, "71.88 41.99 78.01 53.09 39.19 75.86 31.45 56.23"),
    _SUP.format(_LLAMA3): (_LLM2VEC, "75.92 46.45 87.80 59.68 56.63 83.58 30.94 65.01"),
}
_E5_TASKS = (
    "ArguAna 61.9 ClimateFEVER 38.4 CQADupstackRetrieval 43.0 DBPedia 48.9 FEVER 87.8 "
    "FiQA2018 56.6 HotpotQA 75.7 MSMARCO 43.1 NFCorpus 38.6 NQ 63.5 QuoraRetrieval 89.6 "
    "SCIDOCS 16.3 SciFact 76.4 Touche2020 26.4 TRECCOVID 87.2 BIOSSES 85.5 SICK-R 82.6 STS12 79.7 "
    "STS13 88.4 STS14 84.5 STS15 90.4 STS16 87.7 STS17 91.8 STS22 67.0 STSBenchmark 88.6 "
    "Banking77Classification 88.2 ImdbClassification 94.8 EmotionClassification 49.8 "
    "AmazonPolarityClassification 95.9 SciDocsRR 86.3 AskUbuntuDupQuestions 67.0 "
    "SprintDuplicateQuestions 95.7"
)
_GRIT_TASKS = (
    "Banking77Classification 88.47 NFCorpus 40.89 SciFact 79.17 ArguAna 63.24 FiQA2018 59.95 "
    "NQ 70.30 STSBenchmark 85.64 STS12 77.34 AskUbuntuDupQuestions 67.34 "
    "TwentyNewsgroupsClustering 55.70 SummEval 30.37"
)
_LLM2VEC_MODELS = tuple(
    stage.format(base) for base in (_SHEARED, _LLAMA2, _MISTRAL, _LLAMA3) for stage in _BOTH
)
_LLM2VEC_TASKS = {
    "STS12": "78.28 60.09 78.85 65.39 78.80 67.65 79.27 61.60",
    "STS16": "87.11 75.94 86.79 81.02 87.22 81.91 86.54 79.41",
    "STS17": "90.10 81.67 90.63 86.70 90.19 85.58 89.58 85.44",
    "STSBenchmark": "87.16 73.36 88.72 78.32 88.65 80.42 88.05 77.44",
    "SICK-R": "82.25 69.34 83.01 71.77 83.70 75.55 83.94 72.16",
    "BIOSSES": "85.88 75.12 82.13 82.41 85.24 83.29 84.92 84.67",
    "ArguAna": "51.66 43.64 56.54 47.09 57.48 51.00 62.78 51.73",
    "NFCorpus": "37.12 15.73 40.33 26.81 39.32 27.16 41.83 26.28",
    "SciFact": "72.08 38.31 77.30 64.48 78.86 68.67 78.22 66.36",
    "Banking77Classification": "86.01 79.00 88.17 84.65 88.31 86.16 88.05 84.77",
    "TwentyNewsgroupsClustering": "49.37 31.54 51.04 30.76 52.18 30.26 56.41 32.01",
}

# By how many points another run of the same model may differ. LLM2Vec's own examples differ from
# its own table by 0.03 (STS17, ArguAna) and 0.8 (TwentyNewsgroups, whose k-means starts at random);
# bfloat16 and the library's version add to that. The widths are this project's choice.
BANDS = {
    "Classification": 1.0,
    "Clustering": 1.5,
    "PairClassification": 0.5,
    "Reranking": 0.5,
    "Retrieval": 0.5,
    "STS": 0.5,
    "Summarization": 1.0,
}
_FEW_QUERIES = {"Touche2020": 1.5, "TRECCOVID": 1.5}  # about 50 each
_ALL_BAND = 0.5


@dataclass(frozen=True, slots=True)
class Figure:
    """A published score.

    Attributes:
        task: MTEB's name of a task, one of `GROUPS`, or `ALL`.
        printed: Points of 100, as printed.
        band: By how many points another run of the model may differ, rounding included.
        source: Where it is printed.
    """

    task: str
    printed: str
    band: float
    source: str

    @property
    def value(self) -> float:
        """The score in points of 100."""
        return float(self.printed)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One's own score beside a published one.

    Attributes:
        figure: The published score.
        ours: One's own score in points of 100.
    """

    figure: Figure
    ours: float

    @property
    def difference(self) -> float:
        """One's own score minus the published one, in points."""
        return self.ours - self.figure.value

    @property
    def in_band(self) -> bool:
        """Whether the difference is one that two runs of the same model may have."""
        return abs(self.difference) <= self.figure.band


def figures(model: str) -> dict[str, Figure]:
    """Published scores of a checkpoint by task and group; empty if there are none.

    Args:
        model: Hub id as in `list_recipes()`.
    """
    found: dict[str, tuple[str, str]] = {}
    if model in _MEANS:
        source, row = _MEANS[model]
        found |= {name: (text, source) for name, text in zip(_COLUMNS, row.split(), strict=True)}
    for name, source, row in (
        ("intfloat/e5-mistral-7b-instruct", _E5, _E5_TASKS),
        ("GritLM/GritLM-7B", _GRITLM, _GRIT_TASKS),
        ("castorini/repllama-v1-7b-lora-passage", _TEVATRON, "SciFact 75.61"),
    ):
        if name == model:
            words = row.split()
            pairs = zip(words[::2], words[1::2], strict=True)
            found |= {task: (text, source) for task, text in pairs}
    if model in _LLM2VEC_MODELS:
        column = _LLM2VEC_MODELS.index(model)
        found |= {task: (row.split()[column], _LLM2VEC) for task, row in _LLM2VEC_TASKS.items()}
    return {task: _figure(task, text, source) for task, (text, source) in found.items()}


def with_figures() -> list[str]:
    """Hub ids of the checkpoints that have published scores."""
    return [*_MEANS, "castorini/repllama-v1-7b-lora-passage"]


def compare(model: str, scores: Mapping[str, float]) -> list[Comparison]:
    """Compare one's own scores with the published ones.

    Args:
        model: Hub id as in `list_recipes()`.
        scores: MTEB's main scores by task, from 0 to 1.

    Returns:
        A comparison for each task that has a published score, and for the mean of each group whose
        tasks are all among `scores`.
    """
    ours = {task: 100 * score for task, score in scores.items()}
    for group, kind in GROUPS.items():
        if ENGLISH[kind].keys() <= scores.keys():
            ours[group] = 100 * sum(scores[task] for task in ENGLISH[kind]) / len(ENGLISH[kind])
    every = [task for tasks in ENGLISH.values() for task in tasks]
    if set(every) <= scores.keys():
        ours[ALL] = 100 * sum(scores[task] for task in every) / len(every)
    known = figures(model)
    return [Comparison(known[task], value) for task, value in ours.items() if task in known]


def _figure(task: str, text: str, source: str) -> Figure:
    """A published score with the band of its type of task."""
    kind = GROUPS.get(task) or next((k for k, tasks in ENGLISH.items() if task in tasks), None)
    width = _FEW_QUERIES.get(task) or (_ALL_BAND if kind is None else BANDS[kind])
    rounding = 0.5 / 10 ** len(text.partition(".")[2])
    return Figure(task, text, width + rounding, source)
