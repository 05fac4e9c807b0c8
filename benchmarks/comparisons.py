"""The table of comparisons: which contenders on which texts, and the ratio that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from . import peers, workloads
from .models import LAYOUTS, Shape
from .peers import Loader, Role, Setting, Texts
from .reference_peers import loop

BOTH_DIRECTIONS = ("e5-mistral", "gritlm")  # causal, bidirectional
_AGAINST_ST = (peers.ours, peers.sentence_transformers)


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of a peer's time to ours.

    Attributes:
        peers: Whose time.
        must: The least that is accepted.
        aim: What is hoped for.
    """

    peers: tuple[str, ...] = ()
    must: float = 0.0
    aim: float = 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Contenders that do the same work.

    Attributes:
        name: Of the workload, with its size.
        setting: What all have in common.
        texts: What is embedded.
        contenders: Load them; ours comes first.
        goal: The ratio that is wanted.
        roles: The vectors each text gets, where it is not the setting's role alone.
        memory: Whether peak memory is measured too, in a process of its own per contender.
        once: One call lasts minutes: it is timed once, and its vectors are compared in part.
    """

    name: str
    setting: Setting
    texts: Callable[[], Texts]
    contenders: tuple[Loader, ...]
    goal: Goal = Goal()
    roles: tuple[Role, ...] = ()
    memory: bool = False
    once: bool = False


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many texts a workload has."""

    queries: int = 512
    documents: int = 256
    many: int = 8192
    long: tuple[tuple[int, int], ...] = ((4, 2048), (2, 8192))  # count, tokens
    concurrent: int = 64
    single: int = 32
    defaults: int = 64  # few: peers compute stored float16 as it is, on a CPU 18 times as long


_QUICK = Sizes(64, 48, 192, ((2, 1024),), 16, 4, 8)
_MEDIUM = Sizes(queries=128, documents=96, many=1024)
Settings = Mapping[str, Setting]


def sizes_of(shape: str, *, quick: bool) -> Sizes:
    """How many texts a model is given: the larger one fewer, being about eight times as slow."""
    if quick:
        return _QUICK
    return _MEDIUM if shape == "medium" else Sizes()


def comparisons(workload: str, shape: Shape, dtype: str, sizes: Sizes) -> list[Comparison]:
    """The comparisons of a workload.

    Raises:
        KeyError: an unknown workload.
    """
    settings = {name: Setting(shape, layout, dtype) for name, layout in LAYOUTS.items()}
    return WORKLOADS[workload](settings, sizes)


def _queries(settings: Settings, sizes: Sizes) -> list[Comparison]:
    """Short queries behind an instruction, whose states a causal model can reuse."""
    goals = {"e5-mistral": Goal((peers.ST,), 2.5, 3.5)}
    return [
        Comparison(
            f"W1 {sizes.queries} queries",
            replace(settings[name], role="query"),
            lambda: workloads.queries(sizes.queries),
            _AGAINST_ST,
            goals.get(name, Goal()),
        )
        for name in BOTH_DIRECTIONS
    ]


def _documents(settings: Settings, sizes: Sizes) -> list[Comparison]:
    return [
        Comparison(
            f"W2 {sizes.documents} documents",
            settings[name],
            lambda: workloads.documents(sizes.documents),
            _AGAINST_ST,
            Goal((peers.ST,), 1.5, 1.9),
            memory=True,
        )
        for name in BOTH_DIRECTIONS
    ]


def _many_documents(settings: Settings, sizes: Sizes) -> list[Comparison]:
    return [
        Comparison(
            f"W2 {sizes.many} documents",
            settings["gritlm"],
            lambda: workloads.documents(sizes.many),
            _AGAINST_ST,
            Goal((peers.ST,), 1.2, 1.5),
            once=True,
        )
    ]


