"""Training: a decoder of random weights becomes an embedder by LLM2Vec's stages, and searches."""

import json
import tempfile
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from llm_embeddings import Encoder
from llm_embeddings.corpus import load_corpus
from llm_embeddings.training.contrastive import Contrastive, train_contrastive
from llm_embeddings.training.mntp import MNTP, train_mntp
from llm_embeddings.training.simcse import SimCSE, train_simcse

ALL_WEIGHTS = {"lora": None, "dtype": "float32", "max_steps": 10, "show_progress": False}


def write_llm(directory: Path) -> None:
    """A stand-in for a real language model, of which you would give the hub id."""
    set_seed(0)
    tokenizer = Encoder.from_pretrained().tokenizer
    tokenizer.add_bos_token = True  # as Llama's
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), intermediate_size=128, **sizes)
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def report(stage: str, encoder: Encoder, pairs: list[tuple[str, str]]) -> None:
    """How many titles find their own passage among the five nearest of all."""
    titles, texts = map(list, zip(*pairs, strict=True))
    scores = encoder.similarity(encoder.encode_query(titles), encoder.encode_document(texts))
    found = sum(place in row[-5:] for place, row in enumerate(scores.argsort(axis=1).tolist()))
    print(f"{stage:12}{found:3} of {len(pairs)} titles find their passage")


def main() -> None:
    pairs = [(document.title, document.text[:300]) for document in load_corpus()]
    learnt, held_out = pairs[::2], pairs[1::2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts, rows = folder / "texts.txt", folder / "pairs.jsonl"
        texts.write_text("\n".join(text for _, text in learnt), encoding="utf-8")
        rows.write_text("\n".join(json.dumps({"query": t, "pos": text}) for t, text in learnt))
        write_llm(folder / "llm")
        report("random", Encoder.from_pretrained(folder / "llm", recipe="mean"), held_out)
        options = {"model": str(folder / "llm"), "output": folder / "mntp", "data": (texts,)}
        path = train_mntp(MNTP(**options, **ALL_WEIGHTS, mask_token="mask", block_length=64))
        report("mntp", Encoder.from_pretrained(path), held_out)
        options = {"model": str(path), "output": folder / "simcse", "data": (texts,)}
        path = train_simcse(SimCSE(**options, **ALL_WEIGHTS, batch_size=32))
        report("simcse", Encoder.from_pretrained(path), held_out)
        options = {"model": str(path), "output": folder / "embedder", "data": (rows,)}
        options |= {"negatives": 0, "batch_size": 64, "learning_rate": 1e-3, "warmup": 0}
        path = train_contrastive(Contrastive(**options, **ALL_WEIGHTS))
        report("contrastive", Encoder.from_pretrained(path), held_out)


if __name__ == "__main__":
    main()
