"""The losses of all stages: pure functions of tensors.

A loss over tokens or rows is returned as a sum (and a count), not a mean: so the parts of a batch,
on several processes too, add up to exactly the loss of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch.nn.functional import cross_entropy, mse_loss, normalize
from torch.utils.checkpoint import checkpoint

Aggregation = Literal["token", "sample", "mixed"]
Distillation = Literal["kl", "margin-mse"]
ContrastiveLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

IGNORED = -100  # the label of a position that predicts nothing, as in torch and transformers
LLARA_DIVISOR = 10.0
_HEAD_ROWS = 1024


def info_nce(
    queries: torch.Tensor,
    passages: torch.Tensor,
    targets: torch.Tensor,
    *,
    temperature: float,
    same_tower: bool = False,
    margin: float | None = None,
    known: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean over queries of -log softmax of the positive's score among all passages' scores.

    In-batch and hard negatives, as llm2vec 0.2.3 `HardNegativeNLLLoss` (passages = all positives,
    then all negatives; temperature = 1 / scale), gritlm `DistributedContrastiveLoss` and LLARA
    `BiEncoderModel` (passages = one group of positive and negatives per query) have it.

    With `same_tower` and `margin` it is the loss of Qwen3-Embedding (arXiv 2506.05176, section 3):
    other queries, scored against the query, and other queries' positives, scored against the own
    positive, are negatives too; a negative that scores higher than the positive by more than
    `margin`, or is an answer itself (`known`), does not count.

    Args:
        queries: `[queries, dim]`, of unit length if scores are to be cosines.
        passages: `[passages, dim]`, likewise.
        targets: `[queries]`, int64: index of each query's positive among the passages.
        temperature: What scores are divided by.
        same_tower: Also take queries and positives of other pairs as negatives of their own kind.
        margin: Leave out negatives that beat the positive by more than this; None = none.
        known: `[queries, passages]`, bool: which passages are known to answer a query, and so are
            no negatives of it; None = only its positive. With `same_tower` it says so of pairs,
            too: one whose positive answers another's query is no negative of that.

    Returns:
        The loss, a float32 scalar.
    """
    queries, passages = queries.float(), passages.float()
    scores = queries @ passages.T
    found = scores.gather(1, targets[:, None])
    positive = torch.zeros_like(scores, dtype=torch.bool).scatter(1, targets[:, None], True)
    dropped = torch.zeros_like(positive) if known is None else known & ~positive
    if same_tower:
        positives = passages[targets]
        own = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
        twins = own if known is None else known[:, targets] | known[:, targets].T | own
        scores = torch.cat([scores, queries @ queries.T, positives @ positives.T], 1)
        dropped = torch.cat([dropped, twins, twins], 1)
    if margin is not None:
        dropped = dropped | (scores.detach() > found.detach() + margin)
    return cross_entropy((scores / temperature).masked_fill(dropped, float("-inf")), targets)


def distillation(
    student: torch.Tensor, teacher: torch.Tensor, kind: Distillation, *, temperature: float = 1.0
) -> torch.Tensor:
    """How far a student's scores of each query's own passages are from a teacher's.

    - "kl": Kullback-Leibler divergence of the student's softmax from the teacher's, mean over
      queries (FlagEmbedding's `kl_div`, which leaves out the teacher's entropy, a constant);
    - "margin-mse": mean squared difference of the margins between positive and negatives
      (Hofstätter et al. 2020, arXiv 2010.02666).

    Args:
        student: `[queries, passages]`: scores of the positive, then of the negatives.
        teacher: The same.
        kind: Which.
        temperature: What the teacher's scores are divided by.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: an unknown kind.
    """
    student, teacher = student.float(), teacher.float() / temperature
    if kind == "kl":
        wanted = teacher.log_softmax(-1)
        return (wanted.exp() * (wanted - student.log_softmax(-1))).sum(-1).mean()
    if kind != "margin-mse":
        raise ValueError(f"kind={kind!r} is not one of {get_args(Distillation)}")
    own, wanted = (scores[:, :1] - scores[:, 1:] for scores in (student, teacher))
    return mse_loss(own, wanted)


