"""A sentence-transformers model made of an Encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sentence_transformers import SentenceTransformer

from llm_embeddings import Encoder
from llm_embeddings.inputs import names_checked

from .module import ROLES, EncoderModule


@names_checked
def as_sentence_transformer(
    encoder: Encoder,
    *,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    truncate_dim: int | None = None,
    similarity_fn_name: Literal["cosine", "dot", "euclidean", "manhattan"] = "cosine",
) -> SentenceTransformer:
    """A sentence-transformers model with the encoder's vectors; no `trust_remote_code` needed.

    The model shares the encoder's weights: training one trains the other. `encode_query` and
    `encode_document` use the recipe's templates; plain `encode` embeds documents.

    Args:
        encoder: What to wrap.
        prompts: Prompts by name, beside "query" and "document" (the recipe's prefixes) or in
            their place. A prompt stands verbatim where the recipe's prefix would.
        default_prompt_name: The prompt of plain `encode`; None = the recipe's document side.
        truncate_dim: Keep this many dimensions. sentence-transformers does not renormalise
            afterwards unless `normalize_embeddings=True` is passed to `encode`.
        similarity_fn_name: What `model.similarity` computes.

    Raises:
        ValueError: `default_prompt_name` is none of the prompts, or the prompt of a role is "",
            which sentence-transformers cannot tell from a prompt that nobody set.
    """
    module = EncoderModule(encoder)
    defaults: dict[str, str] = {
        name: module.default_prompt(name) for name in (*ROLES, *dict(encoder.recipe.prompts))
    }
    prompts = {**defaults, **(prompts or {})}
    for role, default in defaults.items():
        if default and not prompts[role]:
            raise ValueError(
                f"prompts[{role!r}] is empty: pass prompt='' or instruction='' to each call, or an "
                "encoder whose recipe has no default instruction"
            )
    return SentenceTransformer(
        modules=[module],
        device=str(encoder.device),
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        truncate_dim=truncate_dim,
        similarity_fn_name=similarity_fn_name,
    )
