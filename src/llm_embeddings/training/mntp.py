"""The stage `mntp`: a causal model learns bidirectional attention by predicting hidden tokens.

LLM2Vec (BehnamGhader et al. 2024, arXiv 2404.05961), step 2; hyper-parameters as in its
train_configs/mntp (llm2vec 0.2.3). The hidden token at position i is predicted from the state at
i - 1, as in a language model. Unlike there, the head is not trained by default: the reference
trains it, and does not save it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..batching import windows
from ..faces import init_checked
from ..model import embedding_rows
from ..recipe import Recipe, Role
from ..records.examples import read_texts
from ..records.sources import Source, sources_of
from ..tokens import tokenize
from ..vectors import Vectors
from .batches.kept_ids import kept_ids
from .batches.masking import MaskToken, Style, blocks, mask_token, mask_tokens
from .batches.mixture import Mixture
from .begun import counted
from .losses import IGNORED, head_nll_sum, next_tokens
from .options import StageOptions, check_one_of, check_option
from .passes.encoding import Encoding, encode_texts
from .passes.gradcache import backward_sum, plan
from .run.loop import run_stage
from .run.memory import MOST
from .run.stage import Progress
from .weights.head import load_head
from .weights.loading import load_backbone_for_training
from .weights.saving import save_result

if TYPE_CHECKING:
    from accelerate import Accelerator

_SOURCE = "LLM2Vec, arXiv 2404.05961; train_configs/mntp of llm2vec 0.2.3 (Llama models)"
_WHOLE = 2**25  # bytes of texts that are all tokenised before training starts
_KEPT = 2**22  # bytes of a file whose ids are kept
MNTP_RECIPE = Recipe(
    name="mntp", causal=False, pooling="mean", source="LLM2Vec, arXiv 2404.05961: mean pooling"
)


def train_mntp(options: MNTP) -> Path:
    """Train by masked next token prediction.

    Returns:
        `options.output`: the model, bidirectional, with mean pooling unless its recipe says else.

    Raises:
        FileNotFoundError: the model or a data file is missing.
        TrainingError: training had to stop.
        ValueError: data, model or options that do not fit.
    """
    return run_stage(_Stage, options)


@init_checked
@dataclass(frozen=True, kw_only=True)
class MNTP(StageOptions):
    """Teach a causal LLM bidirectional attention, by predicting hidden tokens.

    LLM2Vec's Mistral model: `style="all", probability=0.8`.
    """

    block_length: int = field(
        default=512, metadata={"help": "tokens per block; texts are laid end to end"}
    )
    style: Style = field(
        default="bert",
        metadata={
            "help": "bert = of the chosen 80% masked, 10% random, 10% kept; all = all masked"
        },
    )
    probability: float = field(default=0.2, metadata={"help": "how likely a token is chosen"})
    mask_token: MaskToken = field(
        default="blank", metadata={"help": "what hides a token: '_', the EOS, or a new '<mask>'"}
    )
    train_head: bool = field(
        default=False, metadata={"help": "also train the language-model head, and save it"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("block_length", self.block_length, self.block_length >= 2, "must be 2 or more")
        check_one_of("style", self.style, Style)
        check_option("probability", self.probability, 0 < self.probability < 1, "must be in (0, 1)")
        check_one_of("mask_token", self.mask_token, MaskToken)
        if self.train_head and self.save == "adapter":
            raise ValueError("train_head=True needs save='merged': an adapter has no head")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Blocks of token ids with some hidden, and labels: the hidden ids, `IGNORED` elsewhere."""

    rows: list[list[int]]
    labels: list[list[int]]


class _Model(torch.nn.Module):
    """A backbone and its head, which is computed only for states that predict a hidden token."""

    def __init__(self, encoding: Encoding, head: torch.nn.Linear) -> None:
        super().__init__()
        self.encoding, self.head = encoding, head

    def forward(
        self,
        rows: list[list[int]],
        starts: list[int] | None = None,
        labels: list[list[int]] | None = None,
    ) -> torch.Tensor:
        """Vectors `[rows, dim]` or, with labels, the sum of their negative log-likelihoods."""
        if labels is None:
            return self.encoding.vectors(rows, starts or [0] * len(rows))
        hidden = torch.cat(self.encoding.hidden(rows))
        # The dtype is given because a chunk without hidden tokens makes empty lists.
        places, wanted = (
            torch.tensor(part, dtype=torch.int64, device=hidden.device)
            for part in next_tokens(labels)
        )
        return head_nll_sum(self.head, hidden.index_select(0, places), wanted)[0]


