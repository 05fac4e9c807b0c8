"""Embedders of Qwen 2 and 3: gte-Qwen2, Octen, F2LLM, jina-v5, pplx-embed-v1, zembed-1.

Sources: mteb a905523 (revisions, prompts), codefuse-ai/CodeFuse-Embeddings 1c52915 (F2LLM's
training), the recipes of cohere-ai/rcp-ndcg for octen-embedding (038d32c), jina-embeddings-v5-text
(274b63f), pplx-embed-v1 (07476b4) and zembed-1 (47a4e10), which record the files of pinned
revisions; thehumanworks/pplx-mlx 332b845 and `st_quantize.py` of pplx-embed-v1; the cards.
"""

from ..recipe import Head, Recipe, Template
from . import e5_mistral, siblings

_END = "<|endoftext|>"  # 151643; the tokenizers' own EOS may be <|im_end|>


def _last(
    name: str,
    family: str,
    source: str,
    *,
    query: Template,
    document: Template,
    eos: bool | str | None,
    instruction: str = "",
    causal: bool = True,
    max_length: int = 32768,
) -> Recipe:
    """The last token is pooled, and there is no BOS."""
    return Recipe(
        name=name,
        family=family,
        causal=causal,
        pooling="last_token",
        query=query,
        document=document,
        instruction=instruction,
        bos=False,
        eos=eos,
        max_length=max_length,
        source=source,
    )


def _gte(size: str, revision: str) -> Recipe:
    return _last(
        f"Alibaba-NLP/gte-Qwen2-{size}-instruct",
        "gte-qwen2",
        "card (32k tokens); config and prompts on the hub; mteb a905523 (EOS, revision "
        f"{revision}); vllm and text-embeddings-inference (attention: `is_causal` False, absent in "
        "earlier revisions)",
        query=e5_mistral.TEMPLATE,
        document=e5_mistral.TEMPLATE,
        instruction=e5_mistral.INSTRUCTION,
        eos=_END,
        causal=False,
    )


def _octen(size: str, revision: str, positions: int) -> Recipe:
    return _last(
        f"Octen/Octen-Embedding-{size}",
        "octen",
        f"rcp-ndcg 038d32c (files of revision {revision}: no space after 'Query:', one before "
        "documents); its paper puts '- ' before documents instead",
        query=siblings.QWEN3,
        document=Template(" "),
        instruction=e5_mistral.INSTRUCTION,
        eos=_END,
        max_length=positions,
    )


def _f2llm(size: str, revision: str) -> Recipe:
    return _last(
        f"codefuse-ai/F2LLM-{size}",
        "f2llm",
        "CodeFuse-Embeddings 1c52915 (the tokenizer's own EOS is put last; 2047 tokens and EOS in "
        f"training); mteb a905523 (instruction, 8192 tokens, revision {revision})",
        query=e5_mistral.TEMPLATE,
        document=e5_mistral.TEMPLATE,
        instruction=e5_mistral.INSTRUCTION,
        eos=True,
        max_length=8192,
    )


def _f2llm_v2(size: str, revision: str) -> Recipe:
    return _last(
        f"codefuse-ai/F2LLM-v2-{size}",
        "f2llm",
        f"card (40960 tokens); mteb a905523 (instruction, revision {revision}); BOS and EOS are "
        "its tokenizer's at load",
        query=e5_mistral.TEMPLATE,
        document=e5_mistral.TEMPLATE,
        instruction="Given a question, retrieve passages that can help answer the question.",
        eos=None,
        max_length=40960,
    ).replace(bos=None)


def _jina(task: str) -> Recipe:
    return _last(
        f"jinaai/jina-embeddings-v5-text-small-{task}",
        "jina-v5",
        "card; rcp-ndcg 274b63f (prompts and tokenizer of jina-embeddings-v5-text-small dd76d53 "
        "and of its -retrieval 6856e76: no token is put around a text); the adapter merged by its "
        "authors",
        query=Template("Query: "),
        document=Template("Document: "),
        # The tokenizers of the other three were not read.
        eos=False if task == "retrieval" else None,
    )


def _zembed(name: str) -> Recipe:
    return _last(
        name,
        "zembed",
        "rcp-ndcg 47a4e10 (files of revision cf13c81; the suffix is in its code). Fewer dimensions "
        "are by projections.safetensors, which nobody loads: `truncate_dim` is not them",
        query=Template("<|im_start|>system\nquery<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n"),
        document=Template(
            "<|im_start|>system\ndocument<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n"
        ),
        eos=False,
    ).replace(truncate="text_ids")


def _pplx(size: str, revision: str) -> Recipe:
    return Recipe(
        name=f"perplexity-ai/pplx-embed-v1-{size}",
        family="pplx-embed",
        causal=False,
        pooling="mean",
        heads=(Head(kind="tanh_int8"),),
        bos=False,
        eos=False,
        normalize=False,
        max_length=32768,
        source=f"card; rcp-ndcg 07476b4 (files of revision {revision}); pplx-mlx 332b845; "
        "st_quantize.py, whose int8 is the default: whole numbers, compared by cosine",
    )


_V2 = {
    "80M": "6faa773",
    "160M": "4013fb0",
    "330M": "e8ef9a8",
    "0.6B": "54b4e2d",
    "1.7B": "3766d46",
    "4B": "e04d1a0",
    "8B": "5ac7d57",
    "14B": "e42037a",
}
RECIPES = {
    recipe.name: recipe
    for recipe in (
        _gte("1.5B", "c6c1b92"),
        _gte("7B", "e26182b"),
        _octen("0.6B", "d715b32", 32768),
        _octen("4B", "fea468f", 40960),
        _octen("8B", "5adcfa2", 40960),
        _f2llm("0.6B", "3641661"),
        _f2llm("1.7B", "fdce0e0"),
        _f2llm("4B", "9fe9590"),
        *[_f2llm_v2(size, revision) for size, revision in _V2.items()],
        *[_jina(task) for task in ("retrieval", "text-matching", "classification", "clustering")],
        _zembed("zeroentropy/zembed-1"),
        _zembed("zeroentropy/zembed-1-embedding"),
        _pplx("0.6b", "2c4d510"),
        _pplx("4b", "0645649"),
    )
}
