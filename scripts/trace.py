"""The way of one text through the package: which of our files it enters, and how often it turns.

`python -m scripts.trace` embeds one query of the E5 golden case, the first after loading, and one
document through LangChain. It prints the files that each enters with their lines and calls; in all:
files, lines (docstrings included), calls of our functions, and steps, which are calls from one of
our files into another. `tests/test_trace.py` holds the bounds.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "e5-mistral"
PLACES = (
    ROOT / "src" / "llm_embeddings",
    ROOT / "integrations" / "langchain" / "src" / "langchain_llm_embeddings",
)


@dataclass(frozen=True)
class Trace:
    """What a call did in files of ours.

    Attributes:
        calls: Calls of functions by file, comprehensions and generators that go on included.
        steps: Calls from one file into another; what other libraries do between counts as nothing.
    """

    calls: Counter[Path]
    steps: int

    @property
    def lines(self) -> int:
        """Lines of all files entered."""
        return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in self.calls)


def trace(work: Callable[[], Any]) -> Trace:
    """Run something and watch it, in this thread and in those it starts."""
    calls: Counter[Path] = Counter()
    steps = 0
    places = tuple(f"{place}/" for place in PLACES)

    def see(frame: FrameType, event: str, _: object) -> None:
        nonlocal steps
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(places):
            return
        calls[Path(file)] += 1
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(places):
            caller = caller.f_back
        steps += caller is not None and caller.f_code.co_filename != file

    threading.setprofile(see)
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return Trace(calls, steps)


def core() -> Trace:
    """The first `encode_query` after loading."""
    from llm_embeddings import Encoder

    text = json.loads((GOLDEN / "case.json").read_text(encoding="utf-8"))["texts"][0]
    encoder = Encoder.from_pretrained(GOLDEN / "model", dtype="float32")
    return trace(lambda: encoder.encode_query(text))


def langchain() -> Trace:
    """The first `embed_documents` of LangChain's class after loading."""
    from langchain_llm_embeddings import LLMEmbeddings

    embeddings = LLMEmbeddings(model=GOLDEN / "model", dtype="float32")
    return trace(lambda: embeddings.embed_documents(["Paris is the capital of France."]))


def main() -> None:
    """Print both."""
    for name, found in (("encode_query", core()), ("LangChain embed_documents", langchain())):
        print(name)
        for path, count in found.calls.most_common():
            place = path.relative_to(ROOT)
            print(f"  {count:4} calls  {len(path.read_text().splitlines()):4} lines  {place}")
        print(
            f"  {len(found.calls)} files, {found.lines:,} lines, {found.steps} steps, "
            f"{sum(found.calls.values())} calls\n"
        )


if __name__ == "__main__":
    main()
