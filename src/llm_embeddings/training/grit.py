"""The stage `grit`: one model that embeds with bidirectional and generates with causal attention.

Muennighoff et al. 2024 (arXiv 2402.09906); hyper-parameters of its 7B model, losses of gritlm's
training code (9710681). Each forward pass has its own direction of attention, so both losses are
computed with the same modules in one update. Unlike there, the contrastive gradient is not divided
by the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from ..checkpoint.sidecar import ChatFormat
from ..faces import init_checked
from ..families import gritlm
from ..recipe import Role
from ..records.examples import Conversation
from ..records.sources import sources_of
from ..vectors import Vectors
from .batches.both import Both, BothData
from .batches.conversations import chat_for, tokenize_conversation
from .batches.pairs import FalseNegatives, Lengths, known_answers, targets_of, tokenize_pairs
from .begun import counted
from .losses import Aggregation, generative_weights, info_nce
from .options import LoraOptions, StageOptions, check_one_of, check_option
from .passes.encoding import Encoding, encode_texts
from .passes.gradcache import backward_sum, backward_vectors, plan, shared
from .passes.unified import UnifiedModel, learnt
from .run.loop import run_stage
from .run.memory import MOST
from .run.stage import Progress
from .weights.head import load_head
from .weights.loading import load_backbone_for_training
from .weights.saving import save_result

if TYPE_CHECKING:
    from accelerate import Accelerator

_SOURCE = "GRIT, arXiv 2402.09906; training scripts of gritlm 9710681 (7B)"
GRIT_RECIPE = gritlm.recipe("grit", _SOURCE).replace(bos=True)


def train_grit(options: GRIT) -> Path:
    """Train embeddings and generation together.

    Returns:
        `options.output`, which both `Encoder` and transformers' `AutoModelForCausalLM` load.

    Raises:
        FileNotFoundError: the model or a data file is missing.
        TrainingError: training had to stop.
        ValueError: data, model or options that do not fit.
    """
    return run_stage(_Stage, options)


@init_checked
@dataclass(frozen=True, kw_only=True)
class GRIT(StageOptions):
    """Train one model to embed (bidirectional attention) and to generate (causal attention)."""

    batch_size: int = field(
        default=2048, metadata={"help": "examples per update, all processes together"}
    )
    max_steps: int | None = field(default=1253, metadata={"help": "most updates"})
    learning_rate: float = field(default=2e-5, metadata={"help": "peak learning rate"})
    warmup: float = field(
        default=0.03, metadata={"help": "updates of linear warm-up; below 1 their share"}
    )
    lora: LoraOptions | None = field(
        default=None, metadata={"help": "train low-rank adapters; without, all weights"}
    )
    generative: tuple[str, ...] = field(
        default=(), metadata={"help": "files of conversations or texts"}
    )
    chat_format: ChatFormat | None = field(
        default=None,
        metadata={
            "help": "frame of conversations: GritLM's, or the tokenizer's own chat template; "
            "default: that of the grit run before this one, else GritLM's"
        },
    )
    generative_batch_size: int = field(default=256, metadata={"help": "conversations per update"})
    temperature: float = field(default=0.02, metadata={"help": "cosines are divided by it"})
    negatives: int = field(
        default=1, metadata={"help": "hard negatives per query; 0 = only in-batch ones"}
    )
    skip_duplicates: bool = field(
        default=True,
        metadata={"help": "leave out negatives that are known to answer the query"},
    )
    query_length: int = field(default=256, metadata={"help": "tokens of a query with its frame"})
    passage_length: int = field(
        default=2048, metadata={"help": "tokens of a passage with its frame"}
    )
    generative_length: int = field(default=2048, metadata={"help": "tokens of a conversation"})
    instruction: str = field(default="", metadata={"help": "of queries whose data has none"})
    embedding_weight: float = field(
        default=1.0, metadata={"help": "weight of the contrastive loss; 0 = train generation only"}
    )
    generative_weight: float = field(
        default=1.0,
        metadata={"help": "weight of the language-model loss; 0 = train embeddings only"},
    )
    aggregation: Aggregation = field(
        default="mixed",
        metadata={"help": "how the language-model loss weighs tokens and conversations"},
    )
    router_weight: float | None = field(
        default=None,
        metadata={
            "help": "weight of the loss that spreads tokens over experts, in mixtures of experts; "
            "default: the model's own"
        },
    )
    mixed_group: int = field(
        default=32, metadata={"help": "conversations whose tokens 'mixed' weighs the same"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "generative", tuple(self.generative))
        check_option("temperature", self.temperature, self.temperature > 0, "must be above 0")
        check_option("negatives", self.negatives, self.negatives >= 0, "must be 0 or more")
        check_one_of("aggregation", self.aggregation, Aggregation)
        if self.chat_format is not None:
            check_one_of("chat_format", self.chat_format, ChatFormat)
        for name in ("generative_batch_size", "mixed_group", *_LENGTHS):
            check_option(name, getattr(self, name), getattr(self, name) >= 1, "must be 1 or more")
        for name in ("embedding_weight", "generative_weight", "router_weight"):
            value = getattr(self, name)
            check_option(name, value, value is None or value >= 0, "must be 0 or more")
        if not self.embedding_weight and not self.generative_weight:
            raise ValueError(
                "embedding_weight and generative_weight are both 0: nothing is trained"
            )
        if self.generative_weight and not self.generative:
            raise ValueError(
                f"generative_weight={self.generative_weight} needs generative data: name files of "
                "conversations, or set it to 0"
            )
        if self.save == "adapter":
            raise ValueError("save='adapter' has no language-model head: use save='merged'")


_LENGTHS = ("query_length", "passage_length", "generative_length")


class _Stage:
    """GRIT, as the loop asks for it."""

    name = "grit"

    def __init__(self, options: GRIT) -> None:
        self._options, self.budget = options, options.batch_tokens or MOST
        self._lengths = Lengths(options.query_length, options.passage_length)
        self._data = BothData(
            sources_of(options.data) if options.embedding_weight else (),
            sources_of(options.generative) if options.generative_weight else (),
            sizes=(options.batch_size, options.generative_batch_size),
            negatives=options.negatives,
            instruction=options.instruction,
            epochs=options.epochs,
            seed=options.seed,
            known=counted(options),
        )
        self.updates = self._data.updates
        self._trained = load_backbone_for_training(
            options, GRIT_RECIPE, trains_heads=bool(options.embedding_weight)
        )
        most = self._trained.positions
        for name in _LENGTHS:
            length = getattr(options, name)
            check_option(
                name, length, length <= most, f"exceeds the model's {most} positions: lower it"
            )
        self._chat = chat_for(options.model, self._trained.tokenizer, options.chat_format)
        head = load_head(options, self._trained.backbone)
        if options.lora is None:
            head.weight.requires_grad_(bool(options.generative_weight))
        self._encoding = Encoding(
            self._trained.backbone, self._trained.recipe, head=self._trained.head
        )
        with torch.no_grad():  # a backbone whose direction is fixed is refused here
            self._encoding.hidden([[0]], causal=True)
        self._model = UnifiedModel(self._encoding, head)
        self.model: torch.nn.Module = self._model
        own: float = getattr(self._trained.backbone.config, "router_aux_loss_coef", 0.0)
        self._router_weight = own if options.router_weight is None else options.router_weight
        self._false_negatives = FalseNegatives()

    def batches(self, start: int) -> Iterator[Both]:
        """Pairs and conversations, without end: the loop stops after `updates`."""
        return self._data.batches(start)

    def update(self, accelerator: Accelerator, model: torch.nn.Module, batch: Both) -> Progress:
        """Backward passes of both losses, the one that uses all weights (with the head) last."""
        losses, tokens = {"loss": 0.0}, 0
        for name, part in (("embedding", self._embed), ("generative", self._generate)):
            if batch.pairs if name == "embedding" else batch.conversations:
                losses[name], count = part(accelerator, model, batch)
                losses["loss"] += getattr(self._options, f"{name}_weight") * losses[name]
                tokens += count
        if batch.pairs and not self._options.skip_duplicates:
            losses["false_negatives"] = self._false_negatives.share(
                batch.pairs, warn=accelerator.is_main_process
            )
        return Progress(losses, tokens, len(batch.pairs) + len(batch.conversations))

    def _embed(
        self, accelerator: Accelerator, model: torch.nn.Module, batch: Both
    ) -> tuple[float, int]:
        """Backward pass of the contrastive loss; returns the loss and the number of tokens."""
        options = self._options
        share = partial(shared, accelerator)
        rows = tokenize_pairs(self._trained, batch.pairs, self._lengths, share)
        ids, starts = [row.ids for row in rows], [row.start for row in rows]
        targets = targets_of(batch.pairs)
        known = known_answers(batch.pairs) if options.skip_duplicates else None

        def loss(vectors: torch.Tensor) -> Mapping[str, torch.Tensor]:
            unit = normalize(vectors, dim=-1)
            queries, passages = unit[: len(targets)], unit[len(targets) :]
            found = info_nce(
                queries,
                passages,
                torch.tensor(targets, device=unit.device),
                temperature=options.temperature,
                known=None if known is None else known.to(unit.device),
            )
            return {"loss": options.embedding_weight * found, "embedding": found}

        last = not batch.conversations
        found = backward_vectors(
            accelerator, model, ids, starts, loss, budget=self.budget, last=last
        )
        return found["embedding"], sum(map(len, ids))

    def _generate(
        self, accelerator: Accelerator, model: torch.nn.Module, batch: Both
    ) -> tuple[float, int]:
        """Backward pass of the language-model loss; returns it and the number of tokens."""
        options = self._options
        tokenizer, recipe = self._trained.tokenizer, self._trained.recipe

        def tokenize(part: Sequence[Conversation]) -> list[tuple[list[int], list[int]]]:
            limit, chat = options.generative_length, self._chat
            return [tokenize_conversation(tokenizer, recipe, one, limit, chat) for one in part]

        found = shared(accelerator, batch.conversations, tokenize)
        lengths = [len(ids) for ids, _ in found]
        counts = [len(learnt(labels)) for _, labels in found]
        weights = generative_weights(counts, options.aggregation, group=options.mixed_group)

        def loss(chunk: list[int]) -> torch.Tensor:
            rows, labels = zip(*(found[row] for row in chunk), strict=True)
            total: torch.Tensor = model(
                rows, labels=labels, weights=[weights[row] for row in chunk], balance=balance
            )
            return options.generative_weight * total

        chunks = plan(lengths, self.budget, accelerator.num_processes)
        own = chunks[accelerator.process_index]
        balance = self._model.balance(
            accelerator,
            model,
            [[found[row][0] for row in chunk] for chunk in own],
            self._router_weight / options.generative_weight,
        )
        total = backward_sum(accelerator, model, own, loss)
        return total / options.generative_weight, sum(lengths)

    def save(self, model: torch.nn.Module, directory: Path) -> None:
        """Write the causal language model of backbone and head."""
        assert isinstance(model, UnifiedModel)
        trained = model.encoding.put_into(self._trained)
        chat = self._chat if self._options.generative_weight else None
        save_result(self._options, trained, directory, head=model.head, generates=True, chat=chat)

    def encode(self, model: torch.nn.Module, texts: list[str], role: Role) -> Vectors:
        """Vectors `[texts, dim]`, float32, by the model as trained so far."""
        return encode_texts(model, self._trained, texts, role, budget=self.budget)

    def facts(self) -> Mapping[str, object]:
        """Where the method comes from, and the fingerprint of the data."""
        return {
            "source": _SOURCE,
            "batches": self._encoding.packing,
            "data": self._data.fingerprint(),
        }
