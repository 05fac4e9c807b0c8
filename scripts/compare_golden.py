"""Run the golden cases through other libraries, as their users would, and count right vectors.

    pip install sentence-transformers langchain-huggingface llama-index-embeddings-huggingface
    HF_HUB_OFFLINE=1 python scripts/compare_golden.py tests/golden

prints two Markdown tables: checkpoints set up as the documentation says, and as directories that
`mend` writes with stock modules, loaded alike by each library. A cell is right/all, median cosine
and largest difference to the reference; right is a cosine of 0.999 or more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Role = Literal["query", "document"]
RIGHT = 0.999
# The runs that make vectors as the checkpoint's authors do; the others vary one option.
AS_PUBLISHED = re.compile(
    r"query_web_search|document|query_mean|document_mean|query|passage"
    r"|(mntp|supervised|unsup-simcse)_mean_(no)?instr"
)
LLARA = {
    "query": '", predict the following passage within eight words: ',
    "passage": '", summarize the above passage within eight words: ',
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One golden run: what to embed, what the documentation says of it, what should come out."""

    case: str
    name: str
    family: str
    stages: list[str]
    cache: str | None
    folder: Path
    role: Role
    prompt: str
    max_length: int
    texts: list[str]
    expected: npt.NDArray[np.float64]
    defined: npt.NDArray[np.bool_]

    @property
    def instruction(self) -> str:
        """The instruction inside the prompt."""
        inner = self.prompt.removeprefix("Instruct: ").removesuffix("\nQuery: ")
        return inner.removeprefix("<|user|>\n").removesuffix("<|embed|>\n").strip()


@dataclass(frozen=True)
class Score:
    """How a library's vectors of one run compare with the reference."""

    right: int
    rows: int
    median: float
    max_abs: float

    def __str__(self) -> str:
        return f"{self.right}/{self.rows} ({self.median:.3f}, {self.max_abs:.2g})"


def read_runs(golden: Path) -> Iterator[Run]:
    """The published usage of every checkpoint in a directory of golden cases."""
    for path in sorted(golden.glob("*/case.json")):
        meta = json.loads(path.read_text(encoding="utf-8"))
        for name, setting in (meta.get("runs") or {}).items():
            if AS_PUBLISHED.fullmatch(name):
                vectors = np.load(path.parent / "golden.npz")[f"{name}/emb"]
                yield _read_run(path.parent, meta, name, setting, vectors)


def _read_run(
    folder: Path, meta: dict[str, Any], name: str, setting: dict[str, Any], expected: Any
) -> Run:
    family = meta["family"]
    prompt = setting.get("prompt") or setting.get("instruction") or ""
    stages = [str(folder / "model")]
    cache = None
    if family == "llm2vec":
        prompt = f"{prompt} " if prompt else ""  # a prompt has to hold what stands before the text
        names = ["mntp"] + ([setting["adapter"]] if setting["adapter"] else [])
        stages = [str(folder / stage) for stage in names]
        if "hub_cache" in meta["load"]:
            stages = [meta["hub_ids"][stage] for stage in names]
            cache = str(folder / meta["load"]["hub_cache"])
    undefined = setting.get("zero_pool_text_idx", [])
    return Run(
        case=folder.name,
        name=name,
        family=family,
        stages=stages,
        cache=cache,
        folder=folder,
        role="query" if "query" in name or name.endswith("_instr") else "document",
        prompt=prompt,
        max_length=setting.get("max_length", 512),
        texts=list(meta["texts"]),
        expected=np.asarray(expected, np.float64),
        defined=np.isfinite(expected).all(1) & ~np.isin(np.arange(len(expected)), undefined),
    )


def documented(run: Run) -> tuple[str, Run]:
    """The directory or hub id a user names, and the run with texts as a user writes them."""
    if run.family == "llara":  # the card writes the whole template around each text
        first = 9 if run.name == "query" else 1
        slots = [f"<s{i}>" for i in range(first, first + 8)]
        return run.stages[0], _wrapped(run, '"', LLARA[run.name] + "".join(slots))
    return run.stages[-1], run


def mend(run: Run, folder: Path) -> tuple[str, Run] | None:
    """Write what an expert could with stock modules; None where these cannot express the model."""
    if run.family == "llara":
        return None
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    target = str(folder / "mended")
    if run.family == "e5-mistral":
        flags = {"add_bos_token": True, "add_eos_token": True}
        SentenceTransformer(run.stages[0], device="cpu", processor_kwargs=flags).save(target)
        return target, run
    first = Transformer(bidirectional(run, folder), max_seq_length=run.max_length)
    pooling = Pooling(int(first.model.config.hidden_size), "mean", include_prompt=False)
    last = [Normalize()] if run.family == "gritlm" else []
    SentenceTransformer(modules=[first, pooling, *last], device="cpu").save(target)
    if run.family == "llm2vec":
        from llm_embeddings import Encoder

        # The chat template is in no file of the checkpoint; llm2vec's code holds it.
        ours = Encoder.from_pretrained(run.stages[0], cache_dir=run.cache, local_files_only=True)
        template = ours.recipe.query
        prompt = template.render_prefix(run.instruction)
        # A prompt that ends in a space counts one token more alone than it has before a text.
        space = prompt[len(prompt.rstrip(" ")) :]
        texts = [t.strip() for t in run.texts] if template.suffix else run.texts  # as llm2vec does
        run = replace(run, prompt=prompt.rstrip(" "), texts=texts)
        return target, _wrapped(run, space, template.suffix)
    return target, run