def _long_documents(settings: Settings, sizes: Sizes) -> list[Comparison]:
    musts = {"e5-mistral": 1.4, "gritlm": 1.2}

    def texts(count: int, tokens: int) -> Callable[[], Texts]:
        return lambda: workloads.long_documents(count, tokens)

    return [
        Comparison(
            f"W3 {count} documents of {tokens} tokens",
            replace(settings[name], max_length=tokens),
            texts(count, tokens),
            _AGAINST_ST,
            Goal((peers.ST,), musts[name], 1.6),
            memory=True,
        )
        for count, tokens in sizes.long
        for name in BOTH_DIRECTIONS
    ]


def _concurrent(settings: Settings, sizes: Sizes) -> list[Comparison]:
    """One coroutine per query, all at once, through each framework."""
    return [
        Comparison(
            f"W4 {sizes.concurrent} coroutines",
            replace(settings["e5-mistral"], role="query"),
            lambda: workloads.queries(sizes.concurrent),
            (
                peers.ours_in_langchain,
                peers.langchain,
                peers.ours_in_llama_index,
                peers.llama_index,
            ),
            Goal((peers.LANGCHAIN, peers.LLAMA_INDEX), 4.0, 8.0),
        )
    ]


def _single(settings: Settings, sizes: Sizes) -> list[Comparison]:
    """One query after the other, the instruction known from the warm-up."""
    return [
        Comparison(
            f"W5 {sizes.single} single queries",
            replace(settings["e5-mistral"], role="query"),
            lambda: workloads.queries(sizes.single),
            tuple(map(peers.one_by_one, _AGAINST_ST)),
            Goal((peers.ST,), 1.4, 2.0),
        )
    ]


def _defaults(settings: Settings, sizes: Sizes) -> list[Comparison]:
    """What a user gets who gives no option: each one's own dtype and batch size."""
    return [
        Comparison(
            f"W2 {sizes.defaults} documents, defaults",
            replace(settings[name], dtype=None),
            lambda: workloads.documents(sizes.defaults),
            (
                *_AGAINST_ST,
                peers.ours_in_langchain,
                peers.langchain,
                peers.ours_in_llama_index,
                peers.llama_index,
            ),
            Goal((peers.ST, peers.LANGCHAIN, peers.LLAMA_INDEX), 1.5, 3.0),
        )
        for name in BOTH_DIRECTIONS
    ]


def _both(settings: Settings, sizes: Sizes) -> list[Comparison]:
    """LLaRA's two vectors of each text: one pass over the text, or a pass for each."""
    return [
        Comparison(
            f"W2 {sizes.documents} documents, both vectors",
            settings["llara"],
            lambda: workloads.documents(sizes.documents),
            (peers.both_together, peers.both_apart),
            Goal((f"{peers.OURS}, two calls",), 1.6, 1.9),
            roles=("query", "document"),
        )
    ]


def _int8(settings: Settings, sizes: Sizes) -> list[Comparison]:
    return [
        Comparison(
            f"W2 {sizes.documents} documents, int8",
            settings["gritlm"],
            lambda: workloads.documents(sizes.documents),
            (peers.ours_int8, peers.ours),
            Goal((peers.OURS,), 1.25, 1.25),
        )
    ]


def _references(settings: Settings, sizes: Sizes) -> list[Comparison]:
    """The authors' own loops, each in an environment of its own.

    FlagEmbedding computes in float32 on a CPU whatever it is told, so we do too.
    """
    cases = {
        "gritlm": (settings["gritlm"], Goal(("gritlm",), 3.5, 6.0)),
        "llm2vec": (settings["llm2vec"], Goal(("llm2vec",), 1.5, 3.0)),
        "flagembedding": (replace(settings["e5-mistral"], dtype="float32"), Goal()),
    }
    return [
        Comparison(
            f"W2 {sizes.documents} documents, {name}'s loop",
            setting,
            lambda: workloads.documents(sizes.documents),
            (peers.ours, loop(name)),
            goal,
        )
        for name, (setting, goal) in cases.items()
    ]


WORKLOADS: dict[str, Callable[[Settings, Sizes], list[Comparison]]] = {
    "W1": _queries,
    "W2": _documents,
    "W2-many": _many_documents,
    "W3": _long_documents,
    "W4": _concurrent,
    "W5": _single,
    "defaults": _defaults,
    "both": _both,
    "int8": _int8,
    "reference": _references,
}
