"""Fingerprints differ whenever vectors do, and are read from disk once."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.other_models import CHANGES, E5, SHARD, configured, copy_of
from torch import nn

from llm_embeddings import Encoder
from llm_embeddings.storage import hashing
from llm_embeddings.storage.hashing import note, noted, stamp

TEXTS = ["Paris lies in France, on the river Seine.", "x y z"]


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where hashes of files are noted; files count as old at once."""
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.setattr(hashing, "_SETTLED_SECONDS", -1e6)
    return tmp_path / "assets/llm-embeddings/hashes"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each module whose weights are hashed."""
    found: list[int] = []

    def counting(*arguments: Any) -> str:
        found.append(1)
        return hashing.hash_blocks(*arguments)

    monkeypatch.setattr("llm_embeddings.vector_cache.fingerprint.hash_blocks", counting)
    return found


def opened(path: Path, **options: Any) -> Encoder:
    return Encoder.from_pretrained(path, dtype="float32", device="cpu", **options)


@pytest.fixture
def encoder() -> Iterator[Encoder]:
    found = opened(E5)
    yield found
    found.close()


# -- what it covers --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_vectors_changes_it(tmp_path: Path, encoder: Encoder, name: str) -> None:
    path = copy_of(tmp_path / "model")
    CHANGES[name](path)
    other = opened(path)
    assert not np.allclose(other.encode(TEXTS), encoder.encode(TEXTS), atol=1e-3)
    assert other.fingerprint() != encoder.fingerprint()
    assert held(other).fingerprint() == other.fingerprint()
    assert held(encoder).fingerprint() == encoder.fingerprint()


def held(encoder: Encoder) -> Encoder:
    """The same model, which no file stands for."""
    return Encoder(encoder.backbone, encoder.tokenizer, encoder.recipe)


def test_names_paths_and_versions_do_not(tmp_path: Path, encoder: Encoder) -> None:
    path = copy_of(tmp_path / "elsewhere")
    configured(path, _name_or_path="other/name", transformers_version="1.0", use_cache=True)
    assert opened(path).fingerprint() == encoder.fingerprint()
    assert opened(path, attn_implementation="eager").fingerprint() == encoder.fingerprint()


def test_adapters_count_with_their_scale(tmp_path: Path) -> None:
    mntp = shutil.copytree(E5.parents[1] / "llm2vec-mistral", tmp_path / "case") / "mntp"
    before, again = opened(mntp).fingerprint(), opened(mntp).fingerprint()
    assert before == again
    file = mntp / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"peft_version": "9"}), encoding="utf-8")
    assert opened(mntp).fingerprint() == before
    file.write_text(json.dumps(config | {"lora_alpha": 7}), encoding="utf-8")
    assert opened(mntp).fingerprint() != before


def in_place(backbone: Any) -> None:
    with torch.no_grad():
        backbone.layers[1].mlp.up_proj.weight[3, 5] += 1


def by_module(backbone: Any) -> None:
    backbone.layers[0].mlp.act_fn = nn.ReLU()


def by_buffer(backbone: Any) -> None:
    backbone.rotary_emb.inv_freq.mul_(2)


def by_moving(backbone: Any) -> None:
    backbone.to(torch.bfloat16)


@pytest.mark.parametrize("change", [in_place, by_module, by_buffer, by_moving])
def test_a_change_in_memory_shows(encoder: Encoder, change: Callable[[Any], None]) -> None:
    before = encoder.fingerprint()
    change(encoder.backbone)
    after = encoder.fingerprint()
    assert after != before
    assert pickle.loads(pickle.dumps(encoder)).fingerprint() == after


def test_changes_of_numbers_and_heads_show(encoder: Encoder) -> None:
    before = held(encoder).fingerprint()
    encoder.backbone.norm.variance_epsilon = 0.5
    numbers = held(encoder).fingerprint()
    object.__setattr__(encoder.model, "head", nn.Linear(32, 8))
    with_head = encoder.fingerprint()
    with torch.no_grad():
        encoder.model.head.weight[0, 0] += 1  # type: ignore[attr-defined]
    assert len({before, numbers, with_head, encoder.fingerprint()}) == 4


def test_positions_that_grow_with_the_texts_do_not(tmp_path: Path) -> None:
    path = copy_of(tmp_path / "model")
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    configured(path, rope_parameters=rope, max_position_embeddings=4096)
    encoder = opened(path)
    before = encoder.fingerprint(), held(encoder).fingerprint()
    encoder.backbone.rotary_emb.inv_freq = torch.ones(4)
    assert (encoder.fingerprint(), held(encoder).fingerprint()) == before


# -- what is read, and when ------------------------------------------------------------------------


def test_weights_are_hashed_once(encoder: Encoder, reads: list[int], notes: Path) -> None:
    found = {role: encoder.fingerprint(role) for role in ("query", "document")}
    assert (len(reads), len(list(notes.iterdir()))) == (1, 1)
    again = opened(E5)
    assert {role: again.fingerprint(role) for role in ("query", "document")} == found
    assert pickle.loads(pickle.dumps(again)).fingerprint() == found["document"]
    assert len(reads) == 1
    in_place(again.backbone)
    assert again.fingerprint() != found["document"]
    assert len(reads) == 2
    assert len(list(notes.iterdir())) == 1


def test_nothing_is_read_before_it_is_asked_for(encoder: Encoder, reads: list[int]) -> None:
    encoder.encode(TEXTS)
    copy.deepcopy(encoder)
    pickle.dumps(encoder)
    assert not reads


def test_files_that_were_replaced_do_not_stand_for_the_weights(tmp_path: Path) -> None:
    """Neither what lies there by now nor what is in memory gets the other one's name."""
    path = copy_of(tmp_path / "model")
    encoder = opened(path)
    wanted = held(encoder).fingerprint()
    shutil.copy(path / SHARD, tmp_path / "copy").replace(path / SHARD)
    CHANGES["rows"](path)
    assert encoder.fingerprint() == wanted
    assert opened(path).fingerprint() == opened(path).fingerprint() != wanted


