"""The experiment's sizes: which model, how much training, and how much is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from smollm2 import NAME, PLACE, ROOT

from llm_embeddings.training.batches.masking import MaskToken
from llm_embeddings.training.options import LoraOptions

DOCS = ROOT / "docs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much of a stage is trained.

    Attributes:
        updates: How many.
        batch: Texts, blocks or triplets in each.
        rate: Peak learning rate.
    """

    updates: int
    batch: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What differs between a small language model and a large one.

    Attributes:
        output: Folder of raw numbers and plots.
        document: Page whose tables are filled.
        model: Directory of the language model, in the data or absolute.
        bos: Whether a BOS goes before a text.
        mask: What hides a token in MNTP.
        lora: Adapters that are trained; None = all weights.
        dtype: Of matrix products, in training and of the vectors measured; perplexity is float32.
        batch_tokens: Tokens per pass; None = what the memory holds.
        save_every: Updates between checkpoints.
        threads: Of torch.
        sets: Retrieval sets.
        corpus: Most documents of each.
        queries: Most queries of each.
        experiments: Which, in this order.
        left_out: Runs of these that are not made.
        mntp: Masked next token prediction.
        simcse: SimCSE.
        supervised: InfoNCE on triplets, and GRIT, whose documents are as many as `documents`.
        low_rank: The same for E5's rows.
        llara: EBAE and EBAR.
        documents: Of 128 tokens, in each of GRIT's updates.
    """

    output: Path
    document: Path
    model: Path
    bos: bool
    mask: MaskToken
    lora: LoraOptions | None
    dtype: str
    batch_tokens: int | None
    save_every: int
    threads: int
    sets: tuple[str, ...]
    corpus: int
    queries: int
    experiments: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    mntp: Amount
    simcse: Amount
    supervised: Amount
    low_rank: Amount
    llara: Amount
    documents: int


STORIES = Size(
    output=DOCS / "experiment",
    document=DOCS / "experiment.md",
    model=Path("models/stories260K"),
    bos=True,
    mask="mask",
    lora=None,
    dtype="float32",
    batch_tokens=None,
    save_every=100,
    threads=1,
    sets=("dbpedia_5k", "cranfield", "xquad_en_sent"),
    corpus=1000,
    queries=400,
    # GRIT comes first because others start from its `grit-generation`.
    experiments=("grit", "llm2vec", "llara", "e5"),
    mntp=Amount(updates=100, batch=16, rate=1e-3),
    simcse=Amount(updates=30, batch=64, rate=3e-5),
    supervised=Amount(updates=40, batch=32, rate=3e-3),
    low_rank=Amount(updates=60, batch=32, rate=3e-3),
    llara=Amount(updates=60, batch=32, rate=1e-3),
    documents=16,
)
SMOLLM2 = Size(
    output=DOCS / "experiment/smollm2",
    document=DOCS / "experiment-smollm2.md",
    model=PLACE / NAME,
    bos=False,  # its tokenizer puts none
    mask="blank",
    lora=LoraOptions(),
    dtype="auto",
    batch_tokens=2048,
    save_every=10,
    threads=2,
    sets=("cranfield", "xquad_en_sent"),
    corpus=300,
    queries=200,
    experiments=("e5", "grit", "llara", "llm2vec"),
    left_out=("sup-domain", "last-domain", "e5-rank4", "e5-rank64"),
    mntp=Amount(updates=60, batch=16, rate=5e-4),
    simcse=Amount(updates=25, batch=32, rate=2e-4),
    supervised=Amount(updates=60, batch=16, rate=5e-4),
    low_rank=Amount(updates=100, batch=16, rate=5e-4),
    llara=Amount(updates=25, batch=16, rate=5e-4),
    documents=4,
)
SIZES = {"stories260K": STORIES, "smollm2": SMOLLM2}
