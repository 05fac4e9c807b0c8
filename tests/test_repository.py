"""Rules of the house that a reader of one file would not notice being broken."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Container, Mapping
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
SPINE = ("recipe", "families", "model", "checkpoint.loading", "encoder", "cli")
# These may know what a recipe is, and each other; nothing else of the package.
LEAVES = ("faces", "recipe", "batching", "cutting", "joins", "packed.pooling", "tokens", "vectors")
# These are written against `Encoder`, as users' programs are. Nothing else may know it.
APPLICATIONS = {
    f"{name}/"
    for name in (
        "cli",
        "distributed",
        "evaluation",
        "generation",
        "rag",
        "searching",
        "serving",
        "synthesis",
        "training",
    )
}
# The encoder, and what it is put together from.
ENCODER = {"__init__.py", "encoder.py", "base_encoder.py", "opening.py", "streams.py"}
# sentence-transformers runs the forward itself, with gradients; the others call `Encoder`.
TENSOR_LEVEL = {
    "sentence-transformers": {"inputs", "model", "packed.padded", "packed.pooling", "tokens"}
}
# Chat models and retrievers stand on the generator and the document index.
GENERATING = {name: {"generation", "rag"} for name in ("langchain", "llama-index")}
# What every entry builds its options of: a call's, and those of loading.
OPTIONS = {"faces", "inputs", "checkpoint.options"}
LONGEST_FILE = 300
MOST_AT_THE_ROOT = 16
LONGEST_TREE = 20


def modules() -> dict[str, Path]:
    """Paths by module name without the package's own; the package itself is ""."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


@functools.cache
def imports() -> dict[str, set[str]]:
    """By module, the modules of the package that it imports.

    Imports inside functions and under `if TYPE_CHECKING:` count: a reader follows them, too.
    """
    known = modules()
    return {name: imported(name, path, known) for name, path in known.items()}


def imported(name: str, path: Path, known: Container[str]) -> set[str]:
    """What one module imports of the package."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    targets = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


def sub_package(name: str) -> str | None:
    """The package inside a wing in which a module lies; None if it lies in the wing itself."""
    wing, inner, *_ = [*name.split("."), ""]
    return f"{wing}/{inner}/" if (PACKAGE / wing / inner).is_dir() and inner else None


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


def in_rings(graph: Mapping[str, set[str]]) -> list[str]:
    """Parts that import themselves through others."""
    return sorted(name for name, seen in reachable(graph).items() if name in seen)


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


def test_files_do_not_import_each_other_in_rings() -> None:
    assert in_rings(imports()) == []


def test_wings_do_not_import_each_other_in_rings() -> None:
    assert in_rings(among(wing)) == []


def test_packages_of_a_wing_do_not_import_each_other_in_rings() -> None:
    assert in_rings(among(sub_package)) == []


@pytest.mark.parametrize("name", SPINE)
def test_imports_follow_the_spine(name: str) -> None:
    above = SPINE[SPINE.index(name) + 1 :]
    assert not reachable(imports())[name].intersection(above)


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_know_only_the_recipe(name: str) -> None:
    assert reachable(imports())[name] <= set(LEAVES)


def test_only_applications_know_the_encoder() -> None:
    """The package itself counts as well: it exports `Encoder`."""
    knowing = {wing(name) for name, targets in imports().items() if targets & {"encoder", ""}}
    assert knowing - APPLICATIONS == {"__init__.py"}
    knowing = {a for a, targets in among(wing).items() if targets & ENCODER}
    assert knowing - APPLICATIONS <= ENCODER


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_integrations_use_public_names(name: str) -> None:
    used: set[str] = set()
    for path in (ROOT / "integrations" / name / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            package, _, module = (getattr(node, "module", None) or "").partition(".")
            if isinstance(node, ast.ImportFrom) and package == "llm_embeddings":
                used |= {module} if module else {alias.name for alias in node.names}
    allowed = TENSOR_LEVEL.get(name, set()) | GENERATING.get(name, set())
    assert used <= set(llm_embeddings.__all__) | OPTIONS | allowed


def test_files_are_short() -> None:
    sources = [*PACKAGE.rglob("*.py"), *ROOT.glob("integrations/*/src/**/*.py")]
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in sources
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
    }
    assert too_long == {}


def test_the_root_is_seen_in_one_look() -> None:
    root = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert len(root) <= MOST_AT_THE_ROOT, sorted(root)


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
    above: set[str] = set()
    for name, targets in written.items():
        assert targets <= above, f"{name} imports what stands below it"
        above.add(name)


def test_drawing_shows_the_wings_in_layers() -> None:
    """No import goes up in the drawing; its numbers are those of the page."""
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
    graph = among(wing)
    assert set(depth) == set(graph)
    assert [(a, b) for a, found in graph.items() for b in found if depth[b] < depth[a]] == []
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
