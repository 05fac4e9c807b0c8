"""Sets of one's own as tasks of mteb, which then need no hub and no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...inputs import names_checked
from ..measures import ITERATIONS
from ..own import kind_of
from ..sets import AnySet, Classification, Clustering, Pairs, Retrieval, read_set
from .model import import_mteb

# A task class of mteb, class attributes for a task of one's own, and what makes its data.
Parts = tuple[type, dict[str, Any], Callable[[], Any]]
# By type of task: mteb's name of its main metric, and its category (texts to texts or to classes).
_MAIN = {
    "STS": ("cosine_spearman", "t2t"),
    "Retrieval": ("ndcg_at_10", "t2t"),
    "Classification": ("accuracy", "t2c"),
    "Clustering": ("v_measure", "t2c"),
}


@names_checked
def local_task(
    path: str | Path,
    *,
    name: str | None = None,
    instruction: str | None = None,
    language: str = "eng-Latn",
) -> Any:
    """An mteb task of one's own files: an `mteb.AbsTask`, for `mteb.evaluate`.

    Its scores are those of `evaluate`. Where they differ: mteb rounds retrieval to five decimals,
    and orders documents of equal score by their ids, from the last to the first. mteb's cache keeps
    a result when the files change: name another cache, or pass `overwrite_strategy="always"`.

    Args:
        path: A set, as `read_set` takes it.
        name: Name of the task; None = that of the set.
        instruction: The task's instruction, for models that take one.
        language: ISO 639-3 code and script of the texts.

    Raises:
        ImportError: mteb is not installed.
        OSError: a file is missing.
        ValueError: a file that does not fit.
    """
    data = read_set(path)
    kind = kind_of(data)
    import_mteb()
    from mteb.abstasks.task_metadata import TaskMetadata

    score, category = _MAIN[kind]
    values: dict[str, Any] = {
        "name": name or data.name,
        "description": f"{kind} of {path}",
        "dataset": {"path": str(path), "revision": data.digest},
        "type": kind,
        "category": category,
        "prompt": instruction,
        "eval_langs": [language],
        "main_score": score,
    }
    return _task(data, TaskMetadata(**values))


def _task(data: AnySet, metadata: Any) -> Any:
    """A task, the only instance of a class of its own: mteb keeps metadata in the class."""
    base, settings, rows = _parts(data)

    def load_data(self: Any, num_proc: int | None = None, *, timer: Any = None) -> None:
        self.dataset = rows()
        self.data_loaded = True

    members = {"metadata": metadata, "load_data": load_data, **settings}
    return type(f"Local{base.__name__}", (base,), members)()


def _parts(data: AnySet) -> Parts:
    """What `_task` needs of a set, by its kind."""
    if isinstance(data, Retrieval):
        return _retrieval(data)
    if isinstance(data, Pairs):
        return _similarity(data)
    return _clustering(data) if isinstance(data, Clustering) else _classification(data)


def _similarity(data: Pairs) -> Parts:
    """Sentence pairs, with the range of their scores."""
    from datasets import Dataset
    from mteb import abstasks

    columns = {"sentence1": data.first, "sentence2": data.second, "score": data.wanted.tolist()}
    low, high = float(data.wanted.min()), float(data.wanted.max())
    settings = {"min_score": low, "max_score": high if high > low else low + 1}
    return abstasks.AbsTaskSTS, settings, lambda: {"test": Dataset.from_dict(columns)}


def _clustering(data: Clustering) -> Parts:
    """All texts as one clustering problem; mteb's newer class draws many small ones."""
    from datasets import Dataset
    from mteb import abstasks

    columns = {"sentences": [data.texts], "labels": [data.labels]}
    return abstasks.AbsTaskClusteringLegacy, {}, lambda: {"test": Dataset.from_dict(columns)}


def _classification(data: Classification) -> Parts:
    """Learn once from all training texts; mteb by default draws eight per label, ten times."""
    from datasets import Dataset, DatasetDict
    from mteb import abstasks
    from sklearn.linear_model import LogisticRegression

    numbers = {label: number for number, label in enumerate(sorted(set(data.train_labels)))}

    def split(texts: list[str], labels: list[str]) -> Any:
        return Dataset.from_dict({"text": texts, "label": [numbers[label] for label in labels]})

    def rows() -> Any:
        train = split(data.train_texts, data.train_labels)
        return DatasetDict({"train": train, "test": split(data.texts, data.labels)})

    settings = {
        "samples_per_label": len(data.train_texts),
        "n_experiments": 1,
        "evaluator_model": LogisticRegression(max_iter=ITERATIONS),
    }
    return abstasks.AbsTaskClassification, settings, rows


def _retrieval(data: Retrieval) -> Parts:
    """Retrieval; mteb leaves out a query's own document where `shared_ids` says so."""
    from datasets import Dataset
    from mteb import abstasks

    gains = {query: _whole(data, found) for query, found in data.relevant.items()}

    def by_id(texts: dict[str, str]) -> Any:
        return Dataset.from_dict({"id": list(texts), "text": list(texts.values())})

    def rows() -> Any:
        split = {
            "corpus": by_id(data.documents),
            "queries": by_id(data.queries),
            "relevant_docs": gains,
            "top_ranked": None,
        }
        return {"default": {"test": split}}

    return abstasks.AbsTaskRetrieval, {"ignore_identical_ids": data.shared_ids}, rows


def _whole(data: Retrieval, gains: dict[str, float]) -> dict[str, int]:
    """Gains as whole numbers, which trec_eval needs.

    Raises:
        ValueError: a gain is not a whole number.
    """
    for document, gain in gains.items():
        if gain != int(gain):
            raise ValueError(
                f"{data.files[-1]}: {document} has the score {gain}, and mteb takes whole numbers"
            )
    return {document: int(gain) for document, gain in gains.items()}
