"""Reranking against transformers' own forward and the replies of a model that is none."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llm_embeddings import Encoder
from llm_embeddings.generation import Generator, Ranked, Reranker

DOCUMENTS = ["Cats purr.", "Dogs bark at the {query} all night long, as neighbours know.", "", "x"]


@pytest.fixture(scope="module")
def generator(gritlm: Encoder) -> Generator:
    return Generator(gritlm)


class _Writes:
    """A generator that orders what it is shown by the numbers in the documents."""

    def __init__(self, reply: str | None = None) -> None:
        self.reply, self.shown = reply, []  # type: ignore[var-annotated]

    def generate(self, prompt: str, **options: Any) -> Any:
        listed = prompt.partition("\n\n")[2].rpartition("\n\n")[0].split("\n\n")
        values = [int(entry.rpartition(" ")[2]) for entry in listed]
        self.shown.append(values)
        order = sorted(range(len(values)), key=lambda place: -values[place])
        reply = " > ".join(f"[{place + 1}]" for place in order)
        return SimpleNamespace(text=reply if self.reply is None else self.reply)


def test_scores_are_those_of_a_plain_loop(generator: Generator) -> None:
    prompt = "{query}? {document}\nYes or No"
    model: Any = generator.model
    wanted = []
    for document in DOCUMENTS:
        text = f"cats? {document}\nYes or No"
        ids = generator.prompt_ids(text)
        words = [generator.prompt_ids(text, answer_start=word)[len(ids)] for word in ("Yes", "No")]
        with torch.no_grad():
            found = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        wanted.append(float(found[words[0]] - found[words[1]]))
    assert len({round(score, 4) for score in wanted}) == len(wanted)
    for tokens in (1, 60, 10_000):
        reranker = Reranker(generator, prompt=prompt, batch_tokens=tokens)
        assert reranker.scores("cats", DOCUMENTS) == pytest.approx(wanted, abs=2e-5)
    ranked = reranker.rerank("cats", DOCUMENTS)
    assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)  # type: ignore[type-var]
    assert [one.score for one in ranked] == pytest.approx(
        [wanted[one.index] for one in ranked], abs=2e-5
    )
    assert reranker.rerank("cats", []) == []


def test_an_order_is_asked_of_windows_from_the_end() -> None:
    writes: Any = _Writes()
    values = [3, 1, 4, 7, 5, 9, 2]
    reranker = Reranker(writes, method="permutation", window=4)
    ranked = reranker.rerank("q", [f"number {value}" for value in values])
    assert writes.shown == [[7, 5, 9, 2], [1, 4, 9, 7], [3, 9, 7, 4]]
    assert [values[one.index] for one in ranked] == [9, 7, 4, 3, 1, 5, 2]
    assert {one.score for one in ranked} == {None}


@pytest.mark.parametrize(
    ("reply", "order"),
    [("[3] > [1] > [2]", [2, 0, 1]), ("3, 3, 9", [2, 0, 1]), ("2", [1, 0, 2])],
)
def test_what_a_reply_leaves_out_comes_last(reply: str, order: Sequence[int]) -> None:
    writes: Any = _Writes(reply)
    reranker = Reranker(writes, method="permutation")
    assert [one.index for one in reranker.rerank("q", ["a 1", "a 2", "a 3"])] == order


def test_a_reply_without_an_order_is_told() -> None:
    writes: Any = _Writes("I cannot say.")
    with pytest.warns(UserWarning, match="names none of 2 documents"):
        ranked = Reranker(writes, method="permutation").rerank("q", ["a 1", "a 2"])
    assert ranked == [Ranked(0, None), Ranked(1, None)]


def test_what_does_not_fit_is_refused(generator: Generator) -> None:
    for options, message in (
        ({"method": "pairs"}, "method='pairs'"),
        ({"prompt": "{query}"}, "places"),
        ({"window": 1}, "window=1"),
    ):
        with pytest.raises(ValueError, match=message):
            Reranker(generator, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positions"):
        Reranker(generator).rerank("q", ["word " * generator.max_length])
    with pytest.raises(TypeError, match="not a list"):
        Reranker(generator).rerank("q", "one document")
