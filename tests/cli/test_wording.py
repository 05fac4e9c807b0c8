"""Messages of the package in the words of a command line."""

from __future__ import annotations

import pytest

from llm_embeddings.cli.wording import in_options, spoken

OPTIONS = {
    "recipe": "--recipe",
    "adapters": "--adapter",
    "batch_size": "--batch-size",
    "lora rank": "--lora-rank",
    "resume": "--resume",
    "same_source": "--no-same-source",
    "save": "--save",
}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("batch_size=0 must be 1 or more", "--batch-size 0 must be 1 or more"),
        ("lower batch_size, or mix", "lower --batch-size, or mix"),
        ("lora rank=0 must", "--lora-rank 0 must"),
        ("save='adapter' needs lora", "--save adapter needs lora"),
        ("go on with resume=True", "go on with --resume"),
        ("set same_source=False or same_source=True", "set --no-same-source or --same-source"),
        ("by adapters=[...], or", "by --adapter [...], or"),
        ("pass recipe=Recipe(...).", "pass --recipe FILE.json."),
        ("recipe='mean': list_recipes()", "--recipe mean: `llm-embeddings recipes`"),
        (
            "recipe 'x': pooling='max' in batch_size.txt",
            "recipe 'x': pooling='max' in batch_size.txt",
        ),
        ("my_batch_size=3, save it", "my_batch_size=3, save it"),
    ],
)
def test_keywords_become_options(message: str, words: str) -> None:
    assert spoken(message, OPTIONS) == words


def test_only_values_that_do_not_fit_are_put_in_other_words() -> None:
    with pytest.raises(ValueError, match="--batch-size 0"), in_options(OPTIONS):
        raise ValueError("batch_size=0")
    with pytest.raises(OSError, match="batch_size=0"), in_options(OPTIONS):
        raise OSError("batch_size=0")
