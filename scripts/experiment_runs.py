"""The experiment's runs: what each starts from, how it is trained, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiment_data import SOURCES
from experiment_sizes import Amount, Size

from llm_embeddings.recipe import Recipe, Template
from llm_embeddings.records.sources import Source
from llm_embeddings.training.contrastive import Contrastive, train_contrastive
from llm_embeddings.training.grit import GRIT, GRIT_RECIPE, train_grit
from llm_embeddings.training.llara import LLARA_RECIPE, LLaRA, train_llara
from llm_embeddings.training.mntp import MNTP, train_mntp
from llm_embeddings.training.options import LoraOptions
from llm_embeddings.training.simcse import SimCSE, train_simcse

TEXT = 48  # tokens of a text, in training and when measured
BASE = "base"
ANSWER, SAME = "Find the answer", "Find the same"
INSTRUCTIONS = {"medquad": ANSWER, "openstax-glossary": "Find the definition", "snli": SAME}

BOTH_WAYS = Recipe(name="both-ways", causal=False, pooling="mean", max_length=TEXT)
CAUSAL = BOTH_WAYS.replace(name="causal", causal=True)
LAST = CAUSAL.replace(name="last", pooling="last_token", eos=True, truncate="text")
_E5 = Template("Instruct: {instruction}\nQuery: ")
# An instruction takes up to 27 tokens, which the text is not to lose.
E5 = LAST.replace(name="e5", query=_E5, document=_E5, max_length=TEXT + 28)
LAST_MEAN = LAST.replace(name="last-mean", pooling="mean")
LLARA_SHORT = LLARA_RECIPE.replace(name="llara", max_length=TEXT)
GRIT_SHORT = GRIT_RECIPE.replace(name="grit", instruction="", max_length=TEXT + 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all runs have in common.

    Attributes:
        base: Directory of the language model.
        work: Where data and models lie.
        seed: Of training.
        size: How much is trained.
        steps: Most updates of a stage; for trials.
    """

    base: Path
    work: Path
    seed: int
    size: Size
    steps: int | None = None

    def model(self, run: str) -> Path:
        """Where a run's result lies; that of `BASE` is the language model itself."""
        return self.base if run == BASE else self.work / "models" / str(self.seed) / run

    def data(self, name: str) -> str:
        """A file to train on."""
        return str(self.work / "train" / name)

    def recipe(self, run: Run) -> Recipe:
        """How a run embeds with this model's tokenizer."""
        return run.recipe if self.size.bos else run.recipe.replace(bos=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One row of a table.

    Attributes:
        name: Unique.
        title: In words.
        start: The run whose result is trained on; of a run that trains nothing, what is measured.
        train: Setting -> the trained model; None = nothing is trained.
        recipe: How it embeds.
        instructed: Whether sentences and queries get an instruction when it is measured.
        language: Whether it is measured as a language model, too.
    """

    name: str
    title: str
    start: str = BASE
    train: Callable[[Setting, Run], Path] | None = None
    recipe: Recipe
    instructed: bool = False
    language: bool = False


def common(setting: Setting, run: Run, amount: Amount, **options: Any) -> dict[str, Any]:
    """Options of every stage: warm-up over a tenth, then falling."""
    size = setting.size
    return {
        "model": str(setting.model(run.start)),
        "output": setting.model(run.name),
        "recipe": setting.recipe(run),
        "max_steps": min(amount.updates, setting.steps or amount.updates),
        "batch_size": amount.batch,
        "batch_tokens": size.batch_tokens,
        "learning_rate": amount.rate,
        "seed": setting.seed,
        "warmup": 0.1,
        "lora": size.lora,
        "dtype": size.dtype,
        "save_every": size.save_every,
        "keep": 1,
        "resume": True,
        "show_progress": False,
        **options,
    }


def mntp(setting: Setting, run: Run) -> Path:
    """Masked next token prediction on documents."""
    data = setting.data("documents.txt")
    shape = {"block_length": 128, "mask_token": setting.size.mask}
    return train_mntp(MNTP(**common(setting, run, setting.size.mntp, data=data, **shape)))


def simcse(setting: Setting, run: Run) -> Path:
    """SimCSE on sentences, with the paper's temperature and attention dropout."""
    data, amount = setting.data("sentences.txt"), setting.size.simcse
    return train_simcse(SimCSE(**common(setting, run, amount, data=data, max_length=TEXT)))


def supervised(setting: Setting, run: Run) -> Path:
    """InfoNCE on triplets."""
    return triplets(setting, run, setting.size.supervised)


def triplets(setting: Setting, run: Run, amount: Amount, **options: Any) -> Path:
    """InfoNCE on triplets, with instructions where the run has them."""
    data = tuple(
        Source(
            Path(setting.data(f"{name}.jsonl")),
            instruction=INSTRUCTIONS[name] if run.instructed else None,
            symmetric=run.instructed and name == "snli",
        )
        for name in SOURCES
    )
    given = common(setting, run, amount, data=data, temperature=0.05, **options)
    return train_contrastive(Contrastive(**given))


def low_rank(rank: int) -> Callable[[Setting, Run], Path]:
    """`supervised` with adapters of a rank, scaled by 2 whatever it is."""

    def train(setting: Setting, run: Run) -> Path:
        lora = LoraOptions(rank=rank, alpha=2.0 * rank)
        return triplets(setting, run, setting.size.low_rank, lora=lora)

    return train


def llara(setting: Setting, run: Run) -> Path:
    """EBAE and EBAR on passages of documents."""
    return adapted(setting, run, setting.size.llara)


def llara_tokens(setting: Setting, run: Run) -> Path:
    """LLaRA's new tokens, with nothing learnt."""
    return adapted(setting, run, replace(setting.size.llara, updates=1, rate=1e-12))


def adapted(setting: Setting, run: Run, amount: Amount) -> Path:
    """The stage `llara` on passages of documents."""
    shape = {"words": 24, "cutoff": 160, "data": setting.data("documents.txt")}
    return train_llara(LLaRA(**common(setting, run, amount, **shape)))


def grit(embedding: float, generative: float) -> Callable[[Setting, Run], Path]:
    """Triplets, documents, or both, by their weights."""

    def train(setting: Setting, run: Run) -> Path:
        shape = {
            "temperature": 0.05,
            "query_length": TEXT + 16,
            "passage_length": TEXT + 16,
            "generative": (setting.data("documents.txt"),) if generative else (),
            "generative_batch_size": setting.size.documents,
            "generative_length": 128,
            "embedding_weight": embedding,
            "generative_weight": generative,
            "mixed_group": setting.size.documents,
        }
        data = tuple(setting.data(f"{name}.jsonl") for name in SOURCES)
        amount = setting.size.supervised
        return train_grit(GRIT(**common(setting, run, amount, data=data, **shape)))

    return train


_GRIT: dict[str, Any] = {"recipe": GRIT_SHORT, "language": True}

_ALL: dict[str, tuple[Run, ...]] = {
    "grit": (
        Run(name="grit-none", title="neither", **_GRIT),
        Run(name="grit-embedding", title="embedding only", train=grit(1, 0), **_GRIT),
        Run(name="grit-generation", title="generation only", train=grit(0, 1), **_GRIT),
        Run(name="grit-both", title="both", train=grit(1, 1), **_GRIT),
    ),
    "llm2vec": (
        Run(name="causal", title="causal, mean", recipe=CAUSAL),
        Run(name="both-ways", title="both ways, mean", recipe=BOTH_WAYS),
        Run(name="mntp", title="+ MNTP", recipe=BOTH_WAYS, train=mntp),
        Run(name="simcse", title="+ MNTP + SimCSE", recipe=BOTH_WAYS, start="mntp", train=simcse),
        Run(name="sup-causal", title="causal, supervised", recipe=CAUSAL, train=supervised),
        Run(
            name="sup-domain",
            title="causal, language modelling, supervised",
            recipe=CAUSAL,
            start="grit-generation",
            train=supervised,
        ),
        Run(name="sup", title="both ways, supervised", recipe=BOTH_WAYS, train=supervised),
        Run(
            name="sup-mntp",
            title="+ MNTP, supervised",
            recipe=BOTH_WAYS,
            start="mntp",
            train=supervised,
        ),
        Run(
            name="sup-simcse",
            title="+ MNTP + SimCSE, supervised",
            recipe=BOTH_WAYS,
            start="simcse",
            train=supervised,
        ),
    ),
    "llara": (
        Run(name="last", title="last token", recipe=LAST, train=supervised),
        Run(
            name="last-domain",
            title="language modelling, last token",
            recipe=LAST,
            start="grit-generation",
            train=supervised,
        ),
        Run(
            name="llara-tokens",
            title="eight new tokens, untrained",
            recipe=LLARA_SHORT,
            train=llara_tokens,
        ),
        Run(
            name="llara-plain",
            title="eight new tokens, supervised at once",
            recipe=LLARA_SHORT,
            start="llara-tokens",
            train=supervised,
        ),
        Run(
            name="llara-adapted",
            title="EBAE + EBAR",
            recipe=LLARA_SHORT,
            train=llara,
            language=True,
        ),
        Run(
            name="llara",
            title="EBAE + EBAR, supervised",
            recipe=LLARA_SHORT,
            start="llara-adapted",
            train=supervised,
        ),
    ),
    "e5": (
        Run(name="e5", title="last token, rank 16", recipe=LAST, train=low_rank(16)),
        Run(
            name="e5-instructed",
            title="with instructions",
            recipe=E5,
            instructed=True,
            train=low_rank(16),
        ),
        Run(name="e5-mean", title="mean", recipe=LAST_MEAN, train=low_rank(16)),
        Run(name="e5-rank4", title="rank 4", recipe=LAST, train=low_rank(4)),
        Run(name="e5-rank64", title="rank 64", recipe=LAST, train=low_rank(64)),
    ),
}


def experiments(size: Size) -> dict[str, tuple[Run, ...]]:
    """The runs of a size, by experiment and in the order in which they are made."""
    return {
        name: tuple(run for run in _ALL[name] if run.name not in size.left_out)
        for name in size.experiments
    }
