"""The stage `llara`: eight tokens after a text learn to tell its words (LLaRA, Llama2Vec).

After the prompt SELF they tell the words of the text itself (the paper's EBAE), after the prompt
NEXT those of the text that follows (EBAR). The language-model loss on the text is trained too, to
keep what the model knows. Source: arXiv 2312.15503, with prompts, losses and weights of
FlagEmbedding's research/LLARA/pretrain at 7ed43d6, which differ from the paper's. The result does
not retrieve well yet: train it further by the stage `contrastive`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoint.detect import named
from ..checkpoint.ends import without_foreign_bos
from ..checkpoint.files import Source, find
from ..checkpoint.head_files import names_heads
from ..faces import init_checked
from ..families import llara, siblings
from ..model import Model
from ..recipe import Recipe, Role
from ..records.sources import sources_of
from ..vectors import Vectors
from .batches.mixture import Mixture
from .batches.passages import WORDS, Passage, read_passages
from .begun import counted
from .losses import LLARA_DIVISOR
from .options import LoraOptions, StageOptions, check_option
from .passes.encoding import Encoding, encode_texts
from .passes.gradcache import backward_sum, plan, shared
from .passes.joint import Joint, JointModel, check_recipe, joint_prompts, tokenize_joint
from .run.loop import run_stage
from .run.memory import MOST
from .run.stage import Progress
from .weights.head import load_head
from .weights.loading import load_backbone_for_training
from .weights.saving import save_result
from .weights.vocabulary import add_tokens

if TYPE_CHECKING:
    from accelerate import Accelerator

_SOURCE = "LLaRA, arXiv 2312.15503; FlagEmbedding research/LLARA/pretrain at 7ed43d6"
LLARA_RECIPE = llara.recipe("llara", _SOURCE).replace(bos=True)


def train_llara(options: LLaRA) -> Path:
    """Train by embedding-based auto-encoding and auto-regression.

    Returns:
        `options.output`, which both `Encoder` and transformers' `AutoModelForCausalLM` load.

    Raises:
        FileNotFoundError: the model or a data file is missing.
        TrainingError: training had to stop.
        ValueError: data, model or options that do not fit.
    """
    return run_stage(_Stage, options)


def _recipe(options: LLaRA) -> Recipe:
    """The recipe asked for, or that of a published LLaRA model, or `LLARA_RECIPE`."""
    found = named(options.model, options.recipe)
    if options.recipe is None and (found is None or found.family != LLARA_RECIPE.family):
        return LLARA_RECIPE
    assert found is not None
    return found


def _train_vocabulary(backbone: Any, head: torch.nn.Linear) -> None:
    """Make token embeddings and head trainable, in float32, even if the rest has LoRA adapters."""
    embedding = backbone.get_input_embeddings()
    tied = head.weight is embedding.weight
    embedding.weight = torch.nn.Parameter(embedding.weight.detach().float())
    weight = head.weight.detach().float()
    head.weight = embedding.weight if tied else torch.nn.Parameter(weight)


def _shares(rows: list[Joint], prefix: int) -> list[float]:
    """Factors of `JointModel`'s three sums, which give LLaRA's loss of the whole batch.

    That is the mean language-model loss of the texts' tokens plus a tenth of the mean bag-of-words
    loss of the prompts that have words (FlagEmbedding research/LLARA/pretrain at 7ed43d6). `prefix`
    is the number of ids before each text, which the language-model loss leaves out.
    """
    tokens = sum(len(row.ids) - prefix for row in rows)
    full = [sum(bool(row.summary) for row in rows), sum(bool(row.following) for row in rows)]
    bags = sum(bool(count) for count in full)
    shares = [1 / (count * bags * LLARA_DIVISOR) if count else 0.0 for count in full]
    return [1 / max(tokens, 1), *shares]


@init_checked
@dataclass(frozen=True, kw_only=True)
class LLaRA(StageOptions):
    """Teach a causal LLM to tell the words of a text, and of what follows, by eight tokens each.

    Defaults: arXiv 2312.15503 (10,000 updates of 256 passages, 1024 tokens, 1e-5) and the released
    README (warm-up, stop words left out).
    """

    batch_size: int = field(
        default=256, metadata={"help": "passages per update, all processes together"}
    )
    max_steps: int | None = field(default=10_000, metadata={"help": "most updates"})
    learning_rate: float = field(default=1e-5, metadata={"help": "peak learning rate"})
    warmup: float = field(
        default=0.1, metadata={"help": "updates of linear warm-up; below 1 their share"}
    )
    lora: LoraOptions | None = field(
        default=None,
        metadata={"help": "train low-rank adapters, embeddings and head; without, all weights"},
    )
    cutoff: int = field(default=1024, metadata={"help": "tokens of a text with both prompts"})
    stop_words: bool = field(
        default=False, metadata={"help": "keep English stop words in the targets"}
    )
    words: int = field(
        default=WORDS, metadata={"help": "words per passage, where data holds documents"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("words", self.words, self.words >= 1, "must be 1 or more")
        check_option(
            "save", self.save, self.save == "merged", "cannot hold new tokens: save merged"
        )


class _Stage:
    """LLaRA, as the loop asks for it."""

    name = "llara"

    def __init__(self, options: LLaRA) -> None:
        self._options, self.budget = options, options.batch_tokens or MOST
        recipe = _recipe(options)
        check_recipe(recipe)
        if recipe.heads or names_heads(find(options.model, Source())):
            raise ValueError(
                f"{options.model!r} or its recipe has heads, which llara neither trains nor keeps: "
                "start from a model without any, and add heads by the stage contrastive"
            )
        self._mixture: Mixture[Passage] = Mixture(
            sources_of(options.data),
            partial(read_passages, words=options.words),
            seed=options.seed,
            same_source=False,
            known=counted(options),
        )
        self.updates = self._mixture.updates(options.batch_size, options.epochs)
        # Loaded as a plain causal model: its own recipe may be bidirectional, and that of LLaRA
        # needs tokens that are added below.
        plain = dataclasses.replace(options, recipe=siblings.MEAN)
        loaded = load_backbone_for_training(plain)
        backbone, tokenizer = loaded.backbone, loaded.tokenizer
        head = load_head(options, backbone)
        add_tokens(tokenizer, backbone, head, recipe.required_tokens, seed=options.seed)
        if recipe is LLARA_RECIPE:
            recipe = without_foreign_bos(recipe, tokenizer)
        self._trained = Model(backbone, tokenizer, recipe)
        prompts = joint_prompts(tokenizer, recipe)
        check_option(
            "cutoff",
            options.cutoff,
            options.cutoff > prompts.tokens,
            f"leaves no room for a text: the prompts alone take {prompts.tokens} tokens",
        )
        most = self._trained.positions
        fits = options.cutoff <= most
        check_option(
            "cutoff", options.cutoff, fits, f"exceeds the model's {most} positions: lower it"
        )
        encoding = Encoding(backbone, recipe)
        with torch.no_grad():  # a backbone that cannot continue a text is refused here
            encoding.hidden([[0], [0]], parents=[None, 0])
        _train_vocabulary(backbone, head)  # last: the passes above need one dtype throughout
        self._model = JointModel(encoding, head, prompts)
        self.model: torch.nn.Module = self._model

    def batches(self, start: int) -> Iterator[list[Passage]]:
        """`batch_size` passages each."""
        options = self._options
        return self._mixture.batches(options.batch_size, start, epochs=options.epochs)

    def update(
        self, accelerator: Accelerator, model: torch.nn.Module, batch: list[Passage]
    ) -> Progress:
        """Backward pass of the three losses: one pass over each text with both prompts."""
        options, prompts = self._options, self._model.prompts
        tokenize = partial(
            tokenize_joint,
            self._trained.tokenizer,
            self._trained.recipe,
            prompts,
            cutoff=options.cutoff,
            stop_words=options.stop_words,
        )
        rows = shared(accelerator, batch, tokenize)
        tokens = [len(row.ids) + len(prompts.summary) + len(prompts.following) for row in rows]
        shares = torch.tensor(_shares(rows, len(prompts.prefix)), device=accelerator.device)
        parts = torch.zeros(3, device=accelerator.device)

        def loss(chunk: list[int]) -> torch.Tensor:
            weighted: torch.Tensor = model([rows[row] for row in chunk]) * shares
            parts.add_(weighted.detach())
            return weighted.sum()

        chunks = plan(tokens, self.budget, accelerator.num_processes)
        total = backward_sum(accelerator, model, chunks[accelerator.process_index], loss)
        reduced: Any = accelerator.reduce(parts, "sum")
        losses = dict(zip(("language", "summary", "following"), reduced.tolist(), strict=True))
        return Progress({"loss": total, **losses}, sum(tokens), len(batch))

    def save(self, model: torch.nn.Module, directory: Path) -> None:
        """Write the causal language model of backbone and head."""
        assert isinstance(model, JointModel)
        trained = dataclasses.replace(self._trained, backbone=model.encoding.backbone)
        save_result(self._options, trained, directory, head=model.head, generates=True)

    def encode(self, model: torch.nn.Module, texts: list[str], role: Role) -> Vectors:
        """Vectors `[texts, dim]`, float32, by the model as trained so far."""
        return encode_texts(model, self._trained, texts, role, budget=self.budget)

    def facts(self) -> Mapping[str, object]:
        """Where the method comes from, and the fingerprint of the data."""
        return {
            "source": _SOURCE,
            "batches": self._model.encoding.packing,
            "data": self._mixture.fingerprint(),
        }
