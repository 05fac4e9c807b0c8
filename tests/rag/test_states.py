"""Where states are kept: limits, other models, broken files."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from llm_embeddings import Encoder
from llm_embeddings.generation import Generator
from llm_embeddings.generation.kv import KeyValues, bytes_per_token, joined
from llm_embeddings.rag import Reader, StateStore

TEXTS = ["Paris is the capital of France.", "Cats purr when happy.", "Rust never sleeps."]


def states(tokens: int, value: float = 0.0) -> KeyValues:
    """Two layers of 2 heads of 4 dimensions: 128 bytes per token."""
    filled = [torch.full((2, tokens, 4), float(sign * value)) for sign in (1, -1, 2, -2)]
    return KeyValues(((filled[0], filled[1]), (filled[2], filled[3])))


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StateStore:
    store = StateStore(tmp_path if request.param == "disk" else None, max_bytes=5000)
    store.bind("model a")
    return store


def same(a: KeyValues | None, b: KeyValues) -> bool:
    assert a is not None
    pairs = zip(a.layers, b.layers, strict=True)
    return all(torch.equal(x[0], y[0]) and torch.equal(x[1], y[1]) for x, y in pairs)


def test_states_come_back_by_tokens_and_kind(store: StateStore) -> None:
    store.put("causal", [1, 2, 3], states(3, 1.5))
    assert same(store.get("causal", [1, 2, 3]), states(3, 1.5))
    assert store.get("embedding", [1, 2, 3]) is None
    assert store.get("causal", [1, 2]) is None
    store.delete("causal", [1, 2, 3])
    assert store.get("causal", [1, 2, 3]) is None
    assert (len(store), store.nbytes) == (0, 0)


def test_what_was_not_used_for_longest_goes_first(store: StateStore) -> None:
    for token in range(3):
        store.put("causal", [token], states(6))
    one = store.nbytes // 3
    store.max_bytes = 3 * one
    assert store.has("causal", [0])
    store.put("causal", [3], states(6))
    assert [store.has("causal", [token]) for token in range(4)] == [True, False, True, True]
    assert store.nbytes <= store.max_bytes
    store.put("causal", [4], states(60))
    assert len(store) == 3
    store.clear()
    assert store.nbytes == 0


def test_folder_is_opened_again(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.bind("model a")
    for token in range(3):
        store.put("causal", [token], states(6, token))
        for path in tmp_path.glob("*.safetensors"):
            used = path.stat().st_mtime
            os.utime(path, (used - 10, used - 10))  # clocks of file systems are coarse
    one = store.nbytes // 3
    assert store.has("causal", [0])
    again = StateStore(tmp_path, max_bytes=2 * one)
    again.bind("model a")
    found = [again.get("causal", [token]) for token in range(3)]
    assert found[1] is None
    assert same(found[0], states(6, 0))
    assert same(found[2], states(6, 2))


def test_states_of_another_model_are_refused(store: StateStore, tmp_path: Path) -> None:
    store.bind("model a")
    with pytest.raises(ValueError, match="model b"):
        store.bind("model b")
    if store.folder is not None:
        with pytest.raises(ValueError, match="made by the model model a"):
            StateStore(tmp_path).bind("model b")
        text = (tmp_path / "states.json").read_text().replace('"version": 1', '"version": 2')
        (tmp_path / "states.json").write_text(text)
        with pytest.raises(ValueError, match="format 2"):
            StateStore(tmp_path).bind("model a")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign"])
def test_damaged_file_is_made_again_and_others_stay(
    tmp_path: Path, damage: str, gritlm: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    generator = Generator(gritlm)
    Reader(generator, states=StateStore(tmp_path)).prepare(TEXTS)
    path = min(tmp_path.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    if damage == "foreign":
        fingerprint = gritlm.fingerprint("document", "").encode()
        data = data.replace(fingerprint, b"0" * len(fingerprint))
    data[-5] ^= 255 * (damage == "flipped")
    path.write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
    reader = Reader(generator, states=StateStore(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert reader.prepare(TEXTS) == 1
    assert path.name in caplog.text
    assert reader.prepare(TEXTS) == 0


def test_a_full_disk_costs_what_it_cannot_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    store = StateStore(tmp_path)
    store.bind("model a")
    with monkeypatch.context() as patch:
        patch.setattr("llm_embeddings.rag.states.save_file", full)
        with pytest.warns(
            RuntimeWarning, match=rf"2 tokens are not kept in {tmp_path}: .*No space"
        ):
            store.put("causal", [1, 2], states(2))
    assert store.get("causal", [1, 2]) is None
    assert [path.name for path in tmp_path.iterdir()] == ["states.json"]
    store.put("causal", [1, 2], states(2))
    assert store.get("causal", [1, 2]) is not None


def test_answers_from_disk_are_those_from_memory(gritlm: Encoder, tmp_path: Path) -> None:
    generator = Generator(gritlm)
    for rule in ("exact", "paper"):
        wanted = Reader(generator, mode="none").answer("Why?", TEXTS[:1], max_new_tokens=8)
        memory = Reader(generator, rule=rule)
        disk = Reader(generator, rule=rule, states=StateStore(tmp_path))
        for reader in (memory, disk):
            reader.prepare(TEXTS)
        found = [r.answer("Why?", TEXTS[:1], max_new_tokens=8) for r in (memory, disk)]
        assert found[0] == found[1]
        assert found[0].cached_tokens > 0
        assert (found[0].ids == wanted.ids) == (rule == "exact")


def test_bfloat16_states_keep_their_bits(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.bind("model a")
    part = torch.randn(2, 5, 4).bfloat16()
    store.put("causal", [1], KeyValues(((part, part[:, :, ::2]),)))
    assert same(store.get("causal", [1]), KeyValues(((part, part[:, :, ::2]),)))


def test_threads_share_a_store(store: StateStore) -> None:
    def work(token: int) -> bool:
        for _ in range(20):
            store.put("causal", [token], states(2, token))
            found = store.get("causal", [token])
            if found is not None and not same(found, states(2, token)):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


def test_states_are_joined_and_cut() -> None:
    whole = joined([states(2, 1.0), states(3, 2.0)])
    assert whole.length == 5
    assert same(whole.first(2), states(2, 1.0))
    assert whole.nbytes == 5 * 128


def test_size_of_a_token(gritlm: Encoder) -> None:
    generator = Generator(gritlm)
    found = generator.states(list(range(5, 15)))
    assert bytes_per_token(gritlm.backbone.config, torch.float32) * 10 == found.nbytes


def test_store_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_bytes=0"):
        StateStore(max_bytes=0)
    with pytest.raises(ValueError, match="not both"):
        StateStore(tmp_path, device="cuda")
