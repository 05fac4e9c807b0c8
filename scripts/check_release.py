"""Build what would be published, and use it as somebody would who has nothing else.

Every distribution is built as an sdist, its wheel from that sdist. The wheel must hold exactly the
files of its source folder, and is installed with what it declares into an environment of its own,
where the README's quickstart runs. By default that environment is linked together from the packages
of the running one, which takes neither the network nor the minutes of another copy of PyTorch.

    python scripts/check_release.py
    python scripts/check_release.py --from-index --dist dist
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import venv
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT, *sorted(ROOT.glob("integrations/*/")))
# The bundled model makes the core large; nothing else has a reason to be.
LARGEST = {"llm-embeddings": 25_000_000}
LARGEST_OTHERWISE = 100_000
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    "HF_HUB_OFFLINE": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True)
class Release:
    """A distribution, built."""

    name: str
    version: str
    folder: Path
    sdist: Path
    wheel: Path
    requires: tuple[str, ...]


class ReleaseError(Exception):
    """What is wrong with a distribution, in words."""


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command, which must succeed.

    Raises:
        ReleaseError: The command failed; the message ends with what it wrote.
    """
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        words = " ".join(str(part) for part in command)[:200]
        raise ReleaseError(f"`{words}` failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def build(folder: Path, dist: Path, work: Path) -> Release:
    """The sdist of a project folder, and the wheel that the sdist alone gives.

    Raises:
        ReleaseError: The build failed, or files of an earlier one are in the way.
    """
    name = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]["name"]
    unpacked, dist = work / "unpacked" / name, dist / name
    if dist.exists():
        raise ReleaseError(f"{dist} is there already: remove it, or name another --dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", dist, cwd=folder)
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    [source] = unpacked.iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist, cwd=source)
    [wheel] = dist.glob("*.whl")
    metadata = wheel_metadata(wheel)
    return Release(
        name=name,
        version=metadata["Version"],
        folder=folder,
        sdist=sdist,
        wheel=wheel,
        requires=tuple(metadata.get_all("Requires-Dist", [])),
    )


