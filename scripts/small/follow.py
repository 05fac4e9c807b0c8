"""The student follows the teacher token by token: every layer, every word, every text."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import runs
import torch
import torch.nn.functional as functional
from tokenizers import Tokenizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import BertModel, LlamaModel
from transplant import Norm

from llm_embeddings.arithmetic.dtype import bfloat16_pays

Tensor = torch.Tensor
LENGTHS = (24, 48, 48, 96, 160, 256)  # tokens a text is cut to, one of these at random
CHUNK = 3072  # tokens that run together, padding included
MEMORY = 0.995  # of the running mean of the weights
SHORTEST = 0.75  # of the longest row of a batch


@dataclass(frozen=True)
class Source:
    """Texts of one file, one a line; `weight` is its share of the draws before scaling."""

    name: str
    lines: Sequence[str]
    weight: float


def read_sources(folder: Path) -> list[Source]:
    """All text files that are there; a file ten times as long is drawn from four times as often."""
    sources = []
    for path in sorted(folder.glob("*.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            lines = [line for line in stream.read().split("\n") if line]
        sources.append(Source(path.name.removesuffix(".txt.gz"), lines, len(lines) ** 0.6))
    return sources


def draw(sources: Sequence[Source], count: int, rng: np.random.Generator) -> list[str]:
    """Random texts of random sources."""
    weights = np.array([source.weight for source in sources])
    chosen = rng.choice(len(sources), count, p=weights / weights.sum())
    return [sources[i].lines[rng.integers(len(sources[i].lines))] for i in chosen]


@dataclass(frozen=True)
class Batch:
    """Rows of like length for both models.

    Attributes:
        teacher: token ids, padded with 0.
        student: token ids; rows of a query have the prefix behind the first token.
        lengths: of the teacher's rows.
        prefix: 0 or the length of the prefix, one number for all rows.
    """

    teacher: Tensor
    student: Tensor
    lengths: Tensor
    prefix: int


def batches(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    places: Tensor,
    prefix: Sequence[int],
    rng: np.random.Generator,
) -> list[Batch]:
    """Tokenise, cut and sort; a third of the batches are queries.

    Args:
        texts: in any order.
        tokenizer: the teacher's; puts the special tokens on.
        places: student's entry of each of the teacher's.
        prefix: the student's token ids of the query prefix.
        rng: decides lengths and which batches are queries.
    """
    rows: list[list[int]] = []
    limits = rng.choice(LENGTHS, len(texts))
    for encoding, limit in zip(tokenizer.encode_batch_fast(list(texts)), limits, strict=True):
        whole = encoding.ids
        rows.append(whole if len(whole) <= limit else [*whole[: limit - 1], whole[-1]])
    rows.sort(key=len)
    found = []
    while rows:
        longest = len(rows[-1])
        size = sum(len(row) >= SHORTEST * longest for row in rows[-max(1, CHUNK // longest) :])
        chosen, rows = rows[-size:], rows[:-size]
        ids = torch.zeros(len(chosen), len(chosen[-1]), dtype=torch.long)
        for place, row in enumerate(chosen):
            ids[place, : len(row)] = torch.tensor(row)
        student, put = places[ids], 0
        if rng.random() < 1 / 3:
            put = len(prefix)
            middle = torch.tensor(prefix).expand(len(ids), -1)
            student = torch.cat([student[:, :1], middle, student[:, 1:]], 1)
        found.append(Batch(ids, student, torch.tensor([len(row) for row in chosen]), put))
    return found


def pooled(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens, of unit length."""
    return functional.normalize((states.float() * mask.unsqueeze(2)).sum(1), dim=1)


def spread_of(norm: Norm, stream: Tensor) -> Tensor:
    """What the teacher's LayerNorm would make of the student's stream, without gain and bias."""
    return functional.layer_norm(stream * norm.scale, stream.shape[-1:])