class _Stage:
    """Masked next token prediction, as the loop asks for it."""

    name = "mntp"

    def __init__(self, options: MNTP) -> None:
        self._options, self.budget = options, options.batch_tokens or MOST
        self._trained = load_backbone_for_training(options, MNTP_RECIPE, trains_heads=False)
        trained = self._trained
        backbone, tokenizer, recipe = trained.backbone, trained.tokenizer, trained.recipe
        if recipe.causal:
            own = (
                "leave it out, for mntp's own recipe" if options.recipe else "it is the model's own"
            )
            raise ValueError(
                f"mntp trains attention in both directions, and recipe {recipe.name!r} is causal: "
                f"{own}, or pass recipe=Recipe(...) with causal=False"
            )
        if options.block_length > trained.positions:
            raise ValueError(
                f"block_length={options.block_length} is more than the {trained.positions} "
                "positions of this model"
            )
        self._mask_id = self._add_mask()
        head = load_head(options, backbone)
        head.weight.requires_grad_(head.weight.requires_grad or options.train_head)
        self._encoding = Encoding(backbone, recipe, head=trained.head)
        self.model: torch.nn.Module = _Model(self._encoding, head)
        self._special = {*tokenizer.all_special_ids, self._mask_id}
        self._mixture = Mixture(
            sources_of(options.data),
            self._read,
            seed=options.seed,
            same_source=False,
            known=counted(options),
            whole=_WHOLE,
        )
        self.updates = self._mixture.updates(options.batch_size, options.epochs)

    def _add_mask(self) -> int:
        """The id of the mask token, which is added to tokenizer and embeddings if they lack it."""
        backbone, tokenizer = self._trained.backbone, self._trained.tokenizer
        token = mask_token(tokenizer, self._options.mask_token)
        if tokenizer.backend_tokenizer.token_to_id(token) is None:
            if self._options.save == "adapter":
                raise ValueError(
                    f"mask_token='mask' adds {token!r}, which an adapter cannot hold: use "
                    "save='merged' or mask_token='blank'"
                )
            tokenizer.add_special_tokens({"mask_token": token})
            known = embedding_rows(backbone)
            if len(tokenizer) > known:
                grown = backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
                weight = grown.weight.requires_grad_(self._options.lora is None)
                weight.data[known:] = weight.data[:known].float().mean(0).to(weight.dtype)
        found: int = tokenizer.get_vocab()[token]
        return found

    def _read(self, source: Source) -> Iterator[NDArray[np.int32]]:
        """Blocks of token ids of a file's texts, each beginning with BOS, as in the reference."""
        plain = self._trained.recipe.replace(**_PLAIN)
        tokenizer = self._trained.tokenizer

        def ids_of(texts: Sequence[str]) -> NDArray[np.int32]:
            rows = tokenize(tokenizer, plain, texts, "document")
            return np.fromiter(chain.from_iterable(row.ids for row in rows), np.int32)

        keep = source.path.stat().st_size >= _KEPT
        maker = f"{tokenizer.backend_tokenizer.to_str()} {plain.to_dict()}" if keep else ""
        length = self._options.block_length
        rows = (
            ids[start : start + length].tolist()
            for texts in windows(read_texts(source))
            for ids in [kept_ids(texts, maker, ids_of) if keep else ids_of(texts)]
            for start in range(0, len(ids), length)
        )
        for block in blocks(rows, length):
            yield np.array(block, np.int32)  # a tenth of the memory: thousands wait to be shuffled

    def batches(self, start: int) -> Iterator[_Batch]:
        """Masked blocks; which tokens are hidden depends on seed and number of the batch."""
        options = self._options
        found = self._mixture.batches(options.batch_size, start, epochs=options.epochs)
        for number, rows in enumerate(found, start):
            generator = torch.Generator().manual_seed(options.seed * 2**32 + number)
            inputs, labels = mask_tokens(
                torch.tensor(np.stack(rows), dtype=torch.int64),
                style=options.style,
                mask_id=self._mask_id,
                probability=options.probability,
                vocabulary=len(self._trained.tokenizer),
                generator=generator,
                special=self._special,
            )
            yield _Batch(inputs.tolist(), labels.tolist())

    def update(self, accelerator: Accelerator, model: torch.nn.Module, batch: _Batch) -> Progress:
        """Backward pass of the mean loss over all hidden tokens of the batch."""
        lengths = [len(row) for row in batch.rows]
        count = sum(label != IGNORED for row in batch.labels for label in row[1:])

        def compute(chunk: Sequence[int]) -> torch.Tensor:
            rows = [batch.rows[row] for row in chunk]
            total: torch.Tensor = model(rows, labels=[batch.labels[row] for row in chunk])
            return total / max(count, 1)

        shares = plan(lengths, self.budget, accelerator.num_processes)
        loss = backward_sum(accelerator, model, shares[accelerator.process_index], compute)
        return Progress({"loss": loss}, sum(lengths), len(lengths))

    def save(self, model: torch.nn.Module, directory: Path) -> None:
        """Write the backbone, with its head if that was trained."""
        assert isinstance(model, _Model)
        head = model.head if self._options.train_head else None
        trained = model.encoding.put_into(self._trained)
        save_result(self._options, trained, directory, head=head)

    def encode(self, model: torch.nn.Module, texts: list[str], role: Role) -> Vectors:
        """Vectors `[texts, dim]`, float32, by the model as trained so far."""
        return encode_texts(model, self._trained, texts, role, budget=self.budget)

    def facts(self) -> Mapping[str, object]:
        """Where the method comes from, and the fingerprint of the data."""
        return {
            "source": _SOURCE,
            "batches": self._encoding.packing,
            "data": self._mixture.fingerprint(),
        }


# Changes to a recipe for plain text: nothing around a text but BOS, and no limit.
_PLAIN = {
    "document": MNTP_RECIPE.document,
    "eos": False,
    "join": "string",
    "separator": None,
    "max_length": 2**31,
    "max_text_length": None,
}
