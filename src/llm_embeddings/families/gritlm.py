"""GritLM (arXiv 2402.09906): embeds bidirectionally, by the mean over what follows the prompt.

Sources: gritlm 1.0.2 (`GritLM.encode`), the README and paper. `<|user|>` and `<|embed|>` are plain
text, not vocabulary entries. Without an instruction the prompt is the bare `<|embed|>` frame.
The repositories carry modeling files that stock transformers >= 5.2 makes unnecessary.
"""

from ..recipe import Recipe, Template

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
TEMPLATE = Template("<|user|>\n{instruction}\n<|embed|>\n", bare="<|embed|>\n")


def recipe(name: str, source: str = "gritlm 1.0.2; hub card; arXiv 2402.09906") -> Recipe:
    """The recipe of GritLM for a checkpoint of some name; `source` says where it is documented."""
    return Recipe(
        name=name,
        family="gritlm",
        causal=False,
        window="drop",
        pooling="mean",
        pool_span="text",
        query=TEMPLATE,
        document=TEMPLATE,
        instruction=INSTRUCTION,
        bos="<s>",
        max_length=512,
        source=source,
    )


RECIPES = {
    name: recipe(name)
    for name in (
        "GritLM/GritLM-7B",
        "GritLM/GritLM-8x7B",
        "GritLM/GritLM-7B-KTO",
        "GritLM/GritLM-8x7B-KTO",
    )
}
