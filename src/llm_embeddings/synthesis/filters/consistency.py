"""The round trip: does a query find its own document, by a given encoder?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..rows import SyntheticRow

if TYPE_CHECKING:
    from ...encoder import Encoder

_QUERIES_AT_ONCE = 256


def ranks(rows: Sequence[SyntheticRow], encoder: Encoder) -> list[int]:
    """The rank of each row's positive for its query, from 1, among the positives of all rows.

    Texts that score as high as the positive do not raise its rank.
    """
    if not rows:
        return []
    places = {text: place for place, text in enumerate(dict.fromkeys(r.positive for r in rows))}
    documents = encoder.encode_document(list(places), normalize=True)
    queries = embed_queries(encoder, [(row.query, row.instruction) for row in rows])
    own = np.array([places[row.positive] for row in rows])
    found: list[int] = []
    for start in range(0, len(rows), _QUERIES_AT_ONCE):
        block = slice(start, start + _QUERIES_AT_ONCE)
        scores = queries[block] @ documents.T
        positive = np.take_along_axis(scores, own[block, None], axis=1)
        found += ((scores > positive).sum(axis=1) + 1).tolist()
    return found


def embed_queries(
    encoder: Encoder, queries: Iterable[tuple[str, str | None]]
) -> NDArray[np.float32]:
    """Embed queries, each with its own instruction.

    Args:
        encoder: Makes the vectors.
        queries: Texts with their instructions; None = the recipe's default. If the recipe takes no
            instruction, they are left out.

    Returns:
        Unit vectors, `[queries, dim]`, float32.
    """
    given = list(queries)
    takes = encoder.recipe.query.takes_instruction
    groups: dict[str | None, list[int]] = {}
    for place, (_, instruction) in enumerate(given):
        groups.setdefault(instruction if takes else None, []).append(place)
    vectors = np.empty((len(given), encoder.dimension), np.float32)
    for instruction, places in groups.items():
        texts = [given[place][0] for place in places]
        rows: Any = encoder.encode_query(texts, instruction, normalize=True)
        vectors[places] = rows
    return vectors
