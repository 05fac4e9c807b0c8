"""The teacher's BERT layers written as a Llama: where the student starts.

A BERT layer norms its sums, a Llama layer what it reads. BERT's gains and biases therefore move into
the matrices that read and write the residual stream, each coordinate of which is the teacher's
divided by a scale that grows from layer to layer. That is exact where the sums of all tokens have
the same spread, which they nearly have. Positions, which BERT adds to its words, are left to
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as functional
from transformers import LlamaConfig, LlamaModel

if TYPE_CHECKING:
    from transformers import BertModel
    from transformers.models.bert.modeling_bert import BertLayer

Tensor = torch.Tensor
GELU = 1.702  # gelu(x) is nearly x * sigmoid(1.702 x)
POSITIONS = slice(1, 40)  # whose mean stands in the word vectors


@dataclass(frozen=True)
class Norm:
    """One LayerNorm of the teacher, as the student reads it.

    Attributes:
        gain: the teacher's.
        bias: the teacher's.
        scale: of each coordinate; the teacher's sum is `scale` times the student's stream.
        ratio: median over tokens of the stream's root mean square to the spread of the sum.
        spread: median spread of the teacher's sum.
    """

    gain: Tensor
    bias: Tensor
    scale: Tensor
    ratio: Tensor
    spread: Tensor


def sums(teacher: BertModel, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """What each of the teacher's norms reads, [tokens of all rows, hidden], in order."""
    found: list[list[Tensor]] = [[] for _ in layer_norms(teacher)]
    hooks = [
        layer.register_forward_hook(lambda _, inputs, __, kept=kept: kept.append(inputs[0][0]))
        for layer, kept in zip(layer_norms(teacher), found, strict=True)
    ]
    for row in rows:
        teacher(input_ids=torch.tensor([row]))
    for hook in hooks:
        hook.remove()
    return [torch.cat(kept) for kept in found]


def layer_norms(teacher: BertModel) -> list[torch.nn.LayerNorm]:
    """The teacher's norms in order: that of the embeddings, then two a layer."""
    found = [teacher.embeddings.LayerNorm]
    for layer in teacher.encoder.layer:
        found += [layer.attention.output.LayerNorm, layer.output.LayerNorm]
    return found


def norms(teacher: BertModel, totals: Sequence[Tensor]) -> list[Norm]:
    """The teacher's norms with the scale of the student's stream before each."""
    result: list[Norm] = []
    scale = torch.ones(teacher.config.hidden_size)
    for layer, total in zip(layer_norms(teacher), totals, strict=True):
        spreads = total.std(1, correction=0)
        size = (total / scale).square().mean(1).sqrt()
        spread = spreads.median()
        result.append(Norm(layer.weight, layer.bias, scale, (size / spreads).median(), spread))
        scale = scale * layer.weight / (spread if len(result) > 1 else 1.0)
    return result


def read(linear: torch.nn.Linear, norm: Norm) -> tuple[Tensor, Tensor]:
    """Weight and bias that do to the normed stream what `linear` does to the norm's output."""
    gained = linear.weight * norm.gain
    centred = gained - gained.mean(1, keepdim=True)
    return centred * norm.scale * norm.ratio, linear.bias + linear.weight @ norm.bias


def write(linear: torch.nn.Linear, before: Norm, after: Norm) -> tuple[Tensor, Tensor]:
    """Weight and bias of what is added to the stream: the output, and the bias of the last norm."""
    return linear.weight / after.scale.unsqueeze(1), (linear.bias + before.bias) / after.scale


