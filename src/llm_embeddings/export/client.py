"""What a client sends to a server that takes token ids, and how it pools what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..batching import first_used
from ..checkpoint import sidecar
from ..checkpoint.files import read_json
from ..checkpoint.loading import load_tokenizer
from ..recipe import Recipe, Role
from ..tokens import Tokens, tokenize
from ..vectors import Vectors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class Row:
    """One text for a server that returns a vector per token.

    Attributes:
        ids: The token ids to send.
        shares: `[tokens]`, float32: each token's share of the text's vector; they sum to 1.
            `row.shares @ vectors` pools the server's vectors `[tokens, dim]`.
    """

    ids: list[int]
    shares: Vectors


def rows(
    directory: str | Path, texts: Sequence[str], role: Role, instruction: str | None = None
) -> list[Row]:
    """Texts as the model in an exported directory is fed them; its weights are not read.

    Recipe and tokenizer are read when they have changed, and else kept.

    Args:
        directory: What `llm-embeddings export` has written.
        texts: Strings.
        role: "query" or "document".
        instruction: None = the recipe's default for the role, "" = none.

    Raises:
        FileNotFoundError: the directory holds no recipe or no tokenizer.
        ValueError: an instruction that does not fit.
    """
    path = Path(directory).resolve()
    files = [path / name for name in (sidecar.NAME, "tokenizer.json", "config.json")]
    state = tuple(file.stat().st_mtime_ns for file in files if file.is_file())
    tokenizer, recipe, limit = _opened(path, state)
    tokens = tokenize(tokenizer, recipe, texts, role, instruction, limit)
    return [Row(row.ids, _shares(row, recipe)) for row in tokens]


@lru_cache(maxsize=4)
def _opened(directory: Path, state: tuple[int, ...]) -> tuple[PreTrainedTokenizerFast, Recipe, int]:
    """Tokenizer, recipe and limit in tokens; kept, since a client asks for each query anew.

    `state` tells one version of the directory's files from another.
    """
    found = sidecar.read(directory)
    if found is None:
        raise FileNotFoundError(
            f"{directory} has no {sidecar.NAME}: name a directory that llm-embeddings export wrote"
        )
    limit = found.recipe.max_length
    positions = read_json(directory / "config.json").get("max_position_embeddings") or limit
    return load_tokenizer(directory), found.recipe, min(limit, positions)


def _shares(row: Tokens, recipe: Recipe) -> Vectors:
    shares: Vectors = np.zeros(len(row.ids), np.float32)
    first = first_used(row, recipe)
    shares[first:] = 1
    if recipe.pooling == "first_token":
        shares[first + 1 :] = 0
    elif recipe.pooling == "weighted_mean":
        shares[first:] = np.arange(1, len(shares) - first + 1)
    shares /= shares.sum()
    return shares
