"""Rules of the house that a reader of one file would not notice being broken."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from helpers import ROOT

import llm_embeddings
from llm_embeddings.families import RECIPES

PACKAGE = ROOT / "src" / "llm_embeddings"
INTEGRATIONS = ("langchain", "llama-index", "sentence-transformers")
FOLDERS = ("", "docs/", "docs/*/", "examples/", "benchmarks/", "integrations/*/")
DOCUMENTS = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}*.md"))
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DRAWING = ROOT / "docs" / "assets" / "wings.svg"

# An import goes from right to left along this line, never back.
SPINE = ("recipe", "families", "checkpoint.loading", "encoder", "cli")
# These may know what a recipe is and nothing else of the package.
LEAVES = ("recipe", "batching", "pooling", "tokens", "vectors")
# sentence-transformers runs the forward itself, with gradients; the others call `Encoder`.
TENSOR_LEVEL = {"sentence-transformers": {"inputs", "pooling", "tokens"}}
# Chat models and retrievers stand on the generator and the document index.
GENERATING = {name: {"generation", "rag"} for name in ("langchain", "llama-index")}
LONGEST_FILE = 320
# One class holds all public methods; most of it is signatures and docstrings.
LONGER_FILES = {"encoder.py": 420}
LONGEST_TREE = 20


def modules() -> dict[str, Path]:
    """Paths by module name without the package's own; the package itself is ""."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes outside `if TYPE_CHECKING:`; imports inside functions do count."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from runtime_nodes(child)


@functools.cache
def imports(walk: Callable[[ast.AST], Iterator[ast.AST]] = ast.walk) -> dict[str, set[str]]:
    """By module, the modules of the package that it imports."""
    known = modules()
    return {name: imported(name, path, known, walk) for name, path in known.items()}


def imported(
    name: str, path: Path, known: Container[str], walk: Callable[[ast.AST], Iterator[ast.AST]]
) -> set[str]:
    """What one module imports of the package."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    targets = set()
    for node in walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = package[: len(package) - node.level + 1]
        elif (node.module or "").split(".")[0] == "llm_embeddings":
            base = []
        else:
            continue
        tail = (node.module or "").removeprefix("llm_embeddings").strip(".")
        origin = ".".join(part for part in [*base, tail] if part)
        for alias in node.names:
            inner = f"{origin}.{alias.name}".strip(".")
            targets.add(inner if inner in known else origin)
    return targets - {name}


def wing(name: str) -> str:
    """The directory of the root in which a module lies, or its file there."""
    first = name.partition(".")[0] or "__init__"
    return f"{first}/" if (PACKAGE / first).is_dir() else f"{first}.py"


def among(part: Callable[[str], str | None]) -> dict[str, set[str]]:
    """The imports between parts of the package; modules without a part do not count."""
    graph: dict[str, set[str]] = {}
    for name, targets in imports().items():
        if (here := part(name)) is not None:
            there = {part(target) for target in targets} - {here, None}
            graph.setdefault(here, set()).update(name for name in there if name is not None)
    return graph


def reachable(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Everything that is imported, directly or through others."""
    closure = {}
    for name in graph:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting.extend(new)
        closure[name] = seen
    return closure


