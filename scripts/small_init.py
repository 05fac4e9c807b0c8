"""What the small model starts from: its tokenizer and its word vectors, both by counting."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from scipy import sparse
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

Floats = npt.NDArray[np.float32]
PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over lower-cased words without accents; any text has tokens, none unknown.

    Words are split from punctuation first and every piece gets the same leading space, so that a
    word is the same tokens after a quote, at the start of a text and in the middle of one.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
            pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}{1,4}|[^\p{L}\p{N}]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=3,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def token_counts(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], window: int
) -> tuple[npt.NDArray[np.int64], sparse.csr_matrix]:
    """How often each token occurs, and how often two occur within `window` of each other."""
    backend, size = tokenizer.backend_tokenizer, len(tokenizer)
    rows = [
        np.asarray(encoding.ids, np.int64)
        for start in range(0, len(texts), 4096)
        for encoding in backend.encode_batch_fast(texts[start : start + 4096])
    ]
    flat = np.concatenate(rows)
    owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    pairs = sparse.csr_matrix((size, size), dtype=np.float32)
    for step in range(1, window + 1):
        same = owner[:-step] == owner[step:]
        left, right = flat[:-step][same], flat[step:][same]
        ones = np.ones(len(left), np.float32)
        pairs = pairs + sparse.coo_matrix((ones, (left, right)), shape=(size, size)).tocsr()
    return np.bincount(flat, minlength=size), pairs + pairs.T


def word_vectors(pairs: sparse.csr_matrix, dimension: int, seed: int) -> Floats:
    """Unit rows: left singular vectors of the positive pointwise mutual information."""
    from sklearn.utils.extmath import randomized_svd

    table = pairs.tocoo()
    total = np.bincount(table.row, table.data, pairs.shape[0])
    context = total**0.75
    score = np.log(table.data * context.sum() / (total[table.row] * context[table.col] + 1e-9))
    keep = score > 0
    ppmi = sparse.csr_matrix(
        (score[keep].astype(np.float32), (table.row[keep], table.col[keep])), shape=pairs.shape
    )
    left, _, _ = randomized_svd(ppmi, dimension, n_iter=3, random_state=seed)
    unit = left / np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-9)
    return np.asarray(unit, np.float32)


def build_model(config: LlamaConfig, seed: int) -> LlamaModel:
    """The model with random weights."""
    torch.manual_seed(seed)
    model = LlamaModel(config)
    model.float()
    return model


@torch.no_grad()
def start_as_bag_of_words(
    model: LlamaModel, vectors: Floats, frequency: npt.NDArray[np.int64], smooth: float
) -> None:
    """Make the untouched residual stream a weighted bag of words.

    A token's weight is a / (a + p(token)). The final RMSNorm gives every position the same length,
    which would undo weights; so each embedding is (weight * direction, rest) with unit length, and
    the norm's gain for the one "rest" coordinate is zero. Layers start close to the identity.
    """
    share = frequency / frequency.sum()
    weight = torch.tensor(smooth / (smooth + share), dtype=torch.float32).unsqueeze(1)
    direction = torch.from_numpy(vectors)
    rest = (1.0 - (weight * direction).square().sum(1, keepdim=True)).clamp(min=0.0).sqrt()
    table = torch.cat([weight * direction, rest], dim=1)
    model.embed_tokens.weight.copy_(table * model.config.hidden_size**0.5)
    model.norm.weight[-1] = 0.0
    for layer in model.layers:
        for name, parameter in layer.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.normal_(0.0, 0.1 * model.config.hidden_size**-0.5)
            elif parameter.dim() == 2:
                parameter.normal_(0.0, model.config.hidden_size**-0.5)


Columns = list[list[npt.NDArray[np.int64]]]


def tokenize_columns(
    tokenizer: PreTrainedTokenizerFast, rows: Sequence[tuple[str, ...]]
) -> Columns:
    """Token ids with BOS in front, column by column."""
    first = [tokenizer.bos_token_id]
    return [
        [
            np.asarray(first + encoding.ids, np.int64)
            for encoding in tokenizer.backend_tokenizer.encode_batch_fast(list(column))
        ]
        for column in zip(*rows, strict=True)
    ]


def _bags(rows: Sequence[npt.NDArray[np.int64]], table: torch.Tensor) -> torch.Tensor:
    """Unit-length means of table rows."""
    lengths = np.array([len(row) for row in rows])
    starts = torch.from_numpy(np.cumsum(lengths) - lengths)
    ids = torch.from_numpy(np.concatenate(rows))
    bags = functional.embedding_bag(ids, table, starts, mode="mean")
    return functional.normalize(bags, dim=1)


def warm_up(
    model: LlamaModel,
    tables: Mapping[str, Columns],
    *,
    minutes: float,
    batch_size: int,
    rate: float,
    scale: float,
    seed: int,
) -> None:
    """Train embeddings and final norm alone, as if the model had no layers.

    Some twenty times cheaper a pair than the whole model, and most of what this one can learn.
    """
    embeddings, norm = model.embed_tokens.weight, model.norm
    groups = [{"params": [embeddings], "lr": rate}, {"params": [norm.weight], "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
    start, step = time.monotonic(), 0

    def share(step: int) -> float:
        left = 1.0 - (time.monotonic() - start) / (60.0 * minutes)
        return min(1.0, (step + 1) / 50) * max(0.0, left)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    kinds, pick = list(tables), random.Random(seed)
    sizes = [len(tables[kind][0]) for kind in kinds]
    targets = torch.arange(batch_size)
    while share(1000) > 0.0:
        kind = pick.choices(kinds, sizes)[0]
        chosen = pick.sample(range(len(tables[kind][0])), batch_size)
        table = norm(embeddings)
        anchors, *others = (_bags([c[i] for i in chosen], table) for c in tables[kind])
        loss = functional.cross_entropy(scale * anchors @ torch.cat(others).T, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        step += 1
        if step % 200 == 0:
            print(f"warm-up step {step}: {kind} loss {loss.item():.3f}", flush=True)
    print(f"warm-up: {step} steps", flush=True)
