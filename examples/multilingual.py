"""Several languages: measure a checkpoint on a few translations before you trust it.

    python examples/multilingual.py                                        # the bundled model
    python examples/multilingual.py --model intfloat/e5-mistral-7b-instruct

The bundled model was trained on English and has an English tokenizer: expect little of it here.
Checkpoints made for many languages are intfloat/e5-mistral-7b-instruct (trained on 93),
Qwen/Qwen3-Embedding-0.6B to -8B, and Linq-AI-Research/Linq-Embed-Mistral.
"""

import argparse

from llm_embeddings import Encoder

DOCUMENTS = {
    "English": [
        "Plants use sunlight to make sugar.",
        "The central bank raised interest rates.",
        "The museum is closed on Mondays.",
        "Vaccines train the immune system.",
        "The train to the coast leaves at noon.",
    ],
    "German": [
        "Pflanzen stellen mit Sonnenlicht Zucker her.",
        "Die Zentralbank hat die Zinsen erhöht.",
        "Das Museum ist montags geschlossen.",
        "Impfstoffe trainieren das Immunsystem.",
        "Der Zug an die Küste fährt mittags ab.",
    ],
    "Chinese": [
        "植物利用阳光制造糖分。",
        "中央银行提高了利率。",
        "博物馆星期一闭馆。",
        "疫苗训练免疫系统。",
        "开往海边的火车中午出发。",
    ],
}
QUERIES = (
    "how do green leaves produce sugar from light",
    "increase of interest rates by the bank",
    "on which day can I not visit the museum",
    "what do vaccines do to the body's defences",
    "when does the train go to the sea",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="hub id or directory; the bundled model if left out")
    encoder = Encoder.from_pretrained(parser.parse_args().model)
    queries = encoder.encode_query(QUERIES)
    print(f"{encoder.recipe.name}: English questions, answers in")
    for language, sentences in DOCUMENTS.items():
        best = encoder.similarity(queries, encoder.encode_document(sentences)).argmax(1)
        right = sum(int(found) == wanted for wanted, found in enumerate(best))
        print(f"  {language:8} {right} of {len(QUERIES)} found (chance: 1)")


if __name__ == "__main__":
    main()
