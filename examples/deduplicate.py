"""Deduplication: find texts that say the same in other words, and keep one of each group."""

import numpy as np

from llm_embeddings import Encoder

THRESHOLD = 0.5  # of the bundled model; look at pairs of your own texts before you set it

TICKETS = (
    "I forgot my password and cannot log in.",
    "The invoice shows the wrong address.",
    "Cannot log in because I forgot the password!",
    "The app crashes when I open a photo.",
    "When do you open on Sundays?",
    "Wrong address on the invoice",
    "Opening a photo makes the app crash",
    "Please cancel my subscription.",
    "i want my subscription cancelled please",
)


def groups(similarity: np.ndarray, threshold: float) -> list[list[int]]:
    """Connected texts, by row: a text joins the groups of all rows at or over the threshold."""
    found: list[list[int]] = []
    for row in range(len(similarity)):
        near = [group for group in found if (similarity[row, group] >= threshold).any()]
        joined = sorted([row, *(member for group in near for member in group)])
        found = [group for group in found if group not in near] + [joined]
    return sorted(found)


def main() -> None:
    encoder = Encoder.from_pretrained()
    vectors = encoder.encode_document(TICKETS)  # the same side for both: the question is symmetric
    similarity = encoder.similarity(vectors, vectors)
    kept = groups(similarity, THRESHOLD)
    print(f"{len(TICKETS)} tickets, {len(kept)} different ones at a cosine of {THRESHOLD}:")
    for first, *others in kept:
        print(f"  {TICKETS[first]}")
        for other in others:
            print(f"    = {similarity[first, other]:.2f} {TICKETS[other]}")


if __name__ == "__main__":
    main()
