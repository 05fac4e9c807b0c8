"""LLaRA / Llama2Vec (arXiv 2312.15503): causal, mean of eight learnt tokens after a prompt.

Sources: FlagEmbedding research/LLARA at 7ed43d6 (README, training code) and the hub cards. Prefix,
text and suffix are tokenised separately; `max_length` is that of the text alone; there is no EOS;
the ids of <s1>..<s16> are not in order, so they are always looked up by name.
"""

from ..recipe import Recipe, Template

SELF = "".join(f"<s{i}>" for i in range(1, 9))
NEXT = "".join(f"<s{i}>" for i in range(9, 17))
TOKENS = tuple(f"<s{i}>" for i in range(1, 17))

QUERY = Template('"', f'", predict the following passage within eight words: {NEXT}')
PASSAGE = Template('"', f'", summarize the above passage within eight words: {SELF}')


def recipe(name: str, source: str = "the checkpoint's own tokens <s1>..<s16>") -> Recipe:
    """The recipe of LLaRA for a checkpoint of some name; `source` says where it is documented."""
    return Recipe(
        name=name,
        family="llara",
        causal=True,
        pooling="last_k_mean",
        last_k=8,
        query=QUERY,
        document=PASSAGE,
        bos="<s>",
        max_length=512,
        join="segments",
        truncate="text",
        required_tokens=TOKENS,
        source=source,
    )


_SOURCE = "FlagEmbedding research/LLARA 7ed43d6; hub card"
RECIPES = {
    "BAAI/LLARA-pretrain": recipe(
        "BAAI/LLARA-pretrain", f"{_SOURCE}; adapted, not contrastively tuned: no retriever yet"
    ),
    "BAAI/LLARA-passage": recipe("BAAI/LLARA-passage", f"{_SOURCE}; MS MARCO passage"),
    "BAAI/LLARA-beir": recipe("BAAI/LLARA-beir", f"{_SOURCE}; for BEIR"),
    "BAAI/LLARA-document": recipe(
        "BAAI/LLARA-document",
        f"{_SOURCE}; MS MARCO document, whose text length is not published: 512 is the card's",
    ),
}
