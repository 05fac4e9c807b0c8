"""What a request asks for -> its role, and its texts tokenised, or an error with the remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from ..encoder import Encoder
from ..inputs import EncodeKeywords
from ..recipe import Role
from ..streams import Prepared
from .errors import ApiError, shown
from .request import Asked
from .token_arrays import REMEDY, texts_of_arrays

_QUICK = 8192  # characters or ids; so few are tokenised faster than a thread is woken
# What clients of other services call the two roles.
_WORDS: dict[str, Role] = {
    "query": "query",
    "search_query": "query",
    "document": "document",
    "search_document": "document",
    "passage": "document",
}


def meaning(asked: Asked, named: Role | None, prompts: Collection[str]) -> tuple[Role, str | None]:
    """Role and prompt of a request, which its fields and the model's name say.

    Args:
        asked: The request.
        named: The role that the model's name stands for, if any.
        prompts: Names of the model's prompts, which go before words for roles.

    Raises:
        ApiError: 400, a word that means nothing here, or two roles.
    """
    said = {} if named is None else {"the model's name": named}
    prompt_name = None
    for field, word in asked.kinds.items():
        if word is None:
            continue
        if word in prompts and word not in ("query", "document"):
            prompt_name = word
        elif word in _WORDS:
            said[field] = _WORDS[word]
        else:
            known = ", ".join([*_WORDS, *prompts])
            words = f"{field} is {shown(word)}: this model knows {known}"
            raise ApiError(400, words, code="invalid_value", param=field)
    if len(set(said.values())) > 1:
        (first, one), *_, (last, other) = said.items()
        words = f"{last} is {other!r} and {first} says {one!r}: leave one out"
        raise ApiError(400, words, code="invalid_value", param=last)
    return next(iter(said.values()), "document"), prompt_name


async def prepare(
    encoder: Encoder, asked: Asked, role: Role, options: EncodeKeywords, *, arrays: bool
) -> Prepared:
    """Tokenise the texts of a request; many texts in a thread.

    Raises:
        ApiError: 400, token ids without `arrays` or of no text, or what the model cannot do.
    """
    if isinstance(asked.texts[0], list) and not arrays:
        raise ApiError(
            400,
            f"this server takes no token ids: {REMEDY}. It does with --token-arrays, for "
            "clients that tokenise with this model's own tokenizer",
            code="invalid_token_ids",
            param=asked.field,
        )
    if asked.dimensions is not None and asked.dimensions > encoder.dimension:
        raise ApiError(
            400,
            f"dimensions is {asked.dimensions} and the model has {encoder.dimension}",
            code="invalid_value",
            param="dimensions",
        )
    if sum(map(len, asked.texts)) < _QUICK:
        prepared = _prepared(encoder, asked, role, options)
    else:
        prepared = await asyncio.to_thread(_prepared, encoder, asked, role, options)
    if prepared.cut and not asked.cut:
        limit = options.get("max_length") or encoder.max_length
        raise ApiError(
            400,
            f"{prepared.cut} of {len(asked.texts)} texts have more tokens than {limit}: shorten "
            "them, or have their ends cut by leaving truncate out",
            code="too_many_tokens",
            param=asked.field,
        )
    return prepared


def _prepared(encoder: Encoder, asked: Asked, role: Role, options: EncodeKeywords) -> Prepared:
    """The texts of a request, tokenised.

    Raises:
        ApiError: 400, the model takes no such instruction.
    """
    texts = _texts(encoder, asked)
    try:
        return encoder.prepare(texts, role, asked.instruction, **options)
    except ValueError as error:  # only what the client says about a text can be wrong
        param = "instruction" if asked.max_length is None else None
        raise ApiError(400, str(error), code="invalid_value", param=param) from error


def _texts(encoder: Encoder, asked: Asked) -> list[str]:
    """The texts of a request, those of token arrays decoded."""
    arrays = [one for one in asked.texts if isinstance(one, list)]
    if arrays:
        return texts_of_arrays(encoder.tokenizer, arrays, asked.field)
    return [one for one in asked.texts if isinstance(one, str)]