@dataclass(frozen=True)
class Pupil:
    """The student beside its teacher, and how the layers of both are compared."""

    student: LlamaModel
    teacher: BertModel
    norms: Sequence[Norm]

    def compare(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pooled vectors of both, and the losses over tokens: last states and layers."""
        mask = torch.arange(batch.teacher.shape[1]) < batch.lengths.unsqueeze(1)
        wide = functional.pad(mask, (batch.prefix, 0), value=True)
        square = wide[:, None, None, :].expand(-1, 1, wide.shape[1], -1)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_pays()):
            with torch.no_grad():
                theirs = self.teacher(
                    input_ids=batch.teacher, attention_mask=mask.long(), output_hidden_states=True
                ).hidden_states
            ours = self.student(
                input_ids=batch.student, attention_mask=square, output_hidden_states=True
            ).hidden_states
        kept = [0, *range(1 + batch.prefix, wide.shape[1])]
        layers = torch.zeros(())
        for number in range(1, len(theirs) - 1):
            norm = self.norms[2 * number]
            goal = (theirs[number].float()[mask] - norm.bias) / norm.gain
            found = spread_of(norm, ours[number][:, kept][mask].float())
            layers = layers + functional.mse_loss(found, goal) / (len(theirs) - 2)
        last = ours[-1][:, kept][mask].float()
        near = functional.cosine_similarity(last, theirs[-1].float()[mask], dim=1)
        return pooled(ours[-1], wide), pooled(theirs[-1], mask), (1 - near).mean(), layers


def among(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Divergence of who is how close to whom among the texts of a step."""
    hide = torch.eye(len(ours), dtype=torch.bool)
    found = (ours @ ours.T / temperature).masked_fill(hide, -1e4).log_softmax(1)
    goal = (theirs @ theirs.T / temperature).masked_fill(hide, -1e4).log_softmax(1)
    return functional.kl_div(found, goal, reduction="batchmean", log_target=True)


@dataclass(frozen=True, kw_only=True)
class Follow:
    """One run.

    Attributes:
        texts: folder of the text files; it is read again every `reread` steps.
        count: texts of a step.
        layers: weight of the loss over the layers between.
        measure_every: CPU seconds between two measurements.
    """

    texts: Path
    count: int = 160
    reread: int = 200
    layers: float = 0.2
    word_rate: float = 1e-4
    layer_rate: float = 5e-4
    temperature: float = 0.05
    measure_every: float = 1800.0
    seed: int = 13


def follow(
    pupil: Pupil,
    options: Follow,
    run: runs.Run,
    *,
    encode: Callable[[Sequence[str], np.random.Generator], list[Batch]],
    measure: Callable[[LlamaModel], str],
) -> LlamaModel:
    """Train, and give the mean of the weights over the last steps."""
    words = [pupil.student.embed_tokens.weight]
    others = [p for n, p in pupil.student.named_parameters() if "embed_tokens" not in n]
    optimizer = torch.optim.AdamW(
        [{"params": words, "lr": options.word_rate}, {"params": others, "lr": options.layer_rate}],
        betas=(0.9, 0.98),
        weight_decay=0.0,
        fused=True,
    )
    average = AveragedModel(pupil.student, multi_avg_fn=get_ema_multi_avg_fn(MEMORY))
    mean = average.module
    assert isinstance(mean, LlamaModel)
    state: dict[str, list[Source]] = {}
    measured = [time.process_time()]
    parts: list[npt.NDArray[np.float64]] = []
    pupil.student.train()

    def update(step: int) -> tuple[Tensor, int]:
        if step:
            average.update_parameters(pupil.student)
        if time.process_time() - measured[0] > options.measure_every:
            runs.write_line(run, f"{step}/{run.steps} measured: {measure(mean)}")
            measured[0] = time.process_time()
        if "sources" not in state or step % options.reread == 0:
            state["sources"] = read_sources(options.texts)
        rng = np.random.default_rng((options.seed, step))
        found = encode(draw(state["sources"], options.count, rng), rng)
        compared = [pupil.compare(batch) for batch in found]
        sizes = torch.tensor([float(batch.lengths.sum()) for batch in found])
        share = sizes / sizes.sum()
        ours, theirs = (torch.cat([one[i] for one in compared]) for i in (0, 1))
        near = (1 - (ours * theirs).sum(1)).mean()
        order = among(ours, theirs, options.temperature)
        last, layers = ((torch.stack([one[i] for one in compared]) * share).sum() for i in (2, 3))
        parts.append(np.array([near.item(), order.item(), last.item(), layers.item()]))
        if len(parts) == run.log_every:
            text = " ".join(f"{value:.4f}" for value in np.mean(parts, 0))
            runs.write_line(run, f"text, order, token, layer: {text}")
            parts.clear()
        return near + order + last + options.layers * layers, int(sizes.sum())

    both = torch.nn.ModuleDict({"student": pupil.student, "mean": average})
    runs.train(run, both, optimizer, update)
    return mean
