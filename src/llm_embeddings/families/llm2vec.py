"""LLM2Vec (arXiv 2404.05961): bidirectional attention, mean over the text, base -> MNTP -> adapter.

Sources: package llm2vec 0.2.3 (`LLM2Vec.from_pretrained`, `encode`, `tokenize`,
`prepare_for_tokenization`), the McGill-NLP adapter repositories, and the llm2vec-gen code for the
Llama 3.2 and Qwen names. The chat template is keyed by the exact name of the base model, as in the
reference: Llama 3.1, 3.2, Qwen2.5 and Qwen3 get none.
"""

import dataclasses
from typing import Any

from ..recipe import Pooling, Recipe, Template

SEPARATOR = "!@#$%^&*()"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query:"

PLAIN = Template("{instruction} ")
INST = Template("[INST] {instruction} ", " [/INST]", bare="[INST] ")
LLAMA3 = Template(
    "<|start_header_id|>user<|end_header_id|>\n\n{instruction} ",
    "<|eot_id|>",
    bare="<|start_header_id|>user<|end_header_id|>\n\n",
)
QWEN2 = Template("<|im_start|>user\n{instruction} ", "<|im_end|>", bare="<|im_start|>user\n")

CONFIG = "llm2vec_config.json"
_POOLING: dict[str, Pooling] = {
    "mean": "mean",
    "weighted_mean": "weighted_mean",
    "last_token": "last_token",
    "bos_token": "first_token",
    "eos_token": "last_token",
}
# What "eos_token" puts behind a text, template included, by the type of the base model: literal
# text, which need not be one token. Two bases are different.
_ENDINGS = {"llama": " </s>", "mistral": " </s>", "gemma": "<eos>", "qwen2": "<|endoftext|>"}
_OWN_ENDINGS = {
    "meta-llama/Meta-Llama-3-8B": "<|end_of_text|>",
    "meta-llama/Meta-Llama-3-8B-Instruct": "",
}

# Base models whose chat template the reference applies; any other name gets PLAIN.
TEMPLATES = {
    "meta-llama/Meta-Llama-3-8B-Instruct": LLAMA3,
    "mistralai/Mistral-7B-Instruct-v0.2": INST,
    "meta-llama/Llama-2-7b-chat-hf": INST,
    "Qwen/Qwen2-1.5B-Instruct": QWEN2,
    "Qwen/Qwen2-7B-Instruct": QWEN2,
}

# (name between "LLM2Vec-" and "-mntp", base model, BOS, stages published on top of MNTP)
_SIMCSE, _SUPERVISED = "unsup-simcse", "supervised"
CHECKPOINTS: tuple[tuple[str, str, bool | str, tuple[str, ...]], ...] = (
    ("Sheared-LLaMA", "princeton-nlp/Sheared-LLaMA-1.3B", "<s>", (_SIMCSE, _SUPERVISED)),
    ("Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-chat-hf", "<s>", (_SIMCSE, _SUPERVISED)),
    ("Mistral-7B-Instruct-v2", "mistralai/Mistral-7B-Instruct-v0.2", "<s>", (_SIMCSE, _SUPERVISED)),
    (
        "Meta-Llama-3-8B-Instruct",
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "<|begin_of_text|>",
        (_SIMCSE, _SUPERVISED),
    ),
    (
        "Meta-Llama-31-8B-Instruct",
        "meta-llama/Meta-Llama-3.1-8B-Instruct",
        "<|begin_of_text|>",
        (_SIMCSE, _SUPERVISED),
    ),
    *(
        (
            f"Meta-Llama-32-{size}-Instruct",
            f"meta-llama/Llama-3.2-{size}-Instruct",
            "<|begin_of_text|>",
            (_SIMCSE,),
        )
        for size in ("1B", "3B")
    ),
    *(
        (
            f"Qwen25-{size.replace('.', '')}-Instruct",
            f"Qwen/Qwen2.5-{size}-Instruct",
            False,
            (_SIMCSE,),
        )
        for size in ("0.5B", "1.5B", "3B", "7B")
    ),
    *(
        (f"Qwen3-{size.replace('.', '')}", f"Qwen/Qwen3-{size}", False, (_SIMCSE,))
        for size in ("0.6B", "1.7B", "4B", "8B")
    ),
)


def recipe(
    name: str, base_model: str, *, bos: bool | str = True, base: str | None = None
) -> Recipe:
    """The recipe of LLM2Vec for a checkpoint of some name.

    Args:
        name: Name of the checkpoint.
        base_model: Hub id of the language model it was made of, which decides the chat template.
        bos: BOS token, see `Recipe.bos`.
        base: The MNTP checkpoint that the checkpoint's adapter belongs on; None = none.
    """
    template = TEMPLATES.get(base_model, PLAIN)
    return Recipe(
        name=name,
        family="llm2vec",
        causal=False,
        window="drop",
        pooling="mean",
        pool_span="text",
        query=template,
        document=template,
        instruction=INSTRUCTION,
        bos=bos,
        normalize=False,
        max_length=512,
        max_text_length=400,
        separator=SEPARATOR,
        base=base,
        source=f"llm2vec 0.2.3 code; hub McGill-NLP; base model {base_model}",
    )


def configured(
    recipe: Recipe, settings: dict[str, Any], base_model: str, model_type: str
) -> Recipe:
    """A recipe changed by the settings that `LLM2Vec.save` writes beside trained weights.

    Args:
        recipe: The recipe of the checkpoint without these settings.
        settings: The content of llm2vec_config.json.
        base_model: Hub id of the language model it was made of.
        model_type: That model's type in transformers.

    Raises:
        ValueError: a pooling mode that no recipe can express, or "eos_token" for a type of model
            for which the reference puts no such text.
    """
    mode = settings.get("pooling_mode", "mean")
    if mode not in _POOLING:
        raise ValueError(
            f"{CONFIG} of {recipe.name} has pooling_mode={mode!r}, which is not one of "
            f"{sorted(_POOLING)}: pass recipe=Recipe(...)"
        )
    if mode == "eos_token":
        ending = _OWN_ENDINGS.get(base_model, _ENDINGS.get(model_type))
        if ending is None:
            raise ValueError(
                f"{CONFIG} of {recipe.name} has pooling_mode='eos_token', for which llm2vec knows "
                f"no closing text of {model_type} models: pass recipe=Recipe(...)"
            )
        closed = dataclasses.replace(recipe.query, suffix=recipe.query.suffix + ending)
        recipe = recipe.replace(query=closed, document=closed)
    skips = settings.get("skip_instruction", True)
    if type(skips) is not bool:
        raise ValueError(f"{CONFIG} of {recipe.name}: skip_instruction={skips!r} is no bool")
    return recipe.replace(
        pooling=_POOLING[mode],
        pool_span="text" if skips else "all",
        max_length=settings.get("max_length", recipe.max_length),
        max_text_length=settings.get("doc_max_length", recipe.max_text_length),
    )


def _stages() -> dict[str, Recipe]:
    """The recipes of all `CHECKPOINTS`, MNTP first, then the stages on top of it."""
    table = {}
    for short, base_model, bos, stages in CHECKPOINTS:
        mntp = f"McGill-NLP/LLM2Vec-{short}-mntp"
        table[mntp] = recipe(mntp, base_model, bos=bos)
        for stage in stages:
            name = f"{mntp}-{stage}"
            table[name] = recipe(name, base_model, bos=bos, base=mntp)
    return table


RECIPES = _stages()
