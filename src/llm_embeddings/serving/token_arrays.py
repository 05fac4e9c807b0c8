"""Arrays of token ids -> the texts that they encode.

An array counts as the text that it decodes to, so that it gets templates, BOS and EOS like any
text. It is accepted only if the tokenizer makes exactly these ids of that text. Most arrays of
another vocabulary fail this test, but short ones may pass, so a server takes arrays only if it is
told to.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .errors import ApiError
from .request import Arrays

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REMEDY = (
    "send strings (LangChain's OpenAIEmbeddings sends ids of OpenAI's vocabulary unless "
    "check_embedding_ctx_length=False)"
)


def texts_of_arrays(
    tokenizer: PreTrainedTokenizerFast, arrays: Arrays, field: str = "input"
) -> list[str]:
    """The texts that arrays of token ids encode; `field` held them.

    Raises:
        ApiError: an array holds an id that is not in the vocabulary or is a special token, or is
            not what the tokenizer makes of any text.
    """
    backend: Any = tokenizer.backend_tokenizer
    refused = partial(_refused, field)
    size, special = backend.get_vocab_size(), set(tokenizer.all_special_ids)
    for index, ids in enumerate(arrays):
        if ids and not 0 <= min(ids) <= max(ids) < size:
            wrong = next(token for token in ids if not 0 <= token < size)
            raise refused(index, f"{wrong} is not in this model's vocabulary of {size}: {REMEDY}")
        if not special.isdisjoint(ids):
            wrong = next(token for token in ids if token in special)
            name = backend.id_to_token(wrong)
            raise refused(
                index,
                f"{wrong} is the special token {name}: leave it out, the server puts BOS and EOS",
            )
    texts: list[str] = backend.decode_batch(arrays, skip_special_tokens=False)
    encoded = backend.encode_batch_fast(texts, add_special_tokens=False)
    for index, (ids, again) in enumerate(zip(arrays, encoded, strict=True)):
        if ids != again.ids:
            raise refused(index, f"this model's tokenizer makes these ids of no text: {REMEDY}")
    return texts


def _refused(field: str, index: int, why: str) -> ApiError:
    """The error for array number `index` of a request."""
    return ApiError(400, f"{field}[{index}]: {why}", code="invalid_token_ids", param=field)
