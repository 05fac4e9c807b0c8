"""Recipe: how one checkpoint turns a text into a vector. Pure data; knows no tensor.

Families of LLM embedders differ in the values below and not in control flow, so one frozen
dataclass describes them all (`llm_embeddings.families` holds one recipe per checkpoint).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .faces import init_checked

Role = Literal["query", "document"]
Pooling = Literal[
    "last_token", "mean", "weighted_mean", "first_token", "last_k_mean", "max", "mean_sqrt_length"
]
HeadKind = Literal["dense", "layer_norm", "normalize", "truncate", "tanh_int8"]
PoolSpan = Literal["all", "text", "behind_prompt"]
Join = Literal["string", "segments"]
Truncate = Literal["end", "text", "text_ids"]
Window = Literal["keep", "drop"]
SENTENCE_TRANSFORMERS = "sentence-transformers"  # family of what only its files describe


def check_types(values: Any, what: str) -> None:
    """The fields of a dataclass have the types that are written beside them.

    Raises:
        ValueError: one has another; `what` and its name are told.
    """
    kind: Any = type(values)
    for field, hint in _hints(kind).items():
        value = getattr(values, field)
        if not _has_type(value, hint):
            raise ValueError(f"{what}: {field}={value!r:.80} is not of type {hint}")


_hints = functools.cache(get_type_hints)


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says: True is no number here, nor 1 a truth value."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in inner
    if kind is tuple:
        if not isinstance(value, tuple):
            return False
        parts = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        return len(parts) == len(value) and all(map(_has_type, value, parts))
    if kind is not None:  # of several types
        return any(_has_type(value, one) for one in inner)
    return type(value) is hint if hint in (bool, int) else isinstance(value, hint)


@dataclass(frozen=True, slots=True)
class Template:
    """What stands around a text.

    Attributes:
        prefix: Put before the text. `{instruction}` in it is replaced by the instruction.
        suffix: Put after the text.
        bare: The prefix when there is no instruction; used only if `prefix` has `{instruction}`.
        trims: Whether a text loses the white space around it, as in many chat templates.
    """

    prefix: str = ""
    suffix: str = ""
    bare: str = ""
    trims: bool = False

    def __post_init__(self) -> None:
        check_types(self, "a recipe's template")

    @property
    def takes_instruction(self) -> bool:
        """Whether the prefix has a place for an instruction."""
        return "{instruction}" in self.prefix

    def render_prefix(self, instruction: str) -> str:
        """The prefix for `instruction` ("" = none).

        Raises:
            ValueError: an instruction is given and the template has no place for it.
        """
        if not self.takes_instruction:
            if instruction:
                raise ValueError(
                    f"instruction {instruction!r} has no place in the template {self.prefix!r}: "
                    "leave it out, or pass a recipe whose template holds '{instruction}'"
                )
            return self.prefix
        return self.prefix.replace("{instruction}", instruction) if instruction else self.bare


@init_checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A layer between the pooled states and the vector, as sentence-transformers has them.

    Attributes:
        kind: "dense" is a linear layer and an activation; "layer_norm"; "normalize" gives unit L2
            length before what follows; "truncate" keeps the first `width` values; "tanh_int8" gives
            the integers nearest to 127 times the hyperbolic tangent.
        width: Length of what comes out; of no matter for "normalize" and "tanh_int8".
        activation: Class of `torch.nn` behind a dense layer.
        bias: Whether a dense layer adds one.
        residual: Whether a dense layer's input is added to what comes out, by a linear map without
            bias where the lengths differ.
    """

    kind: HeadKind
    width: int | None = None
    activation: str = "Identity"
    bias: bool = True
    residual: bool = False

    def __post_init__(self) -> None:
        check_types(self, "a recipe's head")
        sized = self.kind not in ("normalize", "tanh_int8")
        if sized and (self.width is None or self.width < 1):
            raise ValueError(f"a {self.kind} head's width={self.width!r} must be 1 or more")

    def length(self, given: int) -> int:
        """Length of what comes out of vectors of a given length."""
        if self.kind == "truncate":
            return min(given, self.width or given)
        return self.width or given


