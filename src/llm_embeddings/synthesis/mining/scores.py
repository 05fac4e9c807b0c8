"""What an encoder gives each passage of a row: a teacher's scores for training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...records.examples import Example
from ..filters.consistency import embed_queries

if TYPE_CHECKING:
    from ...encoder import Encoder


def teacher_scores(
    encoder: Encoder, examples: Sequence[Example], negatives: Sequence[Sequence[str]]
) -> list[tuple[list[float], list[float]]]:
    """Cosines of each query with its positives and with its negatives; each text embedded once.

    Args:
        encoder: The teacher.
        examples: The queries, with their positives.
        negatives: The negatives of each.
    """
    queries = embed_queries(encoder, [(each.query, each.instruction) for each in examples])
    places: dict[str, int] = {}
    for example, others in zip(examples, negatives, strict=True):
        for text in (*example.positives, *others):
            places.setdefault(text, len(places))
    vectors = encoder.encode_document(list(places), normalize=True)
    found = []
    for query, example, others in zip(queries, examples, negatives, strict=True):
        own, rest = (
            [float(query @ vectors[places[text]]) for text in texts]
            for texts in (example.positives, others)
        )
        found.append((own, rest))
    return found
