"""What a release must keep in step: the translation, versions, dependencies, the workflows."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import llm_embeddings

INTEGRATIONS = sorted(ROOT.glob("integrations/*/"))
WORKFLOWS = ROOT / ".github" / "workflows"
FORMS = sorted(ROOT.glob(".github/ISSUE_TEMPLATE/[!c]*.yml"))
CODE_BLOCK = re.compile(r"^```.*?^```$", re.M | re.S)
# Each README links to the other one.
LANGUAGES = {"README.md", "README.zh-CN.md"}
# `llm-embeddings demo` shows the one where it is installed, `verify` compares with the other.
NOT_REQUIRED = {"langchain-llm-embeddings", "sentence-transformers"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))


def sections(name: str) -> list[dict[str, Any]]:
    """What a translation must not change, section by section."""
    blocks = CODE_BLOCK.findall(read(name))
    found = []
    for part in re.split(r"^(?=#)", CODE_BLOCK.sub("```", read(name)), flags=re.M):
        prose = re.sub(r"`[^`\n]+`|\]\([^)]+\)", "", part)
        found.append(
            {
                "level": len(part) - len(part.lstrip("#")),
                "code blocks": [blocks.pop(0) for _ in re.findall(r"^```$", part, re.M)],
                "code in the text": Counter(re.findall(r"`[^`\n]+`", part)),
                "links": Counter(re.findall(r"\]\(([^)]+)\)", part)) - Counter(LANGUAGES),
                "bars of table rows": [row.count("|") for row in re.findall(r"^\|.*$", part, re.M)],
                "list items": len(re.findall(r"^ *(?:[-*]|\d+\.) ", part, re.M)),
                "numbers": Counter(re.findall(r"\d+(?:[.,]\d+)*", prose)),
            }
        )
    return found


def imported(source: Path) -> set[str]:
    """Names of the packages that the modules below a folder import, at any time."""
    names = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


def declared(folder: Path) -> set[str]:
    """Distributions that a project names, its extras included."""
    facts = project(folder)
    extras = facts.get("optional-dependencies", {})
    lines = [line for name, lines in extras.items() if name != "dev" for line in lines]
    return {canonicalize_name(Requirement(line).name) for line in [*facts["dependencies"], *lines]}


def test_translation_has_the_same_sections() -> None:
    first, second = ([section["level"] for section in sections(name)] for name in LANGUAGES)
    assert first == second


@pytest.mark.parametrize("index", range(len(sections("README.md"))))
def test_translation_says_the_same(index: int) -> None:
    assert sections("README.zh-CN.md")[index] == sections("README.md")[index]


def test_readmes_link_to_each_other() -> None:
    assert "](README.zh-CN.md)" in read("README.md")
    assert "](README.md)" in read("README.zh-CN.md")


def test_changelog_and_citation_are_of_this_version() -> None:
    changes = re.findall(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", read("CHANGELOG.md"), re.M)
    citation = yaml.safe_load(read("CITATION.cff"))
    assert changes[0][0] == llm_embeddings.__version__
    assert (citation["version"], str(citation["date-released"])) == changes[0]


@pytest.mark.parametrize("folder", INTEGRATIONS, ids=lambda folder: folder.name)
def test_integration_takes_its_version_from_the_core(folder: Path) -> None:
    metadata = ProjectMetadata(str(folder), PluginManager())
    origin = folder / metadata.hatch.version.config["path"]
    assert origin.resolve() == ROOT / "src/llm_embeddings/__init__.py"
    assert metadata.version == llm_embeddings.__version__


@pytest.mark.parametrize("folder", INTEGRATIONS, ids=lambda folder: folder.name)
def test_integration_carries_the_licence(folder: Path) -> None:
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("folder", [ROOT, *INTEGRATIONS], ids=lambda folder: folder.name)
def test_imports_are_declared(folder: Path) -> None:
    """Lazy imports too, which a quickstart may never reach."""
    known = importlib.metadata.packages_distributions()
    allowed = declared(ROOT) | declared(folder)
    undeclared = {
        name
        for name in imported(folder / "src")
        if not allowed.intersection(map(canonicalize_name, known.get(name, [name])))
    }
    assert {canonicalize_name(name) for name in undeclared} <= NOT_REQUIRED


@pytest.mark.parametrize("folder", [ROOT, *INTEGRATIONS], ids=lambda folder: folder.name)
def test_declared_pythons_are_tested(folder: Path) -> None:
    facts = project(folder)
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(facts["classifiers"]))
    assert workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == versions
    assert facts["requires-python"] == f">={versions[0]}"


def test_every_distribution_is_published() -> None:
    names = [project(folder)["name"] for folder in [ROOT, *INTEGRATIONS]]
    publish = workflow("release.yml")["jobs"]["publish"]
    assert publish["strategy"]["matrix"]["distribution"] == names


def test_only_publishing_has_rights() -> None:
    rights = {}
    for path in WORKFLOWS.glob("*.yml"):
        assert workflow(path.name)["permissions"] == {"contents": "read"}
        for name, job in workflow(path.name)["jobs"].items():
            rights[path.stem, name] = job.get("permissions")
    assert {job: right for job, right in rights.items() if right} == {
        ("release", "publish"): {"id-token": "write"}
    }


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_have_what_github_requires(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    ids = [field["id"] for field in form["body"]]
    labels = [field["attributes"]["label"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert len(set(labels)) == len(labels)


def test_issue_forms_name_commands_that_exist() -> None:
    from typer.main import get_group

    from llm_embeddings.cli import app

    text = "".join(path.read_text(encoding="utf-8") for path in FORMS)
    used = set(re.findall(r"llm-embeddings ([a-z]+)", text))
    assert used
    assert used <= get_group(app).commands.keys()
