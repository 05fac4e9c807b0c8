"""Checkpoints similar to those of the four families, and plain recipes for any decoder.

Sources: the model cards and sentence-transformers files of each repository, FlagEmbedding's model
map, tevatron (RepLLaMA). `REFUSED` names checkpoints that need behaviour this package lacks.
"""

from collections.abc import Sequence

from ..recipe import Recipe, Template
from . import e5_mistral

QWEN3 = Template("Instruct: {instruction}\nQuery:")
BGE_ICL = Template("<instruct>{instruction}\n<query>", "\n<response>", bare="<query>")


def with_examples(recipe: Recipe, examples: Sequence[tuple[str, ...]]) -> Recipe:
    """A recipe whose queries come behind examples, as FlagEmbedding's `FlagICLModel` puts them.

    Each example is written as a query is, its response behind it, and followed by a blank line.
    They count among the tokens of `max_length`; documents stay as they are.

    Args:
        recipe: That of bge-en-icl, or of a model trained from it.
        examples: In their order, each (query, response), which gets the instruction of the query
            that is embedded, or (instruction, query, response).

    Raises:
        TypeError: an example is not two or three strings.
        ValueError: the recipe's queries are not bge-en-icl's, so that examples mean nothing to the
            model or stand there already; or a text holds "{instruction}".
    """
    if recipe.query != BGE_ICL:
        raise ValueError(
            f"recipe {recipe.name!r} takes no examples: its queries are {recipe.query.prefix!r:.80}"
            f", and examples are known to models with the template {BGE_ICL.prefix!r} alone. Give "
            "all of them at once, to the recipe without any"
        )
    blocks = bare = ""
    for example in examples:
        given = isinstance(example, tuple | list) and all(isinstance(x, str) for x in example)
        if not given or len(example) not in (2, 3):
            raise TypeError(f"{example!r:.80} is not (query, response) or (instruction, both)")
        if any("{instruction}" in text for text in example):
            raise ValueError(f"{example!r:.80} holds '{{instruction}}', which is a place for one")
        *own, query, response = example
        block = f"{query}{BGE_ICL.suffix}{response}\n\n"
        blocks += (BGE_ICL.render_prefix(own[0]) if own else BGE_ICL.prefix) + block
        bare += BGE_ICL.render_prefix("".join(own)) + block
    template = Template(blocks + BGE_ICL.prefix, BGE_ICL.suffix, bare=bare + BGE_ICL.bare)
    return recipe.replace(query=template)


def _qwen3(size: str) -> Recipe:
    name = f"Qwen/Qwen3-Embedding-{size}"
    return Recipe(
        name=name,
        family="qwen3-embedding",
        causal=True,
        pooling="last_token",
        query=QWEN3,
        document=QWEN3,
        instruction=e5_mistral.INSTRUCTION,
        bos=False,
        eos="<|endoftext|>",
        max_length=8192,
        source="model card (8192 tokens in its example, 32k supported; no space after 'Query:')",
    )


REPLLAMA = Recipe(
    name="castorini/repllama-v1-7b-lora-passage",
    family="repllama",
    causal=True,
    pooling="last_token",
    query=Template("query: "),
    document=Template("passage: "),
    bos="<s>",
    eos="</s>",
    max_length=512,
    source="tevatron v1 and main; documents are 'title text'; 512 tokens as in its BEIR runs",
)

BGE_EN_ICL = Recipe(
    name="BAAI/bge-en-icl",
    family="bge-en-icl",
    causal=True,
    pooling="last_token",
    query=BGE_ICL,
    document=Template(),
    instruction=e5_mistral.INSTRUCTION,
    bos="<s>",
    eos="</s>",
    max_length=512,
    truncate="text",
    required_tokens=("<instruct>", "<query>", "<response>"),
    source="FlagEmbedding ICL embedder, zero-shot form; `with_examples` gives the few-shot form",
)

