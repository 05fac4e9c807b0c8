"""The tokenizer of a checkpoint that nobody listed, and what it puts around a text: by asking it.

Files say it in several places (a post-processor, flags, the class they name), and transformers
overrules one by another in ways that change with its version. What comes out is what counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ..families import e5_mistral
from ..recipe import Recipe
from ..tokens import special_id
from .files import read_json

_TEXT = "text"
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")


def stock_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """What transformers makes of a directory, which sentence-transformers takes as it is.

    Raises:
        FileNotFoundError: there is no tokenizer in it.
        ValueError: one that needs code from elsewhere, cuts texts at their beginning, or has no
            fast form.
    """
    if not any(next(directory.glob(name), None) for name in _VOCABULARIES):
        raise FileNotFoundError(f"{directory} has no tokenizer.json and no vocabulary")
    settings = directory / "tokenizer_config.json"
    if read_json(settings).get("truncation_side") == "left":
        raise ValueError(
            f"{settings}: truncation_side = 'left' is not honoured here: texts over the limit "
            "lose their end: remove it, or pass recipe=Recipe(...)"
        )
    try:
        found = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (KeyError, ImportError, TypeError, AttributeError) as error:
        raise ValueError(
            f"transformers cannot read the tokenizer in {directory} ({type(error).__name__}: "
            f"{error}): save it again with the version that wrote it"
        ) from error
    if not isinstance(found, PreTrainedTokenizerFast):
        raise ValueError(
            f"the tokenizer in {directory} is a {type(found).__name__}, which has no fast form"
        )
    return found


def with_ends(recipe: Recipe, directory: Path, tokenizer: PreTrainedTokenizerFast) -> Recipe:
    """The recipe with the special tokens that a tokenizer puts before and behind a text.

    Args:
        recipe: Without them.
        directory: Holds the tokenizer's files.
        tokenizer: What transformers makes of these.

    Raises:
        ValueError: it puts more than one on a side, changes the text's own tokens, or puts none
            where the files ask for one.
    """
    plain: list[int] = tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer(_TEXT)["input_ids"]
    more = len(whole) - len(plain)
    first = next((n for n in range(more + 1) if whole[n : n + len(plain)] == plain), None)
    names = tokenizer.convert_ids_to_tokens(whole)
    if first is None or first > 1 or more - first > 1:
        raise ValueError(
            f"the tokenizer of {recipe.name} makes {names} of {_TEXT!r}: one special token on a "
            "side is what can be done here. Pass recipe=Recipe(...)"
        )
    bos: str | bool = names[0] if first else False
    eos: str | bool = names[-1] if more > first else False
    flags = read_json(directory / "tokenizer_config.json")
    if _closes_like_e5(recipe) and bos and not eos:
        eos = _closing_token(
            directory, recipe, tokenizer, stated=flags.get("add_eos_token") is True
        )
    for flag, put in (("add_bos_token", bos), ("add_eos_token", eos)):
        if flags.get(flag) is True and not put:
            raise ValueError(
                f"{directory / 'tokenizer_config.json'}: {flag} = true, which transformers 5 "
                "leaves out and earlier versions do not: remove it, or pass recipe=Recipe(...) "
                "with the bos and eos that the model was trained with"
            )
    if eos and recipe.pool_span == "behind_prompt" and whole[-1] not in tokenizer.all_special_ids:
        raise ValueError(
            f"the tokenizer of {recipe.name} puts {eos!r} behind a text, which is none of its "
            "special tokens: with include_prompt = false sentence-transformers counts it as the "
            "prompt's. Name it among the special tokens, or pass recipe=Recipe(...)"
        )
    return recipe.replace(bos=bos, eos=eos)


def without_foreign_bos(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Recipe:
    """A recipe for any decoder, fitted: first comes what the tokenizer itself puts, or nothing.

    Some tokenizers name a BOS that their model has never seen first (SmolLM2's `<|im_start|>`,
    GPT-2's `<|endoftext|>`). Files that ask for it by `add_bos_token` have it, though
    transformers 5 leaves it out.
    """
    if recipe.bos is not True:
        return recipe
    backend: Any = tokenizer.backend_tokenizer
    whole = backend.encode(_TEXT)
    plain: list[int] = backend.encode(_TEXT, add_special_tokens=False).ids
    puts = whole.ids[: len(plain)] != plain
    settings = read_json(Path(tokenizer.name_or_path) / "tokenizer_config.json")
    if puts and whole.ids[0] != special_id(tokenizer, True, "bos"):
        return recipe.replace(bos=whole.tokens[0])
    return recipe if puts or settings.get("add_bos_token") is True else recipe.replace(bos=False)


def _closes_like_e5(recipe: Recipe) -> bool:
    return recipe.query == e5_mistral.TEMPLATE and recipe.poolings == ("last_token",)


def _closing_token(
    directory: Path, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, *, stated: bool
) -> str:
    """The token that E5-Mistral pools, which transformers 5 leaves out although files ask for it.

    Raises:
        ValueError: it was lost from the files too: so transformers 5 saves such a tokenizer.
    """
    if stated and tokenizer.eos_token:
        return str(tokenizer.eos_token)
    raise ValueError(
        f"{directory} pools the last token of {recipe.query.prefix!r} queries, as E5-Mistral does "
        "behind a closing token, and its tokenizer puts none: transformers 5 loses add_eos_token "
        "when it saves one. Pass recipe='intfloat/e5-mistral-7b-instruct' if the model was tuned "
        "from that, or recipe=Recipe(...) that says how it was trained"
    )