def bidirectional(run: Run, folder: Path) -> str:
    """The backbone as it should attend, adapters merged, with the tokenizer.json as published."""
    from huggingface_hub import snapshot_download
    from peft import PeftModel
    from transformers import AutoModel, PreTrainedTokenizerFast

    stages = run.stages
    if run.cache:
        stages = [snapshot_download(stage, cache_dir=run.cache) for stage in stages]
    base, adapters = stages[0], []
    if run.family == "llm2vec":
        named = json.loads((Path(stages[0]) / "adapter_config.json").read_text(encoding="utf-8"))
        base, adapters = named["base_model_name_or_path"], stages
        if run.cache:
            base = snapshot_download(base, cache_dir=run.cache)
    model: Any = AutoModel.from_pretrained(base, dtype="float32")
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    model.config.is_causal = False
    if hasattr(model.config, "sliding_window"):
        model.config.sliding_window = None
    model.save_pretrained(folder / "backbone")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(stages[0])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.chat_template = None  # with one, sentence-transformers wraps each text in it
    tokenizer.save_pretrained(folder / "backbone")
    return str(folder / "backbone")


def _wrapped(run: Run, before: str, after: str) -> Run:
    return replace(run, texts=[f"{before}{text}{after}" for text in run.texts])


def sentence_transformers(model: str, run: Run) -> Any:
    """As the cards of sentence-transformers models say: `encode` with the checkpoint's prompt."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(
        model, device="cpu", cache_folder=run.cache, model_kwargs={"dtype": "float32"}
    )
    loaded.max_seq_length = run.max_length
    return loaded.encode(run.texts, prompt=run.prompt or None, show_progress_bar=False)


def langchain(model: str, run: Run) -> Any:
    """Prompts go into `encode_kwargs` and `query_encode_kwargs`; there is no limit to set."""
    prompt = {"prompt": run.prompt} if run.prompt else {}
    embeddings = import_module("langchain_huggingface").HuggingFaceEmbeddings(
        model_name=model,
        cache_folder=run.cache,
        model_kwargs={"device": "cpu", "model_kwargs": {"dtype": "float32"}},
        encode_kwargs=prompt if run.role == "document" else {},
        query_encode_kwargs=prompt if run.role == "query" else {},
    )
    if run.role == "query":
        return [embeddings.embed_query(text) for text in run.texts]
    return embeddings.embed_documents(run.texts)


def llama_index(model: str, run: Run) -> Any:
    """Prompts are `query_instruction` and `text_instruction`."""
    module = import_module("llama_index.embeddings.huggingface")
    embedding = module.HuggingFaceEmbedding(
        model_name=model,
        cache_folder=run.cache,
        max_length=run.max_length,
        query_instruction=run.prompt if run.role == "query" else None,
        text_instruction=run.prompt if run.role == "document" else None,
        device="cpu",
        model_kwargs={"dtype": "float32"},
    )
    if run.role == "query":
        return [embedding.get_query_embedding(text) for text in run.texts]
    return embedding.get_text_embedding_batch(run.texts)


def llm_embeddings(run: Run) -> Any:
    """This package: a name, a role, an instruction."""
    from llm_embeddings import Encoder

    model, *adapters = run.stages[-1:] if run.cache else run.stages
    encoder = Encoder.from_pretrained(
        model, adapters=adapters, cache_dir=run.cache, dtype="float32", local_files_only=True
    )
    return encoder.encode(run.texts, run.role, run.instruction)


PEERS: dict[str, Callable[[str, Run], Any]] = {
    "sentence-transformers": sentence_transformers,
    "langchain-huggingface": langchain,
    "llama-index-embeddings-huggingface": llama_index,
}


def score(found: Any, run: Run) -> Score:
    """Count right rows; cosine does not see length, so lengths are levelled for max abs too."""
    a, b = np.asarray(found, np.float64)[run.defined], run.expected[run.defined]
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    cosines = (a * b).sum(1)
    return Score(
        int((cosines >= RIGHT).sum()), len(a), float(np.median(cosines)), float(np.abs(a - b).max())
    )


def attempt(run: Run, embed: Callable[..., Any], *arguments: Any) -> str:
    """A cell of the table: the score, or the kind of error a user would see."""
    try:
        return str(score(embed(*arguments), run))
    except (OSError, ValueError) as error:
        return type(error).__name__


def row(run: Run, *, by_hand: bool) -> str:
    """A row of the table: one cell per library."""
    # Local LLM2Vec adapters name their base relative to their own directory.
    start = run.folder / "mntp" if run.family == "llm2vec" and not run.cache else run.folder
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(start):
        way = mend(run, Path(folder)) if by_hand else documented(run)
        cells = ["no stock module"] * len(PEERS)
        if way is not None:
            cells = [attempt(run, peer, *way) for peer in PEERS.values()]
        if not by_hand:
            cells.append(attempt(run, llm_embeddings, run))
    return f"| {' | '.join([run.case, run.name, *cells])} |"


def main() -> None:
    """Print the versions and both tables."""
    parser = argparse.ArgumentParser(description="Golden cases through other libraries.")
    parser.add_argument("golden", type=Path, help="directory of golden cases")
    runs = list(read_runs(parser.parse_args().golden.resolve()))
    for name in (*PEERS, "llm-embeddings", "transformers", "torch"):
        print(f"- {name} {version(name)}")
    for title, by_hand in (("As documented", False), ("Set by hand", True)):
        columns = ["case", "run", *PEERS, *([] if by_hand else ["llm-embeddings"])]
        print(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for run in runs:
            print(row(run, by_hand=by_hand), flush=True)


if __name__ == "__main__":
    main()
