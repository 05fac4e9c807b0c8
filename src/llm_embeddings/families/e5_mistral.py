"""E5-Mistral (arXiv 2401.00368): causal, pools the state of a closing EOS, instructs queries only.

Sources: microsoft/unilm `e5/` at 59d0483, the model card and the sentence-transformers files of hub
revision 07163b7. The prompt is joined with the text before tokenising. The folder `lora/` of the
repository is already merged into its weights.
"""

from ..recipe import Recipe, Template

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
TEMPLATE = Template("Instruct: {instruction}\nQuery: ")


def recipe(name: str, source: str, *, max_length: int = 4096) -> Recipe:
    """The recipe of E5-Mistral for a checkpoint of some name.

    Args:
        name: Name of the checkpoint.
        source: Where its values are documented.
        max_length: Most tokens of the whole sequence.
    """
    return Recipe(
        name=name,
        family="e5-mistral",
        causal=True,
        pooling="last_token",
        query=TEMPLATE,
        document=TEMPLATE,
        instruction=INSTRUCTION,
        bos="<s>",
        eos="</s>",
        max_length=max_length,
        source=source,
    )


RECIPES = {
    "intfloat/e5-mistral-7b-instruct": recipe(
        "intfloat/e5-mistral-7b-instruct",
        "unilm e5/ 59d0483; model card (4096 tokens advised, 32768 possible); arXiv 2401.00368",
    ),
}
