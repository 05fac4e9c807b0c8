"""NVIDIA's embedders: Nemotron-3-Embed, llama-embed-nemotron, llama-nemotron-embed.

Sources: NVIDIA/NeMo-Retriever 5d9a42a (`embed_model_spec.py` asserts class, pooling and direction;
prompts), NVIDIA-NeMo/Automodel 36044ad (the bidirectional Llama), mteb a905523
(`nvidia_models.py`), vllm 0413790 (`config.py`), the cards. What their tokenizers put around a text
could not be read: it is read from the checkpoint's files. `checkpoint/stock.py` says how
`llama_bidirec` runs without its code.
"""

from ..recipe import Recipe, Template
from . import e5_mistral

_QUERY, _PASSAGE = Template("query: "), Template("passage: ")
_ENDS = "BOS and EOS are its tokenizer's at load"


def _recipe(
    name: str,
    query: Template,
    document: Template,
    source: str,
    *,
    instruction: str = "",
    max_length: int = 32768,
) -> Recipe:
    return Recipe(
        name=f"nvidia/{name}",
        family="nemotron",
        causal=False,
        pooling="mean",
        query=query,
        document=document,
        instruction=instruction,
        bos=None,
        eos=None,
        max_length=max_length,
        source=f"{source}; {_ENDS}",
    )


_THIRD = "NeMo-Retriever 5d9a42a; mteb a905523, revision "
RECIPES = {
    recipe.name: recipe
    for recipe in (
        _recipe("Nemotron-3-Embed-1B-BF16", _QUERY, _PASSAGE, f"{_THIRD}f880174"),
        _recipe("Nemotron-3-Embed-8B-BF16", _QUERY, _PASSAGE, f"{_THIRD}dd9d06b"),
        _recipe(
            "llama-embed-nemotron-8b",
            e5_mistral.TEMPLATE,
            e5_mistral.TEMPLATE,
            "card; mteb a905523 (prompts, revision 84a3755); Automodel 36044ad (attention, mean)",
            instruction="Given a question, retrieve passages that answer the question",
        ),
        _recipe(
            "llama-nemotron-embed-1b-v2",
            _QUERY,
            _PASSAGE,
            "NVIDIA docs (8192 tokens, smaller dimensions); NeMo-Retriever 5d9a42a (prompts); "
            "Automodel 36044ad (attention, pooling)",
            max_length=8192,
        ),
    )
}
