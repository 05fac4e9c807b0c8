"""A checkpoint against what sentence-transformers makes of the same directory."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ..arithmetic.memory import total_memory
from ..checkpoint.files import read_json, read_json_list
from ..recipe import Recipe, Role
from ..vectors import Vectors
from .report import Check, Status
from .subject import Subject, distance, dtype_of, samples, tolerance, vectors

if TYPE_CHECKING:
    from ..model import Model

NAME = "sentence-transformers on the same directory"
# Families that another package defines, and what sentence-transformers' modules do not do.
REFERENCES = {
    "llm2vec": "its reference is llm2vec: the instruction is read and not pooled, by a count of "
    "tokens that native modules do not make",
    "gritlm": "its reference is gritlm: both directions in one model, the prompt not pooled",
    "llara": "its reference is FlagEmbedding: the mean of the last eight tokens, joined apart",
    "repllama": "its reference is tevatron: an adapter without sentence-transformers' files",
    "bge-en-icl": "its reference is FlagEmbedding: no prompt can hold the suffix of its queries",
}
# Whose prompt has a name that encode_query does not look for, and whose limit here is the card's.
_ASKED = {"e5-mistral"}
_CARDS_LIMIT = {"e5-mistral", "qwen3-embedding"}
_LONGEST = 1024  # tokens of the longest sample: what is longer takes too long on a CPU
_OF_A_PROMPT = 4  # texts: a checkpoint may name a dozen prompts
_ENDS = 6  # token ids of each end that a report shows
_SPARE = 1.2  # of the weights' size: the pass needs memory as well


@dataclass(frozen=True, slots=True)
class Ours:
    """What one side of the comparison gave, so that the other can be loaded in its place.

    Attributes:
        recipe: How the vectors were made.
        limit: The model's limit in tokens.
        positions: Its positions, beyond which no limit says anything.
        max_length: Limit that both sides are given; None = each has its own.
        texts: What was embedded; the first is empty.
        found: `[n, dim]`, float32, by role and by name of a prompt, which has the first texts.
        ids: Token ids, as `found`.
        tolerance: How far apart two vectors may be, as a share of their length.
        dtype: What was computed in.
        device: Where.
        attention: The attention implementation.
        size: Bytes of the weights.
    """

    recipe: Recipe
    limit: int
    positions: int
    max_length: int | None
    texts: tuple[str, ...]
    found: Mapping[str, Vectors]
    ids: Mapping[str, Sequence[Sequence[int]]]
    tolerance: float
    dtype: str
    device: str
    attention: str | None
    size: int


def not_run(words: str) -> Check:
    """The check where there is nothing to compare with."""
    return Check(kind="peer", name=NAME, status="not run", words=words)


def failed(error: Exception) -> Check:
    """The check where the sample cannot be embedded here."""
    words = f"the sample fails here: {type(error).__name__}: {error}"
    return Check(kind="peer", name=NAME, status="different", words=words)


def reason_against(subject: Subject, directory: Path | None, *, added: bool) -> str | None:
    """Why sentence-transformers would not, or need not, give the same vectors; None = it must.

    Args:
        subject: The model.
        directory: Where it was loaded from; None = not known.
        added: Whether adapters were put on top of what lies there.
    """
    if directory is None:
        return "the directory that the model was loaded from is not known"
    family = subject.model.recipe.family
    if family in REFERENCES:
        return REFERENCES[family]
    path = directory / "modules.json"
    if not path.is_file():
        return f"{directory} has no modules.json: it is not in sentence-transformers' layout"
    types = [str(module.get("type")) for module in read_json_list(path)]
    if not all(name.startswith("sentence_transformers.") for name in types):
        return f"{path} names module classes from outside sentence-transformers, which are not run"
    if read_json(directory / "config.json").get("auto_map"):
        return "the checkpoint names remote code, which is not run: stock classes may do otherwise"
    if added:
        return "adapters were put on top of what lies in the directory"
    if subject.quantization_cosine is not None or hasattr(subject.model.backbone, "hf_quantizer"):
        return "the weights are quantised here and would not be there"
    if importlib.util.find_spec("sentence_transformers") is None:
        return "sentence-transformers is not installed: pip install sentence-transformers"
    return None


def ours(subject: Subject) -> Ours:
    """Our half: a sample of texts as queries and documents, some of it under every named prompt.

    The longest text is over the limit, if that is within what a CPU embeds in reasonable time.
    """
    model = subject.model
    listed = model.recipe.family in _CARDS_LIMIT
    limit = min(model.max_length, _LONGEST) if listed else None
    texts = (*samples()[:-1], "  Two  spaces, UPPER case\tand a line\nbreak ", _long(model))
    found: dict[str, Vectors] = {}
    ids: dict[str, list[list[int]]] = {}
    for role in (*get_args(Role), *dict(model.recipe.prompts)):
        some = texts if role in get_args(Role) else texts[:_OF_A_PROMPT]
        found[role] = vectors(subject, some, role, max_length=limit)
        ids[role] = [row.ids for row in model.rows(some, role, max_length=limit)]
    backbone = model.backbone
    return Ours(
        recipe=model.recipe,
        limit=model.max_length,
        positions=model.positions,
        max_length=limit,
        texts=texts,
        found=found,
        ids=ids,
        tolerance=tolerance(subject),
        dtype=dtype_of(subject),
        device=str(model.device),
        attention=getattr(backbone.config, "_attn_implementation", None),
        size=sum(weight.nbytes for weight in backbone.parameters()),
    )


def _long(model: Model) -> str:
    """A text over the model's limit or of about `_LONGEST` tokens, whichever is less."""
    text = samples()[-1]
    while True:
        row = model.rows([text], "document")[0]
        if row.cut or len(row.ids) >= _LONGEST:
            return text
        text = f"{text} {text}"