@init_checked
@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a checkpoint turns a text into a vector.

    Attributes:
        name: Hub id of the checkpoint, or a free name.
        family: Which file in `llm_embeddings.families` it belongs to.
        causal: Attention direction while embedding; False lets every token see all others.
        window: What becomes of a sliding window in the config; LLM2Vec and GritLM "drop" it.
        pooling: Which hidden states (after the final norm) become the vector: "last_token" and
            "first_token" of the whole sequence, "mean" and "weighted_mean" (weights 1..n) over the
            pooled span, "last_k_mean" = mean over the last `last_k` tokens of the sequence, "max"
            and "mean_sqrt_length" (the sum over the root of the length) over the span; several are
            put behind each other.
        last_k: Number of tokens of "last_k_mean".
        pool_span: What the means run over: "all" tokens, or the "text" without BOS and prefix.
            A span that would be empty is the whole sequence. "behind_prompt" is
            sentence-transformers' `include_prompt = false`: the same tokens, the first of which is
            the "first_token", and zeros where there are none.
        heads: What follows the pooling, in this order.
        query: Template of queries.
        document: Template of documents.
        instruction: Instruction of a query when none is given; documents never get one unasked.
        prompts: More templates, (name, template) each, for `prompt_name`.
        bos: Token put first: True = the tokenizer's own, a string = that token, False = none,
            None = what the tokenizer's files put there, read when the checkpoint is loaded.
        eos: Token put last, never truncated; values as for `bos`.
        normalize: Whether vectors have unit L2 length by default.
        max_length: Limit in tokens: of the whole sequence, or of the text if `join` is "segments".
        max_text_length: LLM2Vec's limit of the text alone, reached by dropping whole words.
        join: How prefix, text and suffix are tokenised: as one "string" or as "segments" apart.
        truncate: What a sequence over `max_length` loses: its "end" (suffix included), "text" that
            is then tokenised anew, or "text_ids", the last ids before those of the suffix.
        separator: LLM2Vec's mark between instruction and text. It is removed from the text, and as
            many last tokens are pooled as the text before the mark has when tokenised alone.
        required_tokens: Strings that must be single entries of the vocabulary.
        base: Checkpoint an adapter goes on, where its `adapter_config.json` names another one.
        source: Where these facts come from.
    """

    name: str
    family: str = "custom"
    causal: bool
    window: Window = "keep"
    pooling: Pooling | tuple[Pooling, ...]
    last_k: int | None = None
    pool_span: PoolSpan = "all"
    heads: tuple[Head, ...] = ()
    query: Template = Template()
    document: Template = Template()
    instruction: str = ""
    prompts: tuple[tuple[str, Template], ...] = ()
    bos: bool | str | None = True
    eos: bool | str | None = False
    normalize: bool = True
    max_length: int = 512
    max_text_length: int | None = None
    join: Join = "string"
    truncate: Truncate = "end"
    separator: str | None = None
    required_tokens: tuple[str, ...] = ()
    base: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        unknown = [mode for mode in self.poolings if mode not in get_args(Pooling)]
        if unknown or not self.poolings:
            raise ValueError(
                f"recipe {self.name!r}: pooling={self.pooling!r} is not one of {get_args(Pooling)}"
            )
        if ("last_k_mean" in self.poolings) != (self.last_k is not None):
            raise ValueError(f"recipe {self.name!r}: last_k goes with pooling='last_k_mean'")
        for field in ("last_k", "max_length", "max_text_length"):
            value = getattr(self, field)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"recipe {self.name!r}: {field}={value!r} must be 1 or more")
        if self.instruction and not self.query.takes_instruction:
            raise ValueError(
                f"recipe {self.name!r}: the query template has no '{{instruction}}' for the "
                f"default instruction {self.instruction!r}"
            )
        check_types(self, f"recipe {self.name!r}")

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """All poolings, whose vectors are put behind each other."""
        return (self.pooling,) if isinstance(self.pooling, str) else self.pooling

    def template(self, role: str) -> Template:
        """The template of a role, or of a prompt by its name.

        Raises:
            ValueError: there is none of that name.
        """
        templates = {**dict(self.prompts), "query": self.query, "document": self.document}
        if role not in templates:
            names = (*get_args(Role), *dict(self.prompts))
            raise ValueError(f"role or prompt {role!r} is not one of {names}")
        return templates[role]

    def resolve_instruction(self, role: str, instruction: str | None) -> str:
        """The instruction that is used: the given one, else the default of queries, else "".

        Where there is a `separator` (LLM2Vec) it is stripped, and loses separators in it.
        """
        if instruction is None:
            instruction = self.instruction if role == "query" else ""
        if not isinstance(instruction, str):
            raise TypeError(f"instruction must be a string, not {type(instruction).__name__}")
        if self.separator:
            instruction = instruction.strip().replace(self.separator, "")
        return instruction

    def prefix(self, role: str, instruction: str | None = None) -> str:
        """What stands before a text of `role`, the instruction filled in.

        Raises:
            ValueError: no such role or prompt, or an instruction without a place in the template.
        """
        template = self.template(role)
        return template.render_prefix(self.resolve_instruction(role, instruction))

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed; an unknown field is a `TypeError`."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON-ready values; `from_dict` reads it back."""
        values = dataclasses.asdict(self)
        return {**values, "prompts": dict(values["prompts"])}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Build a recipe from `to_dict`'s values.

        Raises:
            ValueError: an unknown key (the nearest known one is named) or a bad value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {known}"
                raise ValueError(f"unknown recipe key {key!r}{hint}")
        values = dict(values)
        try:
            for role in get_args(Role):
                if isinstance(values.get(role), dict):
                    values[role] = Template(**values[role])
            for field, made in _MADE.items():
                if isinstance(values.get(field), dict | list | tuple):
                    values[field] = made(values[field])
            return cls(**values)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"not the fields of a recipe: {error}") from error


_MADE: dict[str, Callable[[Any], Any]] = {  # from JSON
    "required_tokens": tuple,
    "pooling": lambda value: value if isinstance(value, str) else tuple(value),
    "heads": lambda value: tuple(Head(**head) for head in value),
    "prompts": lambda value: tuple((name, Template(**part)) for name, part in value.items()),
}
