"""The page of `search --serve`: what it answers, and whom it does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.searching import refresh, words_to_vectors
from starlette.testclient import TestClient

from llm_embeddings.searching.index import Index
from llm_embeddings.searching.page.app import Searched, create_page


@pytest.fixture
def page(folder: Path, directory: Path) -> Iterator[TestClient]:
    (folder / "odd.txt").write_text("<script>alert(1)</script> & more bread")
    changes = refresh(folder, directory)
    names = {path: Path(path).name for path in changes.files}

    def encode(query: str) -> object:
        return words_to_vectors([query])[0]

    with Index(directory, "m", "m") as index:
        searched = Searched(index, changes.files, names, encode, "notes & more")
        yield TestClient(create_page(searched), base_url="http://127.0.0.1:8321")


def places(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def test_the_page_stands_without_its_script(page: TestClient) -> None:
    empty = page.get("/")
    assert empty.status_code == 200
    assert "3 files to search" in empty.text
    assert "<h1>notes &amp; more</h1>" in empty.text
    found = page.get("/", params={"q": "bake bread", "mode": "words"})
    assert places(found.text) == ["kitchen.md:3", "odd.txt:1"]
    assert 'value="bake bread"' in found.text
    assert 'value="words" checked' in found.text
    assert "We <mark>bake</mark> <mark>bread</mark>." in found.text
    assert "2 of 5 passages" in found.text


def test_its_script_gets_the_hits_alone(page: TestClient) -> None:
    part = page.get("/", params={"q": "hed", "part": "1", "mode": "words"}).text
    assert places(part) == ["garden.txt:3"]  # the word is still being typed
    assert "<form" not in part
    assert "Nothing found" in page.get("/?q=zebra&part=1&mode=words").text


def test_kinds_of_files_are_chosen(page: TestClient) -> None:
    text = page.get("/", params={"q": "bread", "kind": ["markdown", "none"]}).text
    assert {place.partition(":")[0] for place in places(text)} == {"kitchen.md"}
    assert re.search(r'value="markdown" checked> markdown <small>1</small>', text)


def test_text_of_a_file_is_no_html(page: TestClient) -> None:
    text = page.get("/", params={"q": "<script>bread", "mode": "words"}).text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert 'value="&lt;script&gt;bread"' in text


def test_only_this_machine_by_its_own_name_is_answered(page: TestClient) -> None:
    assert page.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert page.get("/", headers={"Host": "localhost:8321"}).status_code == 200
    assert page.post("/").status_code == 405
    assert page.get("/app.py").status_code == 404
    for name in ("/", "/style.css", "/page.js"):
        answer = page.get(name)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert re.findall(r"(?:https?:)?//[a-z]", answer.text) == []