# -- notes of hashes -------------------------------------------------------------------------------


def as_link(place: Path) -> None:
    other = place.with_suffix(".other")
    place.rename(other)
    place.symlink_to(other)


def writable(place: Path) -> None:
    place.chmod(0o666)


def as_pipe(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


def as_folder(place: Path) -> None:
    place.unlink()
    place.mkdir()


def of_another(place: Path) -> None:
    note = json.loads(place.read_text(encoding="utf-8"))
    note["files"][0]["modified"] += 1
    place.write_text(json.dumps(note), encoding="utf-8")


def of_another_hash(place: Path) -> None:
    place.write_text(place.read_text(encoding="utf-8").replace("aaaa", "aaab", 1), encoding="utf-8")


def holding(text: str) -> Callable[[Path], object]:
    return lambda place: place.write_text(text, encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="links, modes and pipes of POSIX")
@pytest.mark.parametrize(
    "harm",
    [
        *(as_link, writable, as_pipe, as_folder, of_another, of_another_hash),
        *map(holding, ("", "[" * 60000, '{"hash": 3}', '"' + "a" * 2**20)),
    ],
)
def test_a_note_that_is_not_ones_own_is_not_believed(
    tmp_path: Path, notes: Path, harm: Callable[[Path], object]
) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    files = [stamp(tmp_path / "file")]
    note(files, {"dtype": "float32"}, "a" * 64)
    assert noted(files, {"dtype": "float32"}) == "a" * 64
    assert noted(files, {"dtype": "float16"}) is None
    (place,) = notes.iterdir()
    harm(place)
    assert noted(files, {"dtype": "float32"}) is None
    note(files, {"dtype": "float32"}, "b" * 64)
    assert noted(files, {"dtype": "float32"}) == ("b" * 64 if harm is not as_folder else None)


def test_what_is_being_written_is_not_noted(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a file system is coarse: a second write could leave all times as they are."""
    file = tmp_path / "file"
    file.write_bytes(b"weights")
    before = [stamp(file)]
    file.write_bytes(b"others.")
    note(before, {}, "a" * 64)
    monkeypatch.setattr(hashing, "_SETTLED_SECONDS", 2.0)
    note([stamp(file)], {}, "a" * 64)
    assert not notes.exists()


def test_without_a_place_for_notes_weights_are_hashed_again(
    tmp_path: Path, reads: list[int], encoder: Encoder
) -> None:
    (tmp_path / "assets").write_text("in the way", encoding="utf-8")
    assert opened(E5).fingerprint() == encoder.fingerprint()
    assert len(reads) == 2


def test_processes_may_note_together(tmp_path: Path, notes: Path) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    files = [stamp(tmp_path / "file")]
    with ThreadPoolExecutor(8) as pool:
        for number in range(200):
            pool.submit(note, files, {}, f"{number:064x}")
            assert (noted(files, {}) or "0" * 64).startswith("0" * 60)
    assert len(list(notes.iterdir())) == 1


def test_one_of_many_finds_what_is_noted(tmp_path: Path, notes: Path) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    files, calls = [stamp(tmp_path / "file")], list[int]()

    def find() -> str:
        calls.append(1)
        time.sleep(0.05)
        return "a" * 64 + "7"

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: hashing.noted_once(files, {}, find), range(8)))
    assert (set(found), len(calls)) == ({"a" * 64 + "7"}, 1)
    shutil.rmtree(notes)
    notes.write_text("in the way", encoding="utf-8")
    assert hashing.noted_once(files, {}, lambda: "b" * 64) == "b" * 64


def test_blocks_count_in_their_order() -> None:
    def digest(block: bytes) -> bytes:
        return hashlib.sha256(block).digest()

    found = {hashing.hash_blocks(digest, blocks) for blocks in ([b"a", b"b"], [b"b", b"a"], [b"a"])}
    assert len(found) == 3
