"""The documentation says what is so: its code runs, its commands work, its errors exist."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import sysconfig
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from helpers import BUNDLED, ROOT
from typer.testing import CliRunner

from llm_embeddings import get_recipe
from llm_embeddings.cli import app

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Hub ids on these pages -> tiny checkpoints in the same layouts.
HUB = {
    "intfloat/e5-mistral-7b-instruct": "e5-mistral/model",
    "GritLM/GritLM-7B": "gritlm-7b/model",
    "McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp": "llm2vec-mistral/mntp",
    "McGill-NLP/LLM2Vec-Mistral-7B-Instruct-v2-mntp-supervised": "llm2vec-mistral/supervised",
}
# Names of a reader's own files on these pages.
OWN = {
    "my-e5": "e5-mistral/model",
    "my-decoder": "e5-mistral/model",
    "my-adapter": "llm2vec-mistral/supervised",
    "my-embedder": "gritlm-7b/model",
}


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    found = re.findall(
        rf"^ *```{language}\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.M | re.S
    )
    return [textwrap.dedent(block) for block in found]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def messages() -> list[str]:
    """Every string of the sources; what is filled in later is a NUL."""
    found = []
    for path in ROOT.glob("src/llm_embeddings/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                found.append("".join(p if isinstance(p, str) else "\0" for p in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def named_errors() -> list[str]:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^### `(.+)`$", text, re.M)


def commands() -> list[Any]:
    """The lines of all shell blocks, those that go on joined, by page."""
    found = []
    for path in [ROOT / "README.md", *PAGES]:
        text = "\n".join(blocks(path, "bash")).replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line.strip()]
        if lines:
            found.append(pytest.param(lines, id=path.stem))
    return found


def site_pages(entry: Any) -> Iterator[str]:
    """The pages under an entry of the navigation."""
    if isinstance(entry, str):
        yield entry
        return
    for child in entry.values() if isinstance(entry, dict) else entry:
        yield from site_pages(child)


@pytest.fixture
def desk(tmp_path: Path, short_corpus: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's files, a hub that has the checkpoints of these pages, and a short corpus."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, model in OWN.items():
        (tmp_path / name).symlink_to(BUNDLED / model)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "backup.md").write_text("# Backups\n\nRestore them with tar.\n")
    (tmp_path / "passages.jsonl").write_text('{"body": "Cats purr."}\n{"body": "Dogs bark."}\n')
    (tmp_path / "queries.txt").write_text("Which animal purrs?\n")
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **_: str(BUNDLED / HUB[name])
    )
    return tmp_path


COMPILES = shutil.which(os.environ.get("CXX", "g++")) is not None and (
    Path(sysconfig.get_paths()["include"], "Python.h").is_file()
)
NEEDS_COMPILER = pytest.mark.skipif(not COMPILES, reason="int8 needs a C++ compiler and Python.h")
PYTHON = [
    pytest.param(
        block,
        id=f"{path.stem}-{index}",
        marks=[NEEDS_COMPILER] if 'quantization="int8"' in block else [],
    )
    for path in PAGES
    for index, block in enumerate(blocks(path, "python"))
]


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("block", PYTHON)
@pytest.mark.slow
def test_python_runs(block: str) -> None:
    exec(compile(block, "docs", "exec"), {"__name__": "__main__"})


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("lines", commands())
@pytest.mark.slow
def test_commands_work(lines: list[str]) -> None:
    for line in lines:
        name, *arguments = shlex.split(re.sub(r"^HF_HUB_OFFLINE=1 ", "", line), comments=True)
        if name == "llm-embeddings":
            result = CliRunner(env={"HF_HUB_OFFLINE": "1"}).invoke(app, arguments)
            assert result.exit_code == 0, f"{line}\n{result.output}"
        elif name == "pip":
            assert arguments[0] == "install"
            assert [name for name in arguments[1:] if not is_known(name)] == []
        elif name == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{arguments[0]}:", makefile, re.M), line
        else:
            assert name == "python", line
            assert (ROOT / arguments[0]).is_file(), line


def is_known(requirement: str) -> bool:
    """Whether a distribution of this repository has these extras; others are taken as they are."""
    name, _, extras = requirement.rstrip("]").partition("[")
    projects = {}
    for path in [ROOT / "pyproject.toml", *ROOT.glob("integrations/*/pyproject.toml")]:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        projects[project["name"]] = project.get("optional-dependencies", {})
    if "llm-embeddings" in name:
        return name in projects and set(filter(None, extras.split(","))) <= set(projects[name])
    return True


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_extras_exist(path: Path) -> None:
    named = re.findall(r'`pip install "?([^`"]+)"?`', path.read_text(encoding="utf-8"))
    assert [requirement for requirement in named if not is_known(requirement)] == []


@pytest.mark.slow
@pytest.mark.parametrize("error", named_errors())
def test_errors_exist(error: str) -> None:
    pattern = ".*".join(map(re.escape, error.split("…")))
    assert any(re.search(pattern, text, re.S) for text in messages())


def test_families_are_the_recipes() -> None:
    generator = load(ROOT / "scripts" / "docs_families.py")
    assert (DOCS / "families.md").read_text(encoding="utf-8") == generator.page(), (
        "run python scripts/docs_families.py"
    )


def test_options_of_other_classes_are_all_answered() -> None:
    generator = load(ROOT / "scripts" / "docs_hosts.py")
    assert (DOCS / "hosts.md").read_text(encoding="utf-8") == generator.page(), (
        "run python scripts/docs_hosts.py"
    )


def test_compared_checkpoints_are_listed_with_their_limit() -> None:
    text = (DOCS / "choosing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\S+/\S+)`[^|]*\|[^|]+\| (\d+) \|", text, re.M)
    assert len(rows) > 10
    assert {name: int(limit) for name, limit in rows} == {
        name: get_recipe(name).max_length for name, _ in rows
    }


def test_navigation_has_every_page() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = list(site_pages(config["nav"]))
    brought_in = load(DOCS / "hooks.py").PAGES
    assert [path for path in brought_in if not (ROOT / path).is_file()] == []
    there = {str(path.relative_to(DOCS)) for path in PAGES} | set(brought_in.values())
    assert sorted(listed) == sorted(there)


def test_links_work_in_the_repository_and_on_the_site() -> None:
    rewrite = load(DOCS / "hooks.py").on_page_markdown
    text = "[a](../integrations/langchain/README.md#cache) [b](../Makefile) [c](../no.md) [d](x.md)"
    page = SimpleNamespace(file=SimpleNamespace(src_uri="speed.md"))
    expected = "[a](integrations/langchain.md#cache) b [c](../no.md) [d](x.md)"
    assert rewrite(text, page, None, None) == expected
    page.file.src_uri = "integrations/langchain.md"
    assert rewrite("[a](../../docs/speed.md)", page, None, None) == "[a](../speed.md)"
    assert rewrite("```\n[b](../Makefile)\n```", page, None, None) == "```\n[b](../Makefile)\n```"


def test_reference_names_exist() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    for entry in re.split(r"^::: ", text, flags=re.M)[1:]:
        module, _, name = entry.split()[0].rpartition(".")
        found = getattr(importlib.import_module(module), name)
        listed = re.search(r"members:(?: \[(.*)\]|((?:\n +- \w+)+))", entry)
        members = re.findall(r"\w+", "".join(filter(None, listed.groups()))) if listed else []
        fields = getattr(found, "model_fields", {})
        missing = [name for name in members if name not in fields and not hasattr(found, name)]
        assert missing == [], name


def test_pages_are_short() -> None:
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in PAGES}
    del lines["families.md"], lines["architecture.md"]  # lists of what there is
    assert {name: count for name, count in lines.items() if count > 240} == {}


def test_the_versions_that_were_tried_are_those_that_run() -> None:
    page = (ROOT / "docs" / "vector_stores.md").read_text(encoding="utf-8")
    table = page.partition("## Tried with")[2].partition("## ")[0]
    shown = {}
    for names, versions in re.findall(r"^\| (`.+?`) \| ([\d., ]+) \|", table, re.M):
        shown |= zip(re.findall("`(.+?)`", names), versions.split(", "), strict=True)
    text = (ROOT / "tests" / "hosts" / "requirements.txt").read_text(encoding="utf-8")
    assert shown == dict(re.findall(r"^([\w-]+)(?:\[.*\])?==(.+)$", text, re.M))
