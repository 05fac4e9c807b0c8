"""Options that all stages share, checked before any work starts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..faces import init_checked
from ..recipe import Recipe

Schedule = Literal["linear", "cosine", "constant"]
Dtype = Literal["auto", "bfloat16", "float32"]
Saved = Literal["adapter", "merged"]
Quantized = Literal["int8", "nf4"]


def check_option(name: str, value: object, accepted: bool, remedy: str) -> None:
    """Check an option.

    Raises:
        ValueError: `accepted` is false; the message names the option, its value and the remedy.
    """
    if not accepted:
        raise ValueError(f"{name}={value!r} {remedy}")


def check_one_of(name: str, value: object, kind: Any) -> None:
    """Check that a value is one of those of a `Literal`.

    Raises:
        ValueError: it is not; the message lists them.
    """
    check_option(name, value, value in get_args(kind), f"is not one of {get_args(kind)}")


@init_checked
@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOptions:
    """Options of low-rank adapters (Hu et al. 2021, arXiv 2106.09685); LLM2Vec's defaults."""

    rank: int = field(default=16, metadata={"help": "rank of each update"})
    alpha: float = field(default=32.0, metadata={"help": "updates are scaled by alpha / rank"})
    dropout: float = field(default=0.05, metadata={"help": "dropout on what enters an adapter"})
    targets: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "names of the linear layers that get an adapter; default: all of the decoder"
        },
    )

    def __post_init__(self) -> None:
        check_option("lora rank", self.rank, self.rank >= 1, "must be 1 or more")
        check_option("lora alpha", self.alpha, self.alpha > 0, "must be above 0")
        check_option("lora dropout", self.dropout, 0 <= self.dropout < 1, "must be in [0, 1)")
        object.__setattr__(self, "targets", tuple(self.targets))


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """Options of every stage. A stage's own dataclass adds to them and sets its defaults.

    The `help` in a field's metadata says what it is, here and on the command line.

    Raises:
        ValueError: a value that cannot be; the message names it and the remedy.
    """

    model: str = field(metadata={"help": "hub id or directory of the model to start from"})
    output: Path = field(
        metadata={"help": "directory of the result; checkpoints lie in it while training runs"}
    )
    data: tuple[Any, ...] = field(metadata={"help": "files, each a path or path@weight"})
    recipe: Recipe | str | None = field(
        default=None,
        metadata={
            "help": "how the result embeds text, by name; without, the model's own or the stage's"
        },
    )
    max_steps: int | None = field(default=1000, metadata={"help": "most updates"})
    epochs: int | None = field(
        default=None,
        metadata={"help": "passes over the data; whichever of this and max_steps ends first"},
    )
    batch_size: int = field(
        default=32, metadata={"help": "examples per update, all processes together"}
    )
    batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "tokens per pass of one process, which change no result; "
            "default: what the free memory holds, 8192 at most"
        },
    )
    learning_rate: float = field(default=5e-5, metadata={"help": "peak learning rate"})
    warmup: float = field(
        default=0.0, metadata={"help": "updates of linear warm-up; below 1, their share of all"}
    )
    schedule: Schedule = field(
        default="linear", metadata={"help": "how the learning rate goes on after the warm-up"}
    )
    schedule_steps: int | None = field(
        default=None,
        metadata={
            "help": "updates the schedule is planned for, where training stops before its end"
        },
    )
    weight_decay: float = field(
        default=0.0, metadata={"help": "AdamW's weight decay, on matrices only"}
    )
    beta1: float = field(default=0.9, metadata={"help": "AdamW's first beta"})
    beta2: float = field(default=0.999, metadata={"help": "AdamW's second beta"})
    max_grad_norm: float = field(
        default=1.0, metadata={"help": "gradients are clipped to this norm; 0 = never"}
    )
    lora: LoraOptions | None = field(
        default_factory=LoraOptions,
        metadata={"help": "train low-rank adapters; without, all weights"},
    )
    dtype: Dtype = field(
        default="auto",
        metadata={
            "help": "of frozen weights and of the arithmetic; trained weights are float32; "
            "auto = weights as stored, arithmetic in bfloat16 where the processor has it"
        },
    )
    quantization: Quantized | None = field(
        default=None,
        metadata={
            "help": "keep frozen weights in 8 bits (int8) or 4 (nf4), by bitsandbytes; needs lora "
            "and save=adapter"
        },
    )
    gradient_checkpointing: bool = field(
        default=False, metadata={"help": "save memory by computing activations twice"}
    )
    seed: int = field(default=42, metadata={"help": "of everything random"})
    log_every: int = field(default=10, metadata={"help": "updates between lines of metrics"})
    save_every: int | None = field(
        default=None, metadata={"help": "updates between checkpoints; without, none before the end"}
    )
    keep: int = field(default=2, metadata={"help": "how many checkpoints are kept"})
    evaluation: tuple[str, ...] = field(default=(), metadata={"help": "files to evaluate on"})
    eval_every: int | None = field(
        default=None, metadata={"help": "updates between evaluations; without, at the end only"}
    )
    save: Saved = field(
        default="merged",
        metadata={"help": "save a LoRA result as an adapter, or merged into the weights"},
    )
    resume: bool = field(
        default=False,
        metadata={"help": "go on from the newest checkpoint in output, if there is one"},
    )
    tensorboard: bool = field(default=False, metadata={"help": "also write TensorBoard files"})
    curve: bool = field(
        default=False, metadata={"help": "also draw losses and scores, as curve.png"}
    )
    show_progress: bool = field(default=True, metadata={"help": "show a progress bar"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", str(self.model))
        object.__setattr__(self, "output", Path(self.output))
        object.__setattr__(self, "data", as_tuple(self.data))
        object.__setattr__(self, "evaluation", as_tuple(self.evaluation))
        check_option("data", self.data, bool(self.data), "is empty: name at least one file")
        for name in _POSITIVE:
            value = getattr(self, name)
            check_option(name, value, value is None or value >= 1, "must be 1 or more")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            check_option(name, value, low <= value < high, f"must be in [{low:g}, {high:g})")
        check_option("learning_rate", self.learning_rate, self.learning_rate > 0, "must be above 0")
        for name, kind in (("schedule", Schedule), ("dtype", Dtype), ("save", Saved)):
            check_one_of(name, getattr(self, name), kind)
        if self.max_steps is None and self.epochs is None:
            raise ValueError("neither max_steps nor epochs says when to stop: give one of them")
        if self.save == "adapter" and self.lora is None:
            raise ValueError("save='adapter' needs lora: without it all weights are trained")
        if self.quantization is not None:
            check_one_of("quantization", self.quantization, Quantized)
            self._check_quantized(self.quantization)
        if self.eval_every is not None and not self.evaluation:
            raise ValueError(f"eval_every={self.eval_every} needs evaluation files to evaluate on")

    def _check_quantized(self, kind: Quantized) -> None:
        """Raise `ValueError` for what cannot be done with quantised weights."""
        if self.lora is None:
            raise ValueError(
                f"quantization={kind!r} needs lora: quantised weights cannot be trained themselves"
            )
        if self.save == "merged":
            raise ValueError(
                f"quantization={kind!r} needs save='adapter': rounded weights are not merged with "
                "it. Encoder.from_pretrained(output) merges it into the whole ones, and "
                "save_pretrained saves these"
            )

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON-ready values."""
        return {item.name: _plain(getattr(self, item.name)) for item in dataclasses.fields(self)}


def as_tuple(values: Any) -> tuple[Any, ...]:
    """Several values as a tuple; a path or a `Source` alone as a tuple of one."""
    many = isinstance(values, Iterable) and not isinstance(values, str | Path)
    return tuple(values) if many else (values,)


def _plain(value: Any) -> Any:
    """An option's value in JSON's types."""
    if isinstance(value, Recipe):
        return value.to_dict()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


_POSITIVE = (
    "max_steps",
    "epochs",
    "batch_size",
    "batch_tokens",
    "schedule_steps",
    "log_every",
    "save_every",
    "keep",
    "eval_every",
)
_RANGES = (
    ("warmup", 0.0, math.inf),
    ("weight_decay", 0.0, math.inf),
    ("max_grad_norm", 0.0, math.inf),
    ("beta1", 0.0, 1.0),
    ("beta2", 0.0, 1.0),
    ("seed", 0, 2**32),
)