def test_public_names() -> None:
    names = {
        name
        for name, value in vars(llm_embeddings).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert names == {"Encoder", "Recipe", "Template", "get_recipe", "list_recipes"}
    assert set(llm_embeddings.__all__) == names | {"__version__"}


def test_import_is_light() -> None:
    code = "import sys, llm_embeddings; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "peft", "huggingface_hub"}
    assert heavy.intersection(done.stdout.split()) == set()


def test_imports_have_no_cycles() -> None:
    closure = reachable(imports(runtime_nodes))
    assert [name for name, seen in closure.items() if name in seen] == []


@pytest.mark.parametrize("name", SPINE)
def test_imports_follow_the_spine(name: str) -> None:
    above = SPINE[SPINE.index(name) + 1 :]
    assert not reachable(imports(runtime_nodes))[name].intersection(above)


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_know_only_the_recipe(name: str) -> None:
    assert reachable(imports(runtime_nodes))[name] <= {"recipe"}


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_integrations_use_public_names(name: str) -> None:
    used: set[str] = set()
    for path in (ROOT / "integrations" / name / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            package, _, module = (getattr(node, "module", None) or "").partition(".")
            if isinstance(node, ast.ImportFrom) and package == "llm_embeddings":
                used |= {module} if module else {alias.name for alias in node.names}
    allowed = TENSOR_LEVEL.get(name, set()) | GENERATING.get(name, set())
    assert used <= set(llm_embeddings.__all__) | allowed


def test_files_are_short() -> None:
    sources = [*PACKAGE.rglob("*.py"), *ROOT.glob("integrations/*/src/**/*.py")]
    too_long = {
        path.name
        for path in sources
        if len(path.read_text(encoding="utf-8").splitlines())
        > LONGER_FILES.get(path.name, LONGEST_FILE)
    }
    assert too_long == set()


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_named_and_sourced(name: str) -> None:
    assert RECIPES[name].name == name
    assert RECIPES[name].source


def test_readme_names_every_family() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    families = {recipe.family for recipe in RECIPES.values()} - {"plain"}
    assert {family for family in families if family not in readme} == set()


def test_readme_shows_every_wing_in_a_short_tree() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, tree, _ = readme.partition("## The tree")[2].split("```", 2)
    assert len(tree.strip().splitlines()) <= LONGEST_TREE
    wings = {name for name in among(wing) if name.endswith("/")}
    assert wings <= set(re.findall(r"[\w-]+/(?=\s)", tree))


def test_architecture_names_every_file_once() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    named, folder = [], ""
    for heading, item in re.findall(r"^### `(.+)`$|^- `(.+?)`: \S", text, re.M):
        folder = heading.removeprefix("llm_embeddings/") if heading else folder
        named += [folder] if heading else [folder + item]
    there = [path.relative_to(PACKAGE).as_posix() for path in modules().values()]
    there = [name.removesuffix("__init__.py") for name in there if name != "__init__.py"]
    assert sorted(filter(None, named)) == sorted(there)
    prose = text.partition("## Every file")[0]
    files = set(re.findall(r"`([\w/]+(?:/|\.py))`", prose))
    assert files <= {*there, "__init__.py"}


def test_architecture_says_what_imports_what() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \|(.*)\|$", text, re.M)
    written = {name: set(re.findall(r"`(.+?)`", cell)) for name, cell in rows}
    assert written == among(wing)


def test_drawing_shows_the_wings_in_layers() -> None:
    """Its numbers are those of the page."""
    depth: dict[str, int] = {}
    steps = []
    for layer, group in enumerate(ElementTree.parse(DRAWING).iterfind("{*}g[@class='layer']")):
        for text in group.iterfind("{*}text"):
            name = text.text or ""
            if text.get("class") == "f":
                assert name not in depth
                depth[name] = layer
            elif text.get("class") == "nt":  # beside the name it belongs to
                steps.append((name, [*depth][-1]))
    assert set(depth) == set(among(wing))
    page = ARCHITECTURE.read_text(encoding="utf-8")
    assert sorted(steps) == re.findall(r"^(\d)\. `(.+?)`", page, re.M)


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_integration_follows_the_core_version(name: str) -> None:
    folder = ROOT / "integrations" / name
    major, minor, _ = llm_embeddings.__version__.split(".")
    project = (folder / "pyproject.toml").read_text(encoding="utf-8")
    assert f"llm-embeddings>={major}.{minor},<{major}.{int(minor) + 1}" in project


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_named_tests_exist() -> None:
    text = (ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
    missing = []
    for file, name in set(re.findall(r"`([\w./-]+\.py)::(\w+)`", text)):
        path = ROOT / file
        if not path.is_file() or f"def {name}(" not in path.read_text(encoding="utf-8"):
            missing.append(f"{file}::{name}")
    assert missing == []
