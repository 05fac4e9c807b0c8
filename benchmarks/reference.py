"""A reference implementation's own loop, in its own environment: a worker on pipes.

Run as `python -m benchmarks.reference LOOP MODEL DTYPE` with the interpreter of that environment.
It loads the checkpoint and writes a line. Then each line of standard input is the path of a JSON
list of texts, and is answered with the path of an .npy file of their unit vectors. It knows nothing
of llm_embeddings.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

EMBED_FRAME = "<|embed|>\n"  # GritLM's README: the instruction of a document
Encode = Callable[[list[str]], Any]


def llm2vec(model: str, dtype: Any) -> Encode:
    """`LLM2Vec.encode`, batches of 32."""
    module = importlib.import_module("llm2vec")
    loaded = module.LLM2Vec.from_pretrained(model, torch_dtype=dtype)
    return lambda texts: loaded.encode(texts, show_progress_bar=False).float().numpy()


def gritlm(model: str, dtype: Any) -> Encode:
    """`GritLM.encode`, batches of 256, on the stock Mistral of transformers 5.

    The modeling file of its repository, which does not run there, ignores the sliding window when
    it attends both ways; so the window is off.
    """
    module = importlib.import_module("gritlm")
    config = importlib.import_module("transformers").AutoConfig.from_pretrained(model)
    config.sliding_window = None
    config.layer_types = None
    loaded = module.GritLM(model, mode="embedding", torch_dtype=dtype, config=config)
    return lambda texts: loaded.encode(texts, instruction=EMBED_FRAME)


def flagembedding(model: str, _dtype: Any) -> Encode:
    """`FlagLLMModel.encode`, batches of 256; on a CPU it always computes in float32."""
    module = importlib.import_module("FlagEmbedding")
    loaded = module.FlagLLMModel(model, use_fp16=False, devices="cpu")
    return lambda texts: loaded.encode(texts)


LOOPS = {"llm2vec": llm2vec, "gritlm": gritlm, "flagembedding": flagembedding}


def main() -> None:
    """Load, say so, and answer until standard input ends."""
    import torch

    name, model, dtype = sys.argv[1:]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the loops print is no answer
    encode = LOOPS[name](model, getattr(torch, dtype))
    print("ready", file=answers)
    for line in sys.stdin:
        path = Path(line.strip())
        vectors = np.asarray(encode(json.loads(path.read_text(encoding="utf-8"))), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(path.with_suffix(".npy"), vectors)
        print(path.with_suffix(".npy"), file=answers)


if __name__ == "__main__":
    main()
