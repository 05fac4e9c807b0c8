"""Your LLM as an embedder of your documents: three stages with LoRA, scores, then LangChain."""

import argparse
import json
import resource
import time
from pathlib import Path

from langchain_core.vectorstores import InMemoryVectorStore
from langchain_llm_embeddings import LLMEmbeddings

from llm_embeddings import Encoder, training
from llm_embeddings.corpus import load_corpus


def report(step: str, model: Path, pairs: list[tuple[str, str]], recipe: str | None = None) -> None:
    """How many titles find their own passage first, and what it took so far."""
    encoder = Encoder.from_pretrained(model, recipe=recipe, dtype="float32")
    titles, texts = map(list, zip(*pairs, strict=True))
    scores = encoder.encode_query(titles) @ encoder.encode_document(texts).T
    ranks = 1 + (scores > scores.diagonal()[:, None]).sum(axis=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # of kB; macOS counts bytes
    found = f"{(ranks == 1).sum()} of {len(pairs)} first, MRR {(1 / ranks).mean():.3f}"
    print(f"{step:12} {found}, {time.process_time():.0f} CPU s, {peak:.1f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("llm", type=Path, help="directory of any decoder")
    parser.add_argument("output", type=Path, help="a new folder for the results")
    parser.add_argument("--updates", type=int, default=20, help="of each stage")
    given = parser.parse_args()
    pairs = [(passage.title, passage.text[:200]) for passage in load_corpus()]  # here: your own
    learnt, held_out = pairs[::2], pairs[1::2]
    given.output.mkdir()
    texts, rows = given.output / "texts.txt", given.output / "pairs.jsonl"
    texts.write_text("\n".join(text for _, text in learnt), encoding="utf-8")
    rows.write_text("\n".join(json.dumps({"query": t, "pos": text}) for t, text in learnt))
    mntp, simcse, embedder = (given.output / name for name in ("mntp", "simcse", "embedder"))
    common = {"max_steps": given.updates, "learning_rate": 5e-4, "dtype": "float32"}
    common |= {"batch_size": 8, "batch_tokens": 512, "show_progress": False}

    report("as it is", given.llm, held_out, "mean")
    options = {"model": given.llm, "output": mntp, "data": (texts,), "block_length": 64}
    report("mntp", training.train_mntp(training.MNTP(**options, **common)), held_out)
    options = {"model": mntp, "output": simcse, "data": (texts,)}
    report("simcse", training.train_simcse(training.SimCSE(**options, **common)), held_out)
    options = {"model": simcse, "output": embedder, "data": (rows,), "negatives": 0}
    common |= {"batch_size": 16, "warmup": 0.1}
    training.train_contrastive(training.Contrastive(**options, **common))
    report("contrastive", embedder, held_out)

    store = InMemoryVectorStore(LLMEmbeddings(model=str(embedder)))
    store.add_texts([text for _, text in pairs], [{"title": title} for title, _ in pairs])
    for hit in store.similarity_search("How does the body turn glucose into energy?", k=3):
        print(f"  {hit.metadata['title']}: {hit.page_content[:60]}...")


if __name__ == "__main__":
    main()