LAST_TOKEN = Recipe(
    name="last-token",
    family="plain",
    causal=True,
    pooling="last_token",
    bos=True,
    eos=True,
    source="common practice: causal decoder, hidden state of a closing EOS (RepLLaMA, E5-Mistral); "
    "BOS where the tokenizer itself puts one",
)

MEAN = Recipe(
    name="mean",
    family="plain",
    causal=True,
    pooling="mean",
    bos=True,
    source="common practice: causal decoder, mean over all tokens; BOS where the tokenizer itself "
    "puts one",
)

RECIPES = {
    **{f"Qwen/Qwen3-Embedding-{size}": _qwen3(size) for size in ("0.6B", "4B", "8B")},
    REPLLAMA.name: REPLLAMA,
    "Linq-AI-Research/Linq-Embed-Mistral": e5_mistral.recipe(
        "Linq-AI-Research/Linq-Embed-Mistral", "model card and its sentence_bert_config.json"
    ),
    "Salesforce/SFR-Embedding-Mistral": e5_mistral.recipe(
        "Salesforce/SFR-Embedding-Mistral", "model card"
    ),
    "Salesforce/SFR-Embedding-2_R": e5_mistral.recipe("Salesforce/SFR-Embedding-2_R", "model card"),
    BGE_EN_ICL.name: BGE_EN_ICL,
}
PLAIN = {recipe.name: recipe for recipe in (LAST_TOKEN, MEAN)}

_BIDIRLM = (
    "it needs remote code that runs on transformers 4 alone, and what that does with windows, "
    "special tokens and lengths of vectors could not be read"
)
_STELLA = "its attention lives in remote code that could not be read"
_TASKS = (
    "remote code chooses one of its four adapters per task: load the repository into which the one "
    "you want is merged, {}"
)
_SMALL = (
    "jinaai/jina-embeddings-v5-text-small-retrieval, -text-matching, -classification or -clustering"
)
_NANO = (
    "remote code chooses one of its four adapters per task, and the merged ones need remote code"
)
_CONTEXT = "one text gives several vectors there, cut out of a sequence of chunks by remote code"
_LATENT = (
    "it pools through a latent-attention layer that lives in remote code, and what its tensors are "
    "called could not be read"
)
# They load without a recipe, as sentence-transformers would load them; what is not known of them
# is in their files.
_BY_MODULES = "sentence-transformers' files say them; for a prompt they lack, give a Recipe"
OWN_FILES = {
    "tencent/KaLM-Embedding-Gemma3-12B-2511": "attention, pooling and special tokens could be read "
    f"nowhere else: {_BY_MODULES} (queries: 'Instruct: {{instruction}} \\n Query: ', mteb a905523)",
    **{
        f"infly/{name}": "pooling, prompts and special tokens could be read nowhere else: "
        "sentence-transformers' files say them. Refused where its config.json does not say "
        "`is_causal`, on which its code and the stock class differ"
        for name in ("inf-retriever-v1", "inf-retriever-v1-1.5b")
    },
}
REFUSED = {
    "nvidia/NV-Embed-v1": _LATENT,
    "nvidia/NV-Embed-v2": _LATENT,
    "NovaSearch/stella_en_1.5B_v5": _STELLA,
    "dunzhang/stella_en_1.5B_v5": _STELLA,
    **{f"BidirLM/BidirLM-{size}-Embedding": _BIDIRLM for size in ("270M", "0.6B", "1B", "1.7B")},
    "jinaai/jina-embeddings-v5-text-small": _TASKS.format(_SMALL),
    "jinaai/jina-embeddings-v5-text-nano": _NANO,
    "jinaai/jina-embeddings-v5-text-nano-retrieval": _NANO,
    "perplexity-ai/pplx-embed-context-v1-0.6b": _CONTEXT,
    "perplexity-ai/pplx-embed-context-v1-4b": _CONTEXT,
    "jinaai/jina-embeddings-v4": "it is multi-modal and needs remote code",
    "yibinlei/LENS-d4000": "its vectors are lexical (vocabulary clusters) and need remote code",
    "yibinlei/LENS-d8000": "its vectors are lexical (vocabulary clusters) and need remote code",
}