def wheel_metadata(wheel: Path) -> Message:
    """The METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def check_contents(release: Release) -> None:
    """Everything of the source folder is in the wheel, and nothing that has no business there.

    Raises:
        ReleaseError: Files are missing, unexpected or too large.
    """
    source = release.folder / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(release.wheel) as archive:
        names = set(archive.namelist())
    with tarfile.open(release.sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    packed = {name for name in names if ".dist-info/" not in name}
    licences = {name.partition("/licenses/")[2] for name in names}
    largest = LARGEST.get(release.name, LARGEST_OTHERWISE)
    problems = {
        "missing in the wheel": expected - packed,
        "not in src but in the wheel": packed - expected,
        "missing in the sdist": {"LICENSE", "README.md", "pyproject.toml"} - sources,
        "golden cases in the sdist": {name for name in sources if "tests/golden" in name},
        "missing in the wheel's metadata": {"LICENSE"} - licences,
        "missing in the package": {"py.typed"} - {Path(name).name for name in packed},
        f"larger than {largest:,} bytes": {
            path.name for path in (release.sdist, release.wheel) if path.stat().st_size > largest
        },
    }
    found = {words: sorted(files) for words, files in problems.items() if files}
    if found:
        lines = [f"{words}: {', '.join(files)}" for words, files in found.items()]
        raise ReleaseError("\n  ".join([f"{release.name}:", *lines]))


def check_versions(releases: list[Release]) -> None:
    """All distributions bear one version.

    Raises:
        ReleaseError: They do not.
    """
    versions = {release.name: release.version for release in releases}
    if len(set(versions.values())) != 1:
        raise ReleaseError(f"versions differ: {versions}")


def needed(requires: Iterable[str], ours: dict[str, Release]) -> Iterator[str]:
    """Names of all distributions that requirements lead to, our own through their wheels.

    Raises:
        ReleaseError: A requirement is not met by the running environment.
    """
    waiting = [(Requirement(line), frozenset({""})) for line in requires]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, extras = waiting.pop()
        if requirement.marker and not any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras
        ):
            continue
        name = canonicalize_name(requirement.name)
        inner = frozenset(requirement.extras) | {""}
        if (name, inner) in seen:
            continue
        seen.add((name, inner))
        version, lines = installed(name, ours)
        if not requirement.specifier.contains(version, prereleases=True):
            raise ReleaseError(f"{requirement} is wanted, {name} {version} is here")
        waiting.extend((Requirement(line), inner) for line in lines)
        yield name


def installed(name: str, ours: dict[str, Release]) -> tuple[str, Iterable[str]]:
    """Version and requirements of a distribution: of the wheel just built, else of what is here."""
    if name in ours:
        return ours[name].version, ours[name].requires
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise ReleaseError(f"{name} is required but not installed here") from error
    return found.version, found.requires or ()


def link(name: str, site: Path) -> None:
    """Make an installed distribution importable elsewhere.

    Packages are linked whole. Namespace packages are linked file by file: several distributions
    share their folders, and what is installed later would be written through a link to one.
    """
    found = importlib.metadata.distribution(name)
    for file in found.files or ():
        top = Path(file.parts[0])
        origin = Path(str(found.locate_file(top)))
        whole = top.suffix == ".dist-info" or (origin / "__init__.py").exists()
        target = site / (top if whole else file)
        if top.name != ".." and not target.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(origin if whole else Path(str(found.locate_file(file))))


def install(release: Release, ours: dict[str, Release], place: Path, from_index: bool) -> Path:
    """A new environment with one distribution and what it declares; its interpreter."""
    venv.create(place, symlinks=True)
    python = place / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q")
    wanted = {canonicalize_name(Requirement(line).name) for line in release.requires}
    wheels = [release.wheel, *(ours[name].wheel for name in sorted(wanted & ours.keys()))]
    if from_index:
        run(*pip, "-c", ROOT / "constraints.txt", *wheels, cwd=place)
        return python
    [site] = place.glob("lib/python*/site-packages")
    for name in needed(release.requires, ours):
        if name not in ours:
            link(name, site)
    run(*pip, "--no-index", "--no-deps", *wheels, cwd=place)
    return python


def quickstart(name: str) -> str:
    """The README's first Python block after the line that installs a distribution.

    Raises:
        ReleaseError: The README has none.
    """
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = rf"pip install {re.escape(name)}\b(?!-).*?```python\n(.*?)```"
    found = re.search(block, readme, re.S)
    if not found:
        raise ReleaseError(f"README.md has no `pip install {name}` with a Python block after it")
    return found[1]


def check_use(python: Path, release: Release) -> None:
    """Run the quickstart far from the repository.

    Raises:
        ReleaseError: It fails, or runs on anything but the wheel.
    """
    place = python.parents[1]
    code = f"{quickstart(release.name)}\nimport llm_embeddings\nprint(llm_embeddings.__file__)\n"
    *_, origin = run(python, "-I", "-W", "ignore", "-c", code, cwd=place).splitlines()
    if not Path(origin).is_relative_to(place):
        raise ReleaseError(f"{release.name}: the quickstart used {origin}, not the wheel")
    if release.name == "llm-embeddings":
        said = run(place / "bin" / "llm-embeddings", "--version", cwd=place)
        if release.version not in said:
            raise ReleaseError(f"`llm-embeddings --version` says {said.strip()!r}")


def main() -> None:
    """Build, look inside, install, use."""
    parser = argparse.ArgumentParser(description="Build and check all distributions.")
    parser.add_argument("--dist", type=Path, help="keep the files here, one folder each")
    parser.add_argument(
        "--from-index", action="store_true", help="install dependencies with pip, as a user does"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary).resolve()
        dist = (options.dist or work / "dist").resolve()
        releases = [build(folder, dist, work) for folder in FOLDERS]
        check_versions(releases)
        ours = {release.name: release for release in releases}
        for release in releases:
            started = time.perf_counter()
            check_contents(release)
            with tempfile.TemporaryDirectory(dir=work) as place:
                check_use(install(release, ours, Path(place), options.from_index), release)
            seconds = time.perf_counter() - started
            size = release.wheel.stat().st_size / 1e6
            print(f"{release.name} {release.version}: {size:.2f} MB, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except ReleaseError as error:
        sys.exit(str(error))
