"""Checkpoints similar to those of the four families, and plain recipes for any decoder.

Sources: the model cards and sentence-transformers files of each repository, FlagEmbedding's model
map, tevatron (RepLLaMA). `REFUSED` names checkpoints that need behaviour this package lacks.
"""

from ..recipe import Recipe, Template
from . import e5_mistral

QWEN3 = Template("Instruct: {instruction}\nQuery:")
BGE_ICL = Template("<instruct>{instruction}\n<query>", "\n<response>", bare="<query>")


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
    source="FlagEmbedding ICL embedder, zero-shot form; few-shot blocks go into the query prefix",
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
    LAST_TOKEN.name: LAST_TOKEN,
    MEAN.name: MEAN,
}

_REMOTE_BIDIRECTIONAL = (
    "its bidirectional attention lives in remote code; the stock Qwen2 class would run it causally"
)
_LATENT = "it pools through a latent-attention layer that lives in remote code"
REFUSED = {
    "nvidia/NV-Embed-v1": _LATENT,
    "nvidia/NV-Embed-v2": _LATENT,
    "Alibaba-NLP/gte-Qwen2-1.5B-instruct": _REMOTE_BIDIRECTIONAL,
    "Alibaba-NLP/gte-Qwen2-7B-instruct": _REMOTE_BIDIRECTIONAL,
    "NovaSearch/stella_en_1.5B_v5": "a dense layer follows its pooling, and it needs remote code",
    "dunzhang/stella_en_1.5B_v5": "a dense layer follows its pooling, and it needs remote code",
    "jinaai/jina-embeddings-v4": "it is multi-modal and needs remote code",
    "yibinlei/LENS-d4000": "its vectors are lexical (vocabulary clusters) and need remote code",
    "yibinlei/LENS-d8000": "its vectors are lexical (vocabulary clusters) and need remote code",
}
