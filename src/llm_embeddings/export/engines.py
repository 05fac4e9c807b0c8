"""What another engine makes of an exported model: right, right with the client's help, or wrong.

Decided from the recipe, the tokenizer and the kind of backbone; no engine is run. The facts about
an engine were read in the sources named beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from ..model import Model
from ..recipe import Pooling, Recipe, Role
from ..tokens import special_id

Engine = Literal["sentence-transformers", "vllm", "tei", "infinity"]

# Our poolings in the words of sentence-transformers' `1_Pooling/config.json`.
MODES: dict[Pooling, str] = {
    "first_token": "cls_token",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "mean_sqrt_length": "mean_sqrt_len_tokens",
    "weighted_mean": "weightedmean_tokens",
    "last_token": "lasttoken",
}
BY_VECTORS = "send token ids, and pool the token vectors that come back"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing an engine does unlike this package.

    Attributes:
        what: What it does.
        remedy: What to send or set so that the vectors are equal; "" = nothing helps.
    """

    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """What a server does with a decoder.

    Attributes:
        name: As its authors write it, with the version these facts are of.
        runs: Kinds of backbone (`model_type`) it has; None = all that transformers has.
        both_ways: Those in which it lets every token attend to all others.
        pools: Poolings it knows; always over all tokens.
        takes_ids: Whether it takes token ids as they are and can return a vector per token.
        prompts: How it puts a saved prompt in front of a text, "" if it cannot; `{role}` stands
            for the role.
        long_texts: What it does with a text over the limit.
        arithmetic: What it computes in, where `--dtype` cannot make that the checkpoint's.
        unit_length: How it is kept from normalising vectors; None = it reads that from the files.
    """

    name: str
    runs: frozenset[str] | None
    both_ways: frozenset[str]
    pools: frozenset[Pooling]
    takes_ids: bool
    prompts: str
    long_texts: Difference | None
    arithmetic: Difference | None
    unit_length: Difference | None


SERVERS: dict[Engine, Server] = {
    # vllm/model_executor/models: llama.py (Mistral, too), qwen2.py and qwen3.py read `is_causal`,
    # mixtral.py does not; registry.py: GritLM's own class went in 0.28. layers/pooler: CLS, LAST
    # and MEAN. entrypoints/pooling: fields of requests, prompts of /v2/embed.
    "vllm": Server(
        name="vLLM 0.33",
        runs=None,
        both_ways=frozenset({"llama", "mistral", "qwen2", "qwen3"}),
        pools=frozenset({"last_token", "first_token", "mean"}),
        takes_ids=True,
        prompts='send it to /v2/embed with "input_type": "{role}"',
        long_texts=Difference(
            "refuses a text over {limit} tokens", 'send "truncate_prompt_tokens": -1'
        ),
        arithmetic=None,
        unit_length=None,
    ),
    # backends/candle/src: flash_mistral.rs attends causally; flash_qwen3.rs and llama.rs (pull
    # requests 802 and 805) read `use_bidirectional_attention`; lib.rs: decoders in float16 on CUDA.
    # router/src/http/types.rs: fields of requests. core/src/tokenization.rs: ids become text.
    "tei": Server(
        name="text-embeddings-inference 1.9",
        runs=frozenset({"llama", "mistral", "qwen3"}),
        both_ways=frozenset({"llama", "qwen3"}),
        pools=frozenset({"last_token", "first_token", "mean"}),
        takes_ids=False,
        prompts='send it to /embed with "prompt_name": "{role}"',
        long_texts=Difference(
            "cuts or refuses a text over {limit} tokens, as it was started",
            'send it to /embed with "truncate": true',
        ),
        arithmetic=Difference(
            "computes decoders in float16, on CUDA only", "allow for the rounding of float16"
        ),
        unit_length=Difference(
            "makes all vectors unit length", 'send texts to /embed with "normalize": false'
        ),
    ),
    # transformer/embedder/sentence_transformer.py: tokenises without prompts, normalises always.
    # METADATA: sentence-transformers < 4 and with it transformers < 5, which has no `is_causal`.
    "infinity": Server(
        name="infinity 0.0.78",
        runs=None,
        both_ways=frozenset(),
        pools=frozenset(MODES),
        takes_ids=False,
        prompts="",
        long_texts=None,
        arithmetic=None,
        unit_length=Difference(
            "makes all vectors unit length", "compare by cosine, which does not see it"
        ),
    ),
}


