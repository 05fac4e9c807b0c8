"""The examples that authors printed: shapes, exact texts, and the prompts of listed recipes."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from llm_embeddings.families import RECIPES, printed, with_examples
from llm_embeddings.recipe import Role
from llm_embeddings.verifying.examples import prompt_problem

EXAMPLES = printed.examples()


def test_every_matrix_has_the_shape_of_its_texts() -> None:
    assert len(EXAMPLES) == len({each.name for each in EXAMPLES}) > 30
    for example in EXAMPLES:
        assert example.checkpoints
        assert example.source
        assert example.prompt in get_args(printed.Prompt)
        assert example.printed
        shape = (len(example.query.texts), len(example.document.texts))
        for run in example.printed:
            values = np.array(run.values) / run.scale
            assert values.shape == shape, example.name
            assert (np.abs(values) < 1).all(), example.name
            assert 0 < run.same <= run.half <= 0.01
            assert run.dtype in (None, "half", "float32", "float16", "bfloat16")


def test_a_wrong_matrix_is_farther_than_the_tolerance() -> None:
    """Runs of the same input agree among themselves; no two inputs of a checkpoint do."""
    for example in EXAMPLES:
        runs = [np.array(run.values) / run.scale for run in example.printed]
        assert max(np.abs(run - runs[0]).max() for run in runs) < 0.01, example.name
        for other in printed.examples_of(example.checkpoints[0]):
            values = np.array(other.printed[0].values) / other.printed[0].scale
            if other is not example and values.shape == runs[0].shape:
                assert np.abs(values - runs[0]).max() > 0.02, (example.name, other.name)


def test_white_space_is_as_in_the_sources() -> None:
    (sheared,) = printed.examples_of("mcgill-nlp/llm2vec-meta-llama-3-8b-instruct-mntp-supervised")
    summit = sheared.document.texts[1]
    assert ": 1  the highest point" in summit
    assert ": 2  the highest level. : 3  a meeting" in summit
    assert not any(
        text != text.strip()
        for example in EXAMPLES
        for role in get_args(Role)
        for text in example.side(role).texts
    )


def test_qwen3_has_no_space_behind_query() -> None:
    prefixes = {
        example.query.prefix
        for example in printed.examples_of("Qwen/Qwen3-Embedding-8B")
        if example.prompt == "recipe" and example.query.prefix
    }
    assert {prefix[-7:] for prefix in prefixes} == {"\nQuery:"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_listed_recipes_render_the_authors_prompts(example: printed.Example) -> None:
    for checkpoint in example.checkpoints:
        if checkpoint in RECIPES:
            assert prompt_problem(RECIPES[checkpoint], example) is None


def test_another_prompt_is_named() -> None:
    (example, *_) = printed.examples_of("Qwen/Qwen3-Embedding-8B")
    recipe = RECIPES["intfloat/e5-mistral-7b-instruct"]
    assert "Query:', the recipe has" in (prompt_problem(recipe, example) or "")
    plain = RECIPES["last-token"]
    assert "the recipe takes no such instruction" in (prompt_problem(plain, example) or "")


def test_examples_stand_before_a_query_as_printed() -> None:
    (example, *_) = printed.examples_of("BAAI/bge-en-icl")
    prefix = example.query.prefix
    assert prefix is not None
    blocks = prefix.removesuffix("<query>").split("\n\n")
    assert len(blocks) == 3
    instruction = blocks[-1].removeprefix("<instruct>").strip()
    shots = []
    for block in blocks[:-1]:
        asked, _, rest = block.removeprefix("<instruct>").partition("\n<query>")
        shots.append((asked, *rest.split("\n<response>")))
    recipe = with_examples(RECIPES["BAAI/bge-en-icl"], shots)
    assert recipe.prefix("query", instruction) == prefix
    assert recipe.query.suffix == example.query.suffix
    assert recipe.prefix("document") == ""


def test_examples_get_the_instruction_of_their_query() -> None:
    recipe = with_examples(RECIPES["BAAI/bge-en-icl"], [("q", "r"), ("own", "s", "t")])
    own = "<instruct>own\n<query>s\n<response>t\n\n"
    asked = f"<instruct>I\n<query>q\n<response>r\n\n{own}<instruct>I\n<query>"
    assert recipe.prefix("query", "I") == asked
    assert recipe.prefix("query", "") == f"<query>q\n<response>r\n\n{own}<query>"


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "BAAI/bge-en-icl"])
def test_other_models_take_no_examples(name: str) -> None:
    with pytest.raises(ValueError, match="takes no examples"):
        with_examples(RECIPES[name], [("q", "r")])


def test_examples_that_are_none_are_refused() -> None:
    recipe = RECIPES["BAAI/bge-en-icl"]
    with pytest.raises(TypeError, match="is not"):
        with_examples(recipe, ["qr"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="place for one"):
        with_examples(recipe, [("{instruction}", "r")])
    with pytest.raises(ValueError, match="all of them at once"):
        with_examples(with_examples(recipe, [("q", "r")]), [("q", "r")])
