"""Requests of Hugging Face's Text Embeddings Inference, as `huggingface_hub` sends them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic_core import to_json

from ... import __version__
from ..errors import tei_error
from ..request import Asked, Body, Cut, Side, Texts, TextsOrIds, cuts
from ..response import array
from .dialect import Dialect

if TYPE_CHECKING:
    from ...encoder import Encoder
    from ..service import Service


class EmbedAllRequest(Body):
    """The body of `POST /embed_all`."""

    inputs: TextsOrIds
    prompt_name: str | None = None
    truncate: Cut = None
    truncation_direction: Side = None

    def asked(self, **more: Any) -> Asked:
        """What it asks for."""
        return Asked(
            texts=self.inputs,
            kinds={"prompt_name": self.prompt_name},
            cut=cuts(self.truncate),
            field="inputs",
            **more,
        )


class EmbedRequest(EmbedAllRequest):
    """The body of `POST /embed`."""

    normalize: bool | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None


class Sentences(Body):
    """A text, and those that it is compared with."""

    source_sentence: str
    sentences: Texts


class Parameters(Body):
    """How the sentences are embedded."""

    prompt_name: str | None = None
    truncate: Cut = None
    truncation_direction: Side = None


class SimilarityRequest(Body):
    """The body of `POST /similarity`."""

    inputs: Sentences
    parameters: Parameters | None = None


async def _embed(service: Service, encoder: Encoder, body: EmbedRequest) -> bytes:
    said = (body.normalize, service.normalize)
    normalize = next((one for one in said if one is not None), True)  # TEI's default
    asked = body.asked(normalize=normalize, dimensions=body.dimensions)
    return await array((await service.embed(encoder, asked))[0])


async def _embed_all(service: Service, encoder: Encoder, body: EmbedAllRequest) -> bytes:
    rows = await service.embed_tokens(encoder, body.asked())
    return await array([one.vectors for one in rows])


async def _similarity(service: Service, encoder: Encoder, body: SimilarityRequest) -> bytes:
    options = body.parameters or Parameters()
    asked = Asked(
        texts=[body.inputs.source_sentence, *body.inputs.sentences],
        kinds={"prompt_name": options.prompt_name},
        normalize=True,
        cut=cuts(options.truncate),
        field="inputs.sentences",
    )
    vectors, _ = await service.embed(encoder, asked)
    return to_json((vectors[1:] @ vectors[0]).tolist())


def info(service: Service, encoder: Encoder) -> dict[str, object]:
    """What `GET /info` tells of the model and of the limits."""
    limits = service.limits
    return {
        "model_id": service.name,
        "model_sha": None,
        "model_dtype": str(encoder.model.dtype).removeprefix("torch."),
        "model_type": {"embedding": {"pooling": "+".join(encoder.recipe.poolings)}},
        "max_concurrent_requests": limits.queue_requests,
        "max_input_length": service.max_length(encoder),
        "max_batch_tokens": encoder.scheduler.runner.budget,
        "max_batch_requests": None,
        "max_client_batch_size": limits.inputs,
        "auto_truncate": True,
        "tokenization_workers": os.cpu_count(),
        "version": __version__,
    }


EMBED = Dialect(paths=("/embed", "/"), body=EmbedRequest, answer=_embed, error=tei_error)
EMBED_ALL = Dialect(paths=("/embed_all",), body=EmbedAllRequest, answer=_embed_all, error=tei_error)
SIMILARITY = Dialect(
    paths=("/similarity",), body=SimilarityRequest, answer=_similarity, error=tei_error
)
