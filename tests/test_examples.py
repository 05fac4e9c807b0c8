"""The examples and notebooks run as they stand, on the bundled model, and say what they promise."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import BUNDLED, ROOT, SMALL
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from llm_embeddings import Encoder, opening
from llm_embeddings.checkpoint.options import LoadOptions
from llm_embeddings.encoder import BUNDLED_MODEL

EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
LONGEST_EXAMPLE = 60
LARGEST_NOTEBOOK = 300_000

# What each example is there to show, by one fact of its output.
PROMISES = {
    "classify.py": r"classes: (0\.9\d|1\.00) right(?s:.*)health .*painkiller(?s:.*)sky .*meteor",
    "deduplicate.py": r"9 tickets, 5 different ones",
    "hybrid_bm25.py": r"headings +0\.\d+ +0\.9(?s:.*)both ",
    "langchain_gritlm.py": r"20 documents, \d+ tokens(?s:.*)ATP(?s:.*)read \d\d of \d{3} tokens",
    "langchain_rag_faiss.py": r"only\.\n\n\[Glycolysis\](?s:.*)Question: .*ATP.*\nAnswer:\n.+",
    "langchain_rag_qdrant.py": r"only\.\n\n\[Magnetic Fields(?s:.*)Question: .*\nAnswer:\n$",
    "langchain_vector_stores.py": r"Glycolysis\n(  \w+ +the same 5 passages\n){4}"
    r".*Hobbes\n(  \w+ +the same 5 passages\n){4}$",
    "llm_to_langchain.py": r"as it is +\d+ of 191 first, MRR(?s:.*)contrastive +\d+ of 191 first"
    r".*GB\n(  .+\n){3}$",
    "llama_index_vector_stores.py": r"Glycolysis\n(  \w+ +the same 5 passages\n){4}"
    r".*Hobbes\n(  \w+ +the same 5 passages\n){4}$",
    "vector_store_quantization.py": r"FAISS +0\.6\d, rescored 0\.9\d\n +LanceDB +0\.[78]\d, "
    r"rescored (0\.9[89]|1\.00)\n +Qdrant +0\.6\d, rescored 0\.9",
    "llama_index_gritlm.py": r"20 documents, \d\.\d MB(?s:.*)read 0 the(?s:.*)ATP.*\n.+\n  from ",
    "llama_index_ingestion.py": r"20 passages -> \d\d+ (?s:.*)Myelin: (?s:.*)How Microbes",
    "llama_index_search.py": r"\?\n.*Glycolysis\n(?s:.*)\?\n.*Thomas Hobbes\n(?s:.*)\?\n.*Third",
    "multilingual.py": r"English +5 of 5",
    "quantize_rescore.py": r"float32 +(0\.9\d)\d .*\n +int8 +\1",
    "sentence_transformers_search.py": r"nerves signal\n.*Myelin\n(?s:.*)nominated\n.*Nomination",
    "train_embedder.py": r"random +(1\d|2[0-5]) of 191(?s:.*)contrastive +(2[4-9]|3\d) of 191",
}

# A language model is optional: one example runs with one, the other without.
ARGUMENTS = {
    "langchain_rag_faiss.py": ("--llm", str(BUNDLED / "gritlm-7b/model")),
    "llm_to_langchain.py": ("llm", "result", "--updates", "2"),
}


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples") / "vectors.sqlite"


@pytest.fixture(autouse=True)
def known_vectors(vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many examples embed the same passages with the same model: it is done once."""
    plain = opening.open_encoder

    def opened(make: Any, model: str | Path, options: LoadOptions) -> Encoder:
        bundled = model == BUNDLED_MODEL
        return plain(make, model, replace(options, vector_cache=vectors) if bundled else options)

    monkeypatch.setattr(opening, "open_encoder", opened)


@pytest.fixture
def llm(tmp_path: Path) -> Path:
    """A folder with a decoder in `llm`, too small to have learnt anything."""
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "e5-mistral/model")
    model = LlamaForCausalLM(LlamaConfig(**SMALL | {"vocab_size": len(tokenizer)}))
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "llm")
    return tmp_path


def test_every_example_has_a_promise() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= LONGEST_EXAMPLE


@pytest.mark.parametrize("name", PROMISES)
def test_readme_shows_the_example(name: str) -> None:
    assert f"({name})" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


# Of LlamaIndex's LanceDB store, and of its Qdrant store.
@pytest.mark.filterwarnings("ignore:table_names.. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
@pytest.mark.parametrize("name", PROMISES)
@pytest.mark.slow
def test_example(
    name: str, llm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, *ARGUMENTS.get(name, ())])
    monkeypatch.chdir(llm)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    out = capsys.readouterr().out
    assert re.search(PROMISES[name], out)
    if name == "hybrid_bm25.py":
        words, vectors, hybrid = map(float, out.splitlines()[-1].split()[1:])
        assert hybrid > max(words, vectors)
    if name == "quantize_rescore.py":
        binary, rescored = (float(line.split()[-4]) for line in out.splitlines()[-2:])
        assert rescored > binary


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_with_its_results(path: Path) -> None:
    code = cells(path, "code")
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert kinds >= {"stream", "display_data"}
    assert "error" not in kinds
    assert path.stat().st_size < LARGEST_NOTEBOOK
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", "".join(cell["source"])):
            assert (path.parent / target).exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.slow
def test_notebook_prints_what_is_committed(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    space: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(path, "code"), 1):
        exec(compile("".join(cell["source"]), f"{path.name}:{number}", "exec"), space)
        texts = [output["text"] for output in cell["outputs"] if output["output_type"] == "stream"]
        committed = "".join(line for text in texts for line in text)
        assert_same(capsys.readouterr().out, committed)
    import matplotlib.pyplot as plt

    plt.close("all")


def assert_same(text: str, committed: str) -> None:
    """Words equal, numbers within what another processor may change."""
    number = r"-?\d+(?:\.\d+)?"
    assert re.sub(r"\s+", " ", re.sub(number, "", text)) == re.sub(
        r"\s+", " ", re.sub(number, "", committed)
    )
    values = [[float(n) for n in re.findall(number, version)] for version in (text, committed)]
    np.testing.assert_allclose(*values, atol=0.02, rtol=0)


@pytest.fixture(scope="module")
def comparison() -> Any:
    spec = importlib.util.spec_from_file_location("compare", ROOT / "scripts/compare_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("case", "name", "rows"),
    [("e5-mistral", "query_web_search", 24), ("gritlm-7b", "document_mean", 23)],
)
@pytest.mark.slow
def test_comparison(comparison: Any, case: str, name: str, rows: int, tmp_path: Path) -> None:
    """docs/comparison.md says this of sentence-transformers; a new version may need a new page."""
    runs = comparison.read_runs(BUNDLED)
    (run,) = (run for run in runs if (run.case, run.name) == (case, name))
    peer = comparison.sentence_transformers
    plain = comparison.score(peer(*comparison.documented(run)), run)
    mended = comparison.score(peer(*comparison.mend(run, tmp_path)), run)
    ours = comparison.score(comparison.llm_embeddings(run), run)
    assert (plain.right, plain.rows) == (0, rows)
    assert mended.right == ours.right == rows
    assert ours.max_abs < 1e-4


def test_comparison_reads_the_runs_of_every_family(comparison: Any) -> None:
    runs = list(comparison.read_runs(BUNDLED))
    assert {run.family for run in runs} == {"e5-mistral", "gritlm", "llm2vec"}
    assert {run.role for run in runs} == {"query", "document"}
