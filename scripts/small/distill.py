"""Copy the teacher: first into the word vectors alone, then into the whole student."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import runs
import torch
import torch.nn.functional as functional
from lessons import Lessons, read_lessons
from transformers import LlamaModel, PreTrainedTokenizerFast
from vocabulary import token_ids

from llm_embeddings.arithmetic.dtype import bfloat16_pays

Floats = npt.NDArray[np.float32]
Ids = Sequence[npt.NDArray[np.int64]]
Embed = Callable[[Ids], torch.Tensor]


@dataclass(frozen=True)
class Lesson:
    """Token ids (with BOS) and the target in the student's space, for every text."""

    ids: list[npt.NDArray[np.int64]]
    bounds: npt.NDArray[np.int64]
    targets: npt.NDArray[np.float16]


def prepare(lessons: Lessons, ids: Sequence[Sequence[int]], bos: int, axes: Floats) -> Lesson:
    """Turn the teacher's vectors by `axes`; the student's last coordinate has no counterpart."""
    turned = lessons.vectors.astype(np.float32) @ axes
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    padded = np.pad(turned, ((0, 0), (0, 1))).astype(np.float16)
    return Lesson([np.asarray([bos, *row], np.int64) for row in ids], lessons.bounds, padded)


def load(work: Path, tokenizer: PreTrainedTokenizerFast, axes: Floats) -> Lesson:
    """The lessons of the run in `work`."""
    lessons = read_lessons(work / "lessons")
    return prepare(lessons, token_ids(tokenizer, lessons.texts), tokenizer.bos_token_id, axes)


def draw(lesson: Lesson, groups: int, step: int, seed: int) -> npt.NDArray[np.int64]:
    """Text numbers of the step's groups; every epoch is another order of all groups."""
    per_epoch = (len(lesson.bounds) - 1) // groups
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(len(lesson.bounds) - 1)
    chosen = order[place * groups : (place + 1) * groups]
    spans = zip(lesson.bounds[chosen], lesson.bounds[chosen + 1], strict=True)
    return np.concatenate([np.arange(a, b) for a, b in spans])


def loss_of(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """One minus the cosine, plus the divergence of who is how close to whom in the batch."""
    near = (1.0 - (student * teacher).sum(1)).mean()
    hide = torch.eye(len(student), dtype=torch.bool)
    ours = (student @ student.T / temperature).masked_fill(hide, -1e4).log_softmax(1)
    theirs = (teacher @ teacher.T / temperature).masked_fill(hide, -1e4).log_softmax(1)
    return near + functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def bag_embed(model: LlamaModel) -> Embed:
    """The student without its layers: a mean of normed word vectors."""

    def embed(rows: Ids) -> torch.Tensor:
        lengths = np.array([len(row) for row in rows])
        starts = torch.from_numpy(np.cumsum(lengths) - lengths)
        flat = torch.from_numpy(np.concatenate(rows))
        table = model.norm(model.embed_tokens.weight)
        return functional.normalize(functional.embedding_bag(flat, table, starts, mode="mean"))

    return embed


def model_embed(model: LlamaModel, chunk_tokens: int = 2048) -> Embed:
    """The whole student, both directions; rows of like length run together."""

    def run(rows: Ids) -> torch.Tensor:
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for row, values in zip(ids, rows, strict=True):
            row[: len(values)] = torch.from_numpy(values)
        mask = torch.arange(ids.shape[1]) < lengths.unsqueeze(1)
        square = mask[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_pays()):
            states = model(input_ids=ids, attention_mask=square).last_hidden_state
        return functional.normalize((states.float() * mask.unsqueeze(2)).sum(1))

    def embed(rows: Ids) -> torch.Tensor:
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        parts, first = [], 0
        while first < len(order):
            size = max(1, chunk_tokens // len(rows[order[first]]))
            parts.append(run([rows[i] for i in order[first : first + size]]))
            first += size
        return torch.cat(parts)[torch.from_numpy(np.argsort(order))]

    return embed


def distill(
    model: LlamaModel,
    lesson: Lesson,
    run: runs.Run,
    *,
    embed: Embed,
    groups: int,
    word_rate: float,
    layer_rate: float,
    temperature: float = 0.05,
    seed: int = 13,
) -> None:
    """Train on `run.steps` batches of `groups` groups."""
    words = [model.embed_tokens.weight]
    others = [p for n, p in model.named_parameters() if "embed_tokens" not in n]
    optimizer = torch.optim.AdamW(
        [{"params": words, "lr": word_rate}, {"params": others, "lr": layer_rate}],
        betas=(0.9, 0.98),
        weight_decay=0.0,
        fused=True,
    )
    model.train()

    def update(step: int) -> tuple[torch.Tensor, int]:
        chosen = draw(lesson, groups, step, seed)
        rows = [lesson.ids[i] for i in chosen]
        targets = torch.from_numpy(lesson.targets[chosen].astype(np.float32))
        return loss_of(embed(rows), targets, temperature), sum(map(len, rows))

    runs.train(run, model, optimizer, update)