def fidelity(model: Model, engine: Engine) -> list[Difference]:
    """All that `engine` does unlike this package with an exported `model`.

    Args:
        model: The model; its recipe, tokenizer and config are looked at.
        engine: Where it shall run.

    Returns:
        Nothing if the same texts give the same vectors. Else the differences, those without a
        remedy first: one of them makes the vectors wrong.

    Raises:
        ValueError: an unknown engine.
    """
    if engine not in get_args(Engine):
        raise ValueError(f"engine={engine!r} is not one of {get_args(Engine)}")
    if engine == "sentence-transformers":
        return [Difference(f"does not know {name}") for name in unknown_to_modules(model)]
    server = SERVERS[engine]
    return [*_hopeless(model, server), *_mendable(model, server)]


def takes_texts(recipe: Recipe, server: Server) -> bool:
    """Whether a server can be sent texts and pools them as the recipe asks.

    Where it cannot, one that takes token ids can still be made to return a vector per token.
    """
    return recipe.join == "string" and recipe.separator is None and _pools(recipe, server)


def unknown_to_modules(model: Model) -> list[str]:
    """What the modules Transformer, Pooling and Normalize would compute differently, in words.

    One difference is not among them: where the prompt is not pooled and a text has no token of its
    own (it is empty, or one character that fuses with the prompt's last token), they return zeros
    and this package the mean of the whole row.
    """
    recipe = model.recipe
    span = recipe.pool_span != "all" and spanned(recipe)
    ordered = tuple(mode for mode in MODES if mode in recipe.poolings)
    obstacles = {
        f"join={recipe.join!r}": recipe.join != "string",
        f"separator={recipe.separator!r}": recipe.separator is not None,
        f"max_text_length={recipe.max_text_length}": recipe.max_text_length is not None,
        f"pooling={recipe.pooling!r}": ordered != recipe.poolings,
        "weights that start after the prompt": span and "weighted_mean" in ordered,
        "a first token that counts before the prompt": span
        and recipe.pool_span == "text"
        and "first_token" in ordered,
        "text after the input (a template's suffix)": bool(
            recipe.query.suffix or recipe.document.suffix
        ),
        "a prompt whose end is not counted alike": span and _is_miscounted(model),
        "code that is not in transformers": not _is_stock(model),
        "vectors cut before the last step": _cuts_early(recipe),
        "a rounding head": any(head.kind == "tanh_int8" for head in recipe.heads),
    }
    return [name for name, stands in obstacles.items() if stands]


def _cuts_early(recipe: Recipe) -> bool:
    """Whether anything follows a head that cuts; there it is the very last step."""
    cuts = [number for number, head in enumerate(recipe.heads) if head.kind == "truncate"]
    return bool(cuts) and (cuts[0] != len(recipe.heads) - 1 or recipe.normalize)


def _is_stock(model: Model) -> bool:
    return type(model.backbone).__module__.startswith("transformers.models.")


def _is_miscounted(model: Model) -> bool:
    """Whether sentence-transformers would leave out too much or too little of a prompt.

    It tokenises the prompt alone and drops a last special token, which it takes for the EOS.
    """
    tokenizer, recipe = model.tokenizer, model.recipe
    special = set(tokenizer.all_special_ids)
    eos = special_id(tokenizer, recipe.eos, "eos")
    for role in get_args(Role):
        prefix = recipe.prefix(role)
        ids = tokenizer(prefix, add_special_tokens=False)["input_ids"] if prefix else []
        last = eos if eos is not None else (ids or [None])[-1]
        if ids and (last in special) != (eos is not None):
            return True
    return False