def has_room(made: Ours) -> bool:
    """Whether a second copy of the weights fits in memory beside the first."""
    import torch

    needed = int(_SPARE * made.size)
    if made.device.startswith("cuda"):
        return torch.cuda.mem_get_info(made.device)[0] > needed
    return total_memory() > made.size + needed


def compare(made: Ours, directory: Path) -> Check:
    """The other half, one text at a time, and what came of it."""
    import torch
    from sentence_transformers import SentenceTransformer

    try:
        theirs: Any = SentenceTransformer(
            str(directory),
            device=made.device,
            local_files_only=True,
            model_kwargs={
                "dtype": getattr(torch, made.dtype),
                "attn_implementation": made.attention,
            },
        )
        if made.max_length is not None:
            theirs.max_seq_length = made.max_length
        return _compared(made, theirs, directory)
    except (OSError, ValueError, RuntimeError, ImportError, TypeError, KeyError) as error:
        return not_run(f"sentence-transformers cannot run it: {type(error).__name__}: {error}")


def _compared(made: Ours, theirs: Any, directory: Path) -> Check:
    """Limits, closing tokens, then vectors; the largest deviation decides."""
    problem = _other_limit(made, theirs)
    if problem:
        return Check(kind="peer", name=NAME, status="different", words=problem)
    problem = _lost_end(made, theirs, directory)
    if problem:
        return not_run(problem)
    offs: dict[tuple[str, int], float] = {}
    for role, rows in made.found.items():
        for index, found in enumerate(rows):
            wanted = _vector(theirs, made, role, made.texts[index])
            if wanted is not None:
                same = found.shape == wanted.shape
                offs[role, index] = distance(found[None], wanted[None]) if same else 1.0
    if not offs:
        return not_run("sentence-transformers has a defined vector for none of the sample's texts")
    (role, index), worst = max(offs.items(), key=lambda item: item[1])
    status: Status = "different" if worst > made.tolerance else "equal"
    words = [f"{len(offs)} vectors of {', '.join(made.found)}, one at a time on its side"]
    if len(offs) < sum(map(len, made.found.values())):
        words.append("texts are left out for which it has no defined vector")
    if status == "different":
        words.append(
            f"largest for text {index} as a {role}, {_ids_differ(made, theirs, role, index)}"
        )
    return Check(
        kind="peer",
        name=NAME,
        status=status,
        words="; ".join(words),
        deviation=worst,
        tolerance=made.tolerance,
    )


def _vector(theirs: Any, made: Ours, role: str, text: str) -> Vectors | None:
    """Its vector `[dim]`; None = it has no such prompt, or no defined vector (empty texts)."""
    options = {"batch_size": 1, "show_progress_bar": False}
    try:
        if made.recipe.family in _ASKED:
            found = theirs.encode([text], prompt=made.recipe.prefix(role), **options)
        elif role in get_args(Role):
            found = getattr(theirs, f"encode_{role}")([text], **options)
        elif role not in (theirs.prompts or {}):
            return None
        else:
            found = theirs.encode([text], prompt_name=role, **options)
    except (RuntimeError, ValueError, IndexError):
        if text:
            raise
        return None
    vector: Vectors = np.asarray(found[0], np.float32)
    return vector if bool(np.isfinite(vector).all()) and bool(vector.any()) else None


def _other_limit(made: Ours, theirs: Any) -> str | None:
    """Whether long texts are cut elsewhere; the sample need not be long enough to show it."""
    limit = theirs.max_seq_length
    if made.max_length is not None or not isinstance(limit, int):
        return None
    limit = min(limit, made.positions)
    return f"limit of {made.limit} tokens here, {limit} there" if limit != made.limit else None


def _lost_end(made: Ours, theirs: Any, directory: Path) -> str | None:
    """Whether its tokenizer leaves out the closing token that the recipe or a flag asks for."""
    asked = read_json(directory / "tokenizer_config.json").get("add_eos_token")
    if not made.recipe.eos or not (asked or made.recipe.family in _CARDS_LIMIT):
        return None
    ids, closing = _ids(theirs, made, "document", made.texts[1]), made.ids["document"][1][-1]
    if not ids or ids[-1] == closing:
        return None
    return (
        f"the tokenizer there leaves out the closing token (id {closing}) that the checkpoint asks "
        "for: transformers 5 drops it"
    )


def _ids_differ(made: Ours, theirs: Any, role: str, index: int) -> str:
    """Whether token ids are the reason, in words."""
    here, there = list(made.ids[role][index]), _ids(theirs, made, role, made.texts[index])
    if there is None or here == there:
        return "whose token ids are the same" if there else "whose token ids there are not known"
    return f"whose token ids are {_short(here)} here and {_short(there)} there"


def _ids(theirs: Any, made: Ours, role: str, text: str) -> list[int] | None:
    """What it feeds the model; None = it does not say."""
    asked = made.recipe.family in _ASKED
    prompt = made.recipe.prefix(role) if asked else (theirs.prompts or {}).get(role)
    try:
        return [int(number) for number in theirs.preprocess([text], prompt=prompt)["input_ids"][0]]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _short(ids: list[int]) -> str:
    """Both ends of a sequence, and its length."""
    shown = ids if len(ids) <= 2 * _ENDS else [*ids[:_ENDS], "...", *ids[-_ENDS:]]
    return f"{' '.join(map(str, shown))} ({len(ids)})"