def cosine_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean of one minus the cosine of each student's vector with its teacher's.

    Args:
        student: `[texts, dim]`.
        teacher: `[texts, dim]`.

    Returns:
        A float32 scalar.
    """
    cosines = normalize(student.float(), dim=-1) * normalize(teacher.float(), dim=-1)
    return 1 - cosines.sum(-1).mean()


def matryoshka(
    loss: ContrastiveLoss, queries: torch.Tensor, passages: torch.Tensor, dims: Sequence[int]
) -> torch.Tensor:
    """Sum of a contrastive loss over vectors cut to each of `dims` and given unit length again.

    Kusupati et al. 2022 (arXiv 2205.13147, equation 1, all weights 1).

    Args:
        loss: Function of queries and passages.
        queries: `[queries, dim]`.
        passages: `[passages, dim]`.
        dims: Lengths to train; the whole length counts only if it is among them.

    Returns:
        The sum, a scalar.
    """
    parts = [
        loss(normalize(queries[:, :dim], dim=-1), normalize(passages[:, :dim], dim=-1))
        for dim in dims
    ]
    return torch.stack(parts).sum()


def nll_sum(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
) -> tuple[torch.Tensor, int]:
    """Sum of -log softmax at the labels, and how many labels count.

    Args:
        logits: `[positions, vocabulary]`.
        labels: `[positions]`, int64; `IGNORED` ones do not count.
        weights: `[positions]`: factor of each position; None = 1.

    Returns:
        The sum, a float32 scalar, and the number of labels that are not `IGNORED`.
    """
    logits, counted = logits.float(), int((labels != IGNORED).sum())
    if weights is None:
        return cross_entropy(logits, labels, reduction="sum"), counted
    parts = cross_entropy(logits, labels, reduction="none")
    return (parts * weights).sum(), counted


def head_nll_sum(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    rows: int = _HEAD_ROWS,
) -> tuple[torch.Tensor, int]:
    """`nll_sum` of the logits of a language-model head, computed for `rows` states at a time.

    The float32 logits of 8192 tokens over 128k words are 4 GB. Here those of a part are thrown away
    once they are summed, and computed again in the backward pass.

    Args:
        head: States `[n, dim]` -> logits `[n, vocabulary]`.
        hidden: `[positions, dim]`: the states that predict the labels.
        labels: `[positions]`, int64; `IGNORED` ones do not count.
        weights: `[positions]`: factor of each position; None = 1.
        rows: States per part.

    Returns:
        As `nll_sum`.
    """

    def part(states: torch.Tensor, at: slice) -> torch.Tensor:
        return nll_sum(head(states), labels[at], None if weights is None else weights[at])[0]

    if len(hidden) <= rows:
        return nll_sum(head(hidden), labels, weights)
    total = hidden.new_zeros((), dtype=torch.float32)
    for first in range(0, len(hidden), rows):
        at = slice(first, first + rows)
        total = total + checkpoint(part, hidden[at], at, use_reentrant=False)
    return total, int((labels != IGNORED).sum())


def next_tokens(labels: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Which states predict which labels: a label at i is predicted from the state at i - 1.

    This is what transformers' causal language-model loss does, and so what MNTP is (llm2vec 0.2.3
    `MistralBiForMNTP`): a label at the first position has no state before it and is dropped.

    Args:
        labels: For each row, a label or `IGNORED` for each token.

    Returns:
        Indices of states, counted over all rows laid end to end, and the labels that they predict.
    """
    places, wanted, first = [], [], 0
    for row in labels:
        for position in range(1, len(row)):
            if row[position] != IGNORED:
                places.append(first + position - 1)
                wanted.append(row[position])
        first += len(row)
    return places, wanted


def generative_weights(
    counts: Sequence[int], aggregation: Aggregation, *, group: int | None = None
) -> list[float]:
    """For each sample, the factor of its tokens in GRIT's language-model loss.

    The loss is the sum of all tokens' negative log-likelihoods times these factors (gritlm
    `NextTokenLoss`; arXiv 2402.09906, section 2, where "Mix (32 -> 8)" is "mixed" with groups of 8
    in batches of 32):

    - "token": the sum over tokens divided by the number of samples, so that long ones count more;
    - "sample": the mean over the tokens of each sample, and the mean over samples;
    - "mixed": the mean over the tokens of `group` samples, and the mean over these groups.

    Args:
        counts: Predicted tokens of each sample of the whole batch.
        aggregation: "token", "sample" or "mixed".
        group: Samples per group of "mixed"; None = all in one.

    Raises:
        ValueError: an unknown aggregation.
    """
    if aggregation == "token":
        return [1 / len(counts)] * len(counts)
    if aggregation not in get_args(Aggregation):
        raise ValueError(f"aggregation={aggregation!r} is not one of {get_args(Aggregation)}")
    size = 1 if aggregation == "sample" else group or len(counts)
    groups = [counts[first : first + size] for first in range(0, len(counts), size)]
    full = sum(1 for members in groups if any(members))
    return [
        1 / (sum(members) * full) if any(members) else 0.0 for members in groups for _ in members
    ]


def balance_factors(chosen: torch.Tensor, rows: int, weight: float) -> torch.Tensor:
    """The factor of each expert's routing probabilities in the load-balancing loss of a batch.

    The loss (Fedus et al. 2021, arXiv 2101.03961, equations 4 to 6; Mixtral's in transformers, with
    all layers together) is `weight` x experts x the sum over experts of how often one is chosen
    times its mean probability. How often has no gradient, so the loss of a batch is the sum of its
    tokens' probabilities times these factors.

    Args:
        chosen: `[experts]`: how often each is chosen, over tokens and layers of the batch.
        rows: Tokens of the batch times layers.
        weight: Weight of the loss.
    """
    return weight * len(chosen) * chosen / rows**2


def bag_of_words_nll(
    logits: torch.Tensor, targets: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, int]:
    """LLaRA's loss of one prompt: how well its tokens tell a passage's words, in any order.

    The logits of the eight tokens ("slots") are reduced to their maximum; a row's loss is minus the
    mean log-softmax of its different target ids (FlagEmbedding research/LLARA/pretrain at 7ed43d6;
    `llara_total` divides by ten).

    Args:
        logits: `[rows, slots, vocabulary]`.
        targets: For each row, the ids of the words to predict; repeated ones count once.

    Returns:
        The sum over rows that have targets, a float32 scalar, and how many these are.
    """
    log_probabilities = logits.float().amax(1).log_softmax(-1)
    total = log_probabilities.new_zeros(())
    rows = 0
    for row, ids in zip(log_probabilities, targets, strict=True):
        if ids:
            total = total - row[torch.tensor(sorted(set(ids)), device=row.device)].mean()
            rows += 1
    return total, rows
