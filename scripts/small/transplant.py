"""The teacher's BERT layers written as a Llama: where the student starts.

A BERT layer norms its sums, a Llama layer what it reads. BERT's gains and biases therefore move
into the matrices that read and write the residual stream, each coordinate of which is the teacher's
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
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from transformers import BertModel

Tensor = torch.Tensor
GELU = 1.702  # gelu(x) is nearly x * sigmoid(1.702 x)
_READERS = ("query", "key", "value")
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
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            norm = layer.get_submodule(name)
            assert isinstance(norm, torch.nn.LayerNorm)
            found.append(norm)
    return found


def linear(module: torch.nn.Module, name: str) -> torch.nn.Linear:
    """A linear map inside a layer."""
    found = module.get_submodule(name)
    assert isinstance(found, torch.nn.Linear)
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


def read(reader: torch.nn.Linear, norm: Norm) -> tuple[Tensor, Tensor]:
    """Weight and bias that do to the normed stream what `reader` does to the norm's output."""
    gained = reader.weight * norm.gain
    centred = gained - gained.mean(1, keepdim=True)
    return centred * norm.scale * norm.ratio, reader.bias + reader.weight @ norm.bias


def write(writer: torch.nn.Linear, before: Norm, after: Norm) -> tuple[Tensor, Tensor]:
    """Weight and bias of what is added to the stream: the output, and the bias of the last norm."""
    return writer.weight / after.scale.unsqueeze(1), (writer.bias + before.bias) / after.scale


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


def most_used(active: Tensor, weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` neurons of an MLP that vary its output most, and the mean of all others.

    Args:
        active: what the neurons give, [tokens, neurons].
        weight: what becomes of it, [hidden, neurons].
        count: neurons of the student.
    """
    worth = active.var(0) * weight.square().sum(0)
    kept = worth.argsort(descending=True)[:count].sort().values
    rest = torch.ones(len(worth), dtype=torch.bool)
    rest[kept] = False
    return kept, weight[:, rest] @ active[:, rest].mean(0)


def config_of(teacher: BertModel, mlp: int, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
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
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
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
    layers = zip(student.layers, teacher.encoder.layer, strict=True)
    for i, (target, layer) in enumerate(layers):
        copy_attention(target, layer, found[2 * i : 2 * i + 2], config.num_attention_heads)
        copy_mlp(target, layer, found[2 * i + 1 : 2 * i + 3], totals[2 * i + 1])
    end = found[-1]
    student.norm.weight.copy_(end.gain * end.scale * end.ratio)
    shift = end.bias * end.spread / (end.gain.clamp(min=0.1) * end.scale)
    linear(student.layers[-1], "mlp.down_proj").bias.add_(shift)
    return student, found


def copy_attention(
    target: torch.nn.Module, layer: torch.nn.Module, norms: Sequence[Norm], heads: int
) -> None:
    """The attention of one layer, between the two `norms`."""
    before, after = norms
    own = {name: read(linear(layer, f"attention.self.{name}"), before) for name in _READERS}
    query, key = paired(torch.column_stack(own["query"]), torch.column_stack(own["key"]), heads)
    _fill(linear(target, "self_attn.q_proj"), query[:, :-1], query[:, -1])
    _fill(linear(target, "self_attn.k_proj"), key[:, :-1], key[:, -1])
    _fill(linear(target, "self_attn.v_proj"), *own["value"])
    output = linear(layer, "attention.output.dense")
    _fill(linear(target, "self_attn.o_proj"), *write(output, before, after))


def copy_mlp(
    target: torch.nn.Module, layer: torch.nn.Module, norms: Sequence[Norm], total: Tensor
) -> None:
    """The most used neurons of one MLP between two norms, the first of which reads `total`."""
    before, after = norms
    up, gate, down = (linear(target, f"mlp.{name}_proj") for name in ("up", "gate", "down"))
    inner, outer = linear(layer, "intermediate.dense"), linear(layer, "output.dense")
    states = functional.layer_norm(total, total.shape[1:], before.gain, before.bias)
    kept, mean = most_used(functional.gelu(inner(states)), outer.weight, len(gate.bias))
    weight, bias = read(inner, before)
    _fill(gate, weight[kept] * GELU, bias[kept] * GELU)
    _fill(up, torch.zeros_like(up.weight), torch.ones_like(up.bias))
    weight, bias = write(outer, before, after)
    _fill(down, weight[:, kept] / GELU, bias + mean / after.scale)


def word_vectors(teacher: BertModel, entries: Sequence[int]) -> Tensor:
    """What the first norm makes of each entry at an average position, without gain and bias."""
    tables = teacher.embeddings
    words = tables.word_embeddings.weight[list(entries)]
    words = words + tables.token_type_embeddings.weight[0]
    words = words + tables.position_embeddings.weight[POSITIONS].mean(0)
    return functional.layer_norm(words, words.shape[-1:])


def _fill(target: torch.nn.Linear, weight: Tensor, bias: Tensor) -> None:
    target.weight.copy_(weight)
    target.bias.copy_(bias)
