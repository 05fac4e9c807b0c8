"""One checkpoint through this package and through the stock libraries, compared."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llm_embeddings import Encoder, Recipe

from .random_checkpoints import ODD_TEXTS, TEXTS, Plan

ALL_TEXTS = [*TEXTS, *ODD_TEXTS]
ALLOWED = 2e-4  # of a vector's length; float32, two layers of random weights
_Vectors = list[NDArray[np.float32] | None]


@dataclass(frozen=True)
class Outcome:
    """What became of a checkpoint.

    Attributes:
        verdict: "equal", "refused", "WRONG" or "no reference".
        reason: Why it was refused or is wrong.
    """

    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class _Stock:
    """What the stock libraries make of a checkpoint: each way to embed, by name.

    Attributes:
        ways: Name -> texts to vectors.
        recipe: What this package is told beside the folder.
    """

    ways: dict[str, Callable[[list[str]], Any]]
    recipe: Recipe | str | None = None


def compare(
    plan: Plan, path: Path, texts: Sequence[str] = ALL_TEXTS, *, save_to: Path | None = None
) -> Outcome:
    """Vectors of both, each text of the reference alone.

    Args:
        plan: What lies in `path`.
        path: The checkpoint.
        texts: What is embedded.
        save_to: Where the model is saved and loaded again, too.
    """
    try:
        stock = _stock(plan, path)
        wanted = {name: _each(way, texts) for name, way in stock.ways.items()}
    except Exception as error:
        return Outcome("no reference", _short(error))
    if not any(vector is not None for vectors in wanted.values() for vector in vectors):
        return Outcome("no reference", "no text can be embedded")
    try:
        ours = Encoder.from_pretrained(path, dtype="float32", recipe=stock.recipe)
        with closing(ours):
            fault = _fault(ours, wanted, texts)
            if fault is None and save_to is not None:
                ours.save_pretrained(save_to)
                with closing(Encoder.from_pretrained(save_to, dtype="float32")) as again:
                    fault = _fault(again, wanted, texts)
                    fault = fault and f"saved and loaded again: {fault}"
    except (ValueError, FileNotFoundError) as error:
        return Outcome("refused", _short(error))
    except Exception as error:
        return Outcome("WRONG", f"crashed: {_short(error)}")
    return Outcome("WRONG", fault) if fault else Outcome("equal")


def _fault(ours: Encoder, wanted: dict[str, _Vectors], texts: Sequence[str]) -> str | None:
    """How the vectors of a model differ, all texts together and each alone."""
    ways = _our_ways(ours, [name.removeprefix("prompt ") for name in wanted if "prompt" in name])
    for name, vectors in wanted.items():
        kept = [text for text, vector in zip(texts, vectors, strict=True) if vector is not None]
        reference = [vector for vector in vectors if vector is not None]
        if name not in ways or not kept:
            continue
        for batch in ("together", "alone"):
            found = ways[name](kept) if batch == "together" else [ways[name]([t])[0] for t in kept]
            for text, a, b in zip(kept, found, reference, strict=True):
                if len(a) != len(b):
                    return f"{name}: {len(a)} dimensions instead of {len(b)}"
                off = float(np.abs(a - b).max()) / max(float(np.linalg.norm(b)), 1e-6)
                if not off < ALLOWED:
                    return f"{name}, {batch}, {text[:20]!r}: differs by {off:.2g}"
    return None


def _our_ways(ours: Encoder, names: Sequence[str]) -> dict[str, Callable[[list[str]], Any]]:
    """The same names as those of the reference, where this package has them."""
    ways: dict[str, Callable[[list[str]], Any]] = {
        "query": ours.encode_query,
        "document": ours.encode_document,
    }
    encode: Any = ours.encode
    if "prompt_name" in inspect.signature(encode).parameters:
        for name in names:
            ways[f"prompt {name}"] = lambda texts, name=name: encode(texts, prompt_name=name)
    return ways


def _stock(plan: Plan, path: Path) -> _Stock:
    if plan.modules is None:
        return _bare(plan, path)
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(
        str(path), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True
    )
    quiet = {"batch_size": 1, "show_progress_bar": False}
    ways = {
        "query": lambda texts: model.encode_query(texts, **quiet),
        "document": lambda texts: model.encode_document(texts, **quiet),
    }
    for name in plan.modules.prompts:
        ways[f"prompt {name}"] = lambda texts, name=name: model.encode(
            texts, prompt_name=name, **quiet
        )
    return _Stock(ways)


def _each(way: Callable[[list[str]], Any], texts: Sequence[str]) -> _Vectors:
    """Vectors; None for a text that the reference cannot embed."""
    try:
        found: _Vectors = list(way(list(texts)))
    except Exception:
        found = [_one(way, text) for text in texts]
    return [v if v is not None and np.isfinite(v).all() else None for v in found]


def _one(way: Callable[[list[str]], Any], text: str) -> NDArray[np.float32] | None:
    try:
        return way([text])[0]  # type: ignore[no-any-return]
    except Exception:
        return None


def _bare(plan: Plan, path: Path) -> _Stock:
    """A folder of transformers or peft, used by a plain recipe: the pooling written out.

    Tokens are those of its tokenizer.json, first the one that it puts itself or its files ask for,
    and attention goes as its config makes it go.
    """
    from transformers import AutoModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent / "backbone")
    model = AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    most = min(getattr(model.config, "max_position_embeddings", None) or 512, 512)
    last = plan.pooling != "mean"
    recipe: Recipe | str = plan.pooling
    begin = [tokenizer.bos_token_id]
    if plan.pooling != "recipe" and not plan.tokenizer.flags.get("add_bos_token"):
        whole, text = tokenizer("x")["input_ids"], tokenizer("x", add_special_tokens=False)
        begin = whole[: whole.index(text["input_ids"][0])][:1]
    if plan.pooling == "recipe":
        causal = _is_causal(model)
        recipe = Recipe(name="own", causal=causal, pooling="mean", bos=True, eos=True)

    @torch.inference_mode()
    def embed(texts: list[str]) -> NDArray[np.float32]:
        rows = []
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            end = [tokenizer.eos_token_id] if last else []
            ids = [*begin, *ids[: most - len(begin) - len(end)], *end]
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            pooled = states[-1] if plan.pooling == "last-token" else states.mean(0)
            rows.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
        return np.stack(rows)

    return _Stock({"query": embed, "document": embed}, recipe)


@torch.inference_mode()
def _is_causal(model: Any) -> bool:
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])
    first, second = model(input_ids=ids).last_hidden_state[:, :3]
    return bool(torch.allclose(first, second, atol=1e-4))


def _short(error: Exception) -> str:
    """A message that is the same for all checkpoints of its kind."""
    text = re.sub(r"(/[\w.-]+)+", "PATH", f"{type(error).__name__}: {error}")
    return " ".join(text.split())[:300]
