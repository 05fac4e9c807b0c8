"""Each family's evaluation asks as its authors did; published figures and their bands."""

from __future__ import annotations

import pytest

from llm_embeddings import Recipe, get_recipe, list_recipes
from llm_embeddings.evaluation.mteb.instructions import BY_NAME, ENGLISH
from llm_embeddings.evaluation.mteb.published import ALL, GROUPS, compare, figures, with_figures
from llm_embeddings.evaluation.rules import InstructionWarning, Prompts, Side, prompts_of

E5, GRIT = "intfloat/e5-mistral-7b-instruct", "GritLM/GritLM-7B"
LLM2VEC = "McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp-supervised"
LLARA, REPLLAMA, QWEN3 = (
    "BAAI/LLARA-beir",
    "castorini/repllama-v1-7b-lora-passage",
    "Qwen/Qwen3-Embedding-8B",
)


def prompts(model: str, kind: str, name: str = "MyData", **more: object) -> Prompts:
    return prompts_of(get_recipe(model), kind, name, **more)  # type: ignore[arg-type]


def test_documents_of_retrieval_stay_bare() -> None:
    wanted = "Given a scientific claim, retrieve documents that support or refute the claim"
    for model, ending in ((E5, ""), (GRIT, ""), (LLM2VEC, ":"), (QWEN3, "")):
        found = prompts(model, "Retrieval", "SciFact")
        assert found.query == Side("query", wanted + ending)
        assert found.document == Side("document", "")


def test_both_sides_elsewhere() -> None:
    for model, ending in ((E5, "."), (GRIT, "."), (LLM2VEC, ":"), (QWEN3, ".")):
        found = prompts(model, "STS", "STS12")
        assert found.query == found.document
        assert found.query == Side("query", "Retrieve semantically similar text" + ending)


def test_rerankings_differ() -> None:
    for model, instructed in ((E5, True), (GRIT, True), (LLM2VEC, False), (QWEN3, False)):
        found = prompts(model, "Reranking", "SciDocsRR")
        assert bool(found.document.instruction) is instructed


def test_vectors_of_classification_keep_their_length() -> None:
    kinds = ("Classification", "Clustering", "STS")
    found = {
        model: [
            prompts(model, kind, "MyData", instructions={kind: "x"}).normalize for kind in kinds
        ]
        for model in (E5, GRIT, LLM2VEC)
    }
    assert found == {E5: [False, None, None], GRIT: [False] * 3, LLM2VEC: [None] * 3}
    assert not get_recipe(LLM2VEC).normalize


def test_models_without_instructions() -> None:
    assert prompts(LLARA, "STS").query == Side("query", "")
    assert prompts(REPLLAMA, "STS").query == Side("document", "")
    assert prompts(REPLLAMA, "Retrieval").query == Side("query", "")
    with pytest.raises(ValueError, match="MyData: castorini.* takes no instruction, and 'x'"):
        prompts(REPLLAMA, "STS", instructions={"MyData": "x"})


def test_instructions_of_ones_own() -> None:
    given = {"MyData": "Find it.", "STS": ""}
    assert prompts(LLM2VEC, "Retrieval", instructions=given).query.instruction == "Find it."
    assert prompts(E5, "STS", "Other", instructions=given).query.instruction == ""
    with pytest.warns(InstructionWarning, match="MyData: no published instruction"):
        found = prompts(LLM2VEC, "Clustering")
    assert found.query.instruction == "Identify categories in user passages:"
    with pytest.warns(InstructionWarning, match="MyData"):
        assert prompts(E5, "Retrieval").query.instruction == get_recipe(E5).instruction
    assert prompts(E5, "Clustering", own="Group the posts").query.instruction == "Group the posts"


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("FEVERHardNegatives", "FEVER"),
        ("STS22.v2", "STS22"),
        ("Touche2020Retrieval.v3", "Touche2020"),
        ("MIRACLRetrievalHardNegatives.v2", "MIRACLRetrieval"),
    ],
)
def test_later_versions_share_the_instruction(name: str, first: str) -> None:
    assert prompts(E5, "Retrieval", name).query.instruction == BY_NAME[first]


@pytest.mark.parametrize("name", list_recipes())
@pytest.mark.parametrize("kind", ENGLISH)
def test_every_recipe_embeds_every_task(name: str, kind: str) -> None:
    recipe: Recipe = get_recipe(name)
    for task in ENGLISH[kind]:
        found = prompts_of(recipe, kind, task)
        for side in (found.query, found.document):
            assert side.instruction in recipe.prefix(side.role, side.instruction)


def test_bands() -> None:
    scores = {"NFCorpus": 0.3915, "SciFact": 0.7, "STS12": 0.797, "MyData": 0.5}
    found = {each.figure.task: each for each in compare(E5, scores)}
    assert list(found) == ["NFCorpus", "SciFact", "STS12"]
    assert found["NFCorpus"].difference == pytest.approx(0.55)
    assert [each.in_band for each in found.values()] == [True, False, True]
    # Half a point, and half of the last printed digit.
    assert found["NFCorpus"].figure.band == pytest.approx(0.55)
    assert figures(GRIT)["NFCorpus"].band == pytest.approx(0.505)
    assert "NFCorpus" not in figures("GritLM/GritLM-8x7B")
    assert figures(LLARA) == {}


def test_means_need_every_task() -> None:
    retrieval = dict.fromkeys(ENGLISH["Retrieval"], 0.569)
    (group,) = (name for name, kind in GROUPS.items() if kind == "Retrieval")
    found = {each.figure.task: each.ours for each in compare(E5, retrieval)}
    assert found[group] == pytest.approx(56.9)
    assert ALL not in found
    del retrieval["NQ"]
    assert group not in {each.figure.task for each in compare(E5, retrieval)}
    every = {task: 0.5 for tasks in ENGLISH.values() for task in tasks}
    assert {each.figure.task: each.ours for each in compare(GRIT, every)}[ALL] == pytest.approx(50)


@pytest.mark.parametrize("model", with_figures())
def test_published_means_go_together(model: str) -> None:
    """The printed mean of all is that of the printed groups, as far as they are rounded."""
    found = figures(get_recipe(model).name)
    if ALL in found:
        sizes = {group: len(ENGLISH[kind]) for group, kind in GROUPS.items()}
        mean = sum(found[group].value * size for group, size in sizes.items()) / sum(sizes.values())
        assert mean == pytest.approx(found[ALL].value, abs=0.1)
    tasks = [task for task in ENGLISH["Retrieval"] if task in found]
    if len(tasks) == len(ENGLISH["Retrieval"]):
        mean = sum(found[task].value for task in tasks) / len(tasks)
        assert mean == pytest.approx(found["Retrieval, mean of 15"].value, abs=0.05)