def _hopeless(model: Model, server: Server) -> Iterator[Difference]:
    """What nothing mends: the decoder, its attention, a pooling that no client can do."""
    recipe, kind = model.recipe, model.backbone.config.model_type
    if not _is_stock(model):
        yield Difference("does not have the backbone's code, which is not in transformers")
    elif server.runs is not None and kind not in server.runs:
        yield Difference(f"does not have a {kind} decoder")
    elif not recipe.causal and kind not in server.both_ways:
        yield Difference(f"lets a {kind} decoder attend causally; the model attends both ways")
    if recipe.heads:
        yield Difference("leaves out the heads that follow the pooling")
    elif not takes_texts(recipe, server) and not (server.takes_ids and _is_a_share(recipe)):
        yield Difference(_obstacle(recipe, server))


def _mendable(model: Model, server: Server) -> Iterator[Difference]:
    """What the client can look after."""
    recipe = model.recipe
    if not takes_texts(recipe, server):
        if server.takes_ids:
            yield Difference(_obstacle(recipe, server), BY_VECTORS)
        return
    yield from _prompts(recipe, server)
    yield from _limits(model, server)
    if server.arithmetic is not None:
        yield server.arithmetic
    if not recipe.normalize and server.unit_length is not None:
        yield server.unit_length


def _prompts(recipe: Recipe, server: Server) -> Iterator[Difference]:
    for role in get_args(Role):
        prefix, suffix = recipe.prefix(role), recipe.template(role).suffix
        parts = [f"put {prefix!r} before it"] if prefix else []
        if suffix:
            parts.append(f"put {suffix!r} behind it")
        elif prefix and server.prompts:
            parts.append(server.prompts.format(role=role))
        if parts:
            yield Difference(
                f"adds no prompt to a {role} unasked", (" and " if suffix else ", or ").join(parts)
            )


def _limits(model: Model, server: Server) -> Iterator[Difference]:
    recipe, limit = model.recipe, model.max_length
    if recipe.query.suffix or recipe.document.suffix:
        yield Difference(
            "cuts what stands behind a text when it cuts the text",
            f"send at most {limit} tokens, all counted",
        )
    elif server.long_texts is not None:
        what = server.long_texts.what.format(limit=limit)
        yield Difference(what, server.long_texts.remedy)


def _pools(recipe: Recipe, server: Server) -> bool:
    plain = not recipe.heads and recipe.pooling in server.pools
    return plain and (recipe.pool_span == "all" or not spanned(recipe))


def _is_a_share(recipe: Recipe) -> bool:
    """Whether a vector is a weighted mean of token vectors, which a client can take."""
    return len(recipe.poolings) == 1 and recipe.pooling not in ("max", "mean_sqrt_length")


def spanned(recipe: Recipe) -> bool:
    """Whether a pooling runs over the pooled span, and not over the whole row."""
    whole = {"last_token", "first_token"} if recipe.pool_span != "behind_prompt" else {"last_token"}
    return bool(set(recipe.poolings) - whole)


def _obstacle(recipe: Recipe, server: Server) -> str:
    """Why a server cannot be sent texts."""
    if recipe.join != "string" and _pools(recipe, server):
        return "tokenises a prompt and its text as one string; the model does not"
    if _pools(recipe, server):
        return "does not shorten long texts word by word, as LLM2Vec does"
    if recipe.pooling == "last_k_mean":
        return f"does not pool the mean of the last {recipe.last_k} tokens"
    span = " of the text without its prompt" if recipe.pool_span != "all" else ""
    return f"does not pool the {str(recipe.pooling).replace('_', ' ')}{span}"
