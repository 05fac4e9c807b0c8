"""Embedders of Gemma 2 and 3: EmbeddingGemma, harrier-oss-v1, bge-multilingual-gemma2.

Sources: the cards; transformers' converters of both EmbeddingGemmas (`convert_gemma3_weights.py`
0d7e95d, `convert_embedding_gemma2_weights.py` 6b43e79), whose prompts these are; the recipes of
cohere-ai/rcp-ndcg for embeddinggemma-2 and harrier-oss-v1 (038d32c), which record the files of
pinned revisions; FlagEmbedding 7ed43d6. Windows and directions are what the stock classes make of
each config: EmbeddingGemma's 512 tokens reach 256 to either side, EmbeddingGemma 2's 512.
"""

from ..recipe import Head, Recipe, Template
from . import e5_mistral

_SEARCH = Template("task: search result | query: ")
_TEXT = Template("title: none | text: ")


def _task(name: str) -> Template:
    return Template(f"task: {name} | query: ")


_SHARED = {
    "Retrieval": _SEARCH,
    "Retrieval-query": _SEARCH,
    "Retrieval-document": _TEXT,
    "Reranking": _SEARCH,
    "BitextMining": _SEARCH,
    "InstructionRetrieval": _task("code retrieval"),
    "Clustering": _task("clustering"),
    "Classification": _task("classification"),
    "MultilabelClassification": _task("classification"),
    "PairClassification": _task("sentence similarity"),
    "STS": _task("sentence similarity"),
}
_FIRST = {**_SHARED, "Summarization": _task("summarization")}
_SECOND = {
    **_SHARED,
    "Summarization": _task("sentence similarity"),
    "SentenceSimilarity": _task("sentence similarity"),
    "SearchQuery": _SEARCH,
    "Document": _TEXT,
    "CodeRetrieval": _task("code retrieval"),
    "FactChecking": _task("fact checking"),
    "QuestionAnswering": _task("question answering"),
}

EMBEDDING_GEMMA = Recipe(
    name="google/embeddinggemma-300m",
    family="embeddinggemma",
    causal=False,
    pooling="mean",
    heads=(
        Head(kind="dense", width=3072, bias=False),
        Head(kind="dense", width=768, bias=False),
    ),
    query=_SEARCH,
    document=_TEXT,
    prompts=tuple(_FIRST.items()),
    bos="<bos>",
    eos="<eos>",
    max_length=2048,
    source="card (modules, 2048 tokens, never float16); transformers convert_gemma3_weights.py "
    "0d7e95d (prompts, BOS and EOS); revision 64614b0 in mteb",
)

EMBEDDING_GEMMA_2 = EMBEDDING_GEMMA.replace(
    name="google/embeddinggemma-2",
    heads=(),
    prompts=tuple(_SECOND.items()),
    max_length=8192,
    source="text alone, transformers 5.19 or later; card (8192 tokens, never float16); "
    "transformers convert_embedding_gemma2_weights.py 6b43e79 (prompts); rcp-ndcg 038d32c "
    "(modules and tokenizer of revision 914f7f8)",
)


def _harrier(size: str, bos: str | bool, eos: str) -> Recipe:
    return Recipe(
        name=f"microsoft/harrier-oss-v1-{size}",
        family="harrier",
        causal=True,
        pooling="last_token",
        query=e5_mistral.TEMPLATE,
        document=e5_mistral.TEMPLATE,
        instruction=e5_mistral.INSTRUCTION,
        bos=bos,
        eos=eos,
        max_length=32768,
        source="card; rcp-ndcg 038d32c (files of the pinned revisions: a space after 'Query:', "
        "which mteb leaves out; the closing token by the tokenizer's post-processor)",
    )


BGE_GEMMA2 = Recipe(
    name="BAAI/bge-multilingual-gemma2",
    family="bge-multilingual-gemma2",
    causal=True,
    pooling="last_token",
    query=Template("<instruct>{instruction}\n<query>"),
    document=Template(),
    instruction="Given a web search query, retrieve relevant passages that answer the query.",
    bos=None,
    eos=None,
    max_length=8192,
    required_tokens=("<instruct>", "<query>"),
    source="FlagEmbedding 7ed43d6 (README, model map, decoder-only embedder); config and tokenizer "
    "on the hub, 8192 tokens; BOS and EOS are its tokenizer's at load",
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        EMBEDDING_GEMMA,
        EMBEDDING_GEMMA_2,
        _harrier("270m", "<bos>", "<eos>"),
        _harrier("0.6b", False, "<|endoftext|>"),
        _harrier("27b", "<bos>", "<eos>"),
        BGE_GEMMA2,
    )
}