def paired(query: Tensor, key: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Queries and keys (weights and biases side by side) in the basis that rotation harms least.

    Rotary positions turn the pairs (i, i + half) of a head, the first ones fastest. Each head's
    product of query and key is kept, its strongest parts where rotation is slow.
    """
    width = query.shape[0] // heads
    order = torch.arange(width - 1, -1, -1)
    places = torch.cat([order[0::2], order[1::2]])
    queries, keys = [], []
    for q, k in zip(query.split(width), key.split(width), strict=True):
        left, size, right = torch.linalg.svd(q.T @ k, full_matrices=False)
        root = size[:width].sqrt().unsqueeze(1)
        queries.append((root * left.T[:width])[places])
        keys.append((root * right[:width])[places])
    return torch.cat(queries), torch.cat(keys)


def most_used(layer: BertLayer, states: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` neurons of an MLP that vary its output most, and the mean of all others.

    Args:
        layer: the teacher's.
        states: what its MLP reads, [tokens, hidden].
        count: neurons of the student.
    """
    active = layer.intermediate(states)
    weight = layer.output.dense.weight
    worth = active.var(0) * weight.square().sum(0)
    kept = worth.argsort(descending=True)[:count].sort().values
    rest = torch.ones(len(worth), dtype=torch.bool)
    rest[kept] = False
    return kept, weight[:, rest] @ active[:, rest].mean(0)


def config_of(teacher: BertModel, mlp: int, **tokens: int) -> LlamaConfig:
    """A Llama of the teacher's sizes, with biases; `mlp` neurons a layer."""
    found = teacher.config
    return LlamaConfig(
        hidden_size=found.hidden_size,
        intermediate_size=mlp,
        num_hidden_layers=found.num_hidden_layers,
        num_attention_heads=found.num_attention_heads,
        num_key_value_heads=found.num_attention_heads,
        max_position_embeddings=512,
        attention_bias=True,
        mlp_bias=True,
        use_cache=False,
        dtype="float32",
        **tokens,
    )


@torch.no_grad()
def transplant(
    teacher: BertModel, entries: Sequence[int], rows: Sequence[Sequence[int]], config: LlamaConfig
) -> tuple[LlamaModel, list[Norm]]:
    """The student, and the norms by which its layers are compared to the teacher's.

    Args:
        teacher: gives its weights.
        entries: which of its word vectors, in the order of the student's.
        rows: the teacher's token ids of sample texts, on which it is measured.
        config: the student's.
    """
    totals = sums(teacher, rows)
    found = norms(teacher, totals)
    student = LlamaModel(config)
    student.embed_tokens.weight.copy_(word_vectors(teacher, entries))
    for i, (target, layer) in enumerate(zip(student.layers, teacher.encoder.layer, strict=True)):
        first, middle, last = found[2 * i : 2 * i + 3]
        own, attention = layer.attention.self, target.self_attn
        query, key = (torch.column_stack(read(part, first)) for part in (own.query, own.key))
        query, key = paired(query, key, config.num_attention_heads)
        _fill(attention.q_proj, query[:, :-1], query[:, -1])
        _fill(attention.k_proj, key[:, :-1], key[:, -1])
        _fill(attention.v_proj, *read(own.value, first))
        _fill(attention.o_proj, *write(layer.attention.output.dense, first, middle))
        states = layer.attention.output.LayerNorm(totals[2 * i + 1])
        kept, mean = most_used(layer, states, config.intermediate_size)
        weight, bias = read(layer.intermediate.dense, middle)
        _fill(target.mlp.gate_proj, weight[kept] * GELU, bias[kept] * GELU)
        _fill(target.mlp.up_proj, torch.zeros_like(weight[kept]), torch.ones(len(kept)))
        weight, bias = write(layer.output.dense, middle, last)
        _fill(target.mlp.down_proj, weight[:, kept] / GELU, bias + mean / last.scale)
    end = found[-1]
    student.norm.weight.copy_(end.gain * end.scale * end.ratio)
    shift = end.bias * end.spread / (end.gain.clamp(min=0.1) * end.scale)
    student.layers[-1].mlp.down_proj.bias += shift
    return student, found


def word_vectors(teacher: BertModel, entries: Sequence[int]) -> Tensor:
    """What the first norm makes of each entry at an average position, without gain and bias."""
    tables = teacher.embeddings
    words = tables.word_embeddings.weight[list(entries)]
    words = words + tables.token_type_embeddings.weight[0]
    words = words + tables.position_embeddings.weight[POSITIONS].mean(0)
    return functional.layer_norm(words, words.shape[-1:])


def _fill(linear: torch.nn.Linear, weight: Tensor, bias: Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
