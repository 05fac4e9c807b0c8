"""What the loop promises: exact resume, whole folders, the same update on more processes."""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from helpers.training_files import read_metrics, write_language_model, write_texts
from helpers.training_processes import gradients, open_adapters, options, run_two
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llm_embeddings import Encoder
from llm_embeddings.checkpoint.loading import load_tokenizer
from llm_embeddings.evaluation import plots
from llm_embeddings.training import begun, mntp
from llm_embeddings.training.batches import mixture
from llm_embeddings.training.mntp import MNTP, train_mntp
from llm_embeddings.training.options import LoraOptions, StageOptions
from llm_embeddings.training.passes.encoding import Encoding
from llm_embeddings.training.passes.gradcache import backward_vectors, plan, shared
from llm_embeddings.training.run import checkpoints, loop, memory, processes, state
from llm_embeddings.training.run.schedule import learning_rate, still_rising, updates_of
from llm_embeddings.training.run.stage import Progress, TrainingError
from llm_embeddings.training.weights.loading import load_backbone_for_training

Train = Callable[..., Path]

pytestmark = pytest.mark.slow

_DIVIDED = {"gradient_accumulation_steps": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_language_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_texts(tmp_path_factory.mktemp("texts") / "texts.txt"))


@pytest.fixture
def made(model: str, texts: str, tmp_path: Path) -> MNTP:
    """Six updates with dropout, checkpoints after each second."""
    return dataclasses.replace(
        options(model, texts, tmp_path / "out"),
        recipe=mntp.MNTP_RECIPE,
        lora=LoraOptions(dropout=0.3),
        max_steps=6,
    )


def stop_at(monkeypatch: pytest.MonkeyPatch, update: int, error: BaseException | None) -> None:
    """Let an update raise, or, without an error, find NaN."""
    real, calls = mntp._Stage.update, []

    def patched(*arguments: Any) -> Progress:
        calls.append(1)
        if len(calls) < update:
            return real(*arguments)
        if error is not None:
            raise error
        return Progress({"loss": float("nan")}, 1, 1)

    monkeypatch.setattr(mntp._Stage, "update", patched)


def losses(output: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_metrics(output)]


def test_interrupted_run_goes_on_as_if_nothing_happened(
    made: MNTP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_mntp(dataclasses.replace(made, output=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 6, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train_mntp(made)
    assert [step for step, _ in losses(made.output)] == [1, 2, 3, 4, 5]
    resumed = train_mntp(dataclasses.replace(made, resume=True))
    assert losses(resumed) == losses(whole)
    assert len({loss for _, loss in losses(whole)}) == 6
    first, second = (load_file(path / "model.safetensors") for path in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert begun.step_of(begun.newest(resumed)) == 6
    assert len([*(resumed / begun.FOLDER).iterdir()]) == made.keep


def test_a_run_goes_on_in_its_precision_on_a_machine_that_would_take_another(
    made: MNTP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    half = AutoModelForCausalLM.from_pretrained(made.model, dtype=torch.float16)
    half.save_pretrained(tmp_path / "half")
    load_tokenizer(Path(made.model)).save_pretrained(tmp_path / "half")
    made = dataclasses.replace(made, model=str(tmp_path / "half"), dtype="auto")

    def native(pays: bool) -> None:
        for module in ("arithmetic.dtype", "training.weights.loading"):
            monkeypatch.setattr(f"llm_embeddings.{module}.bfloat16_pays", lambda: pays)

    native(True)
    whole = train_mntp(dataclasses.replace(made, output=tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train_mntp(made)
    native(False)
    other = train_mntp(dataclasses.replace(made, output=tmp_path / "other"))
    resumed = train_mntp(dataclasses.replace(made, resume=True, show_progress=True))
    assert losses(resumed) == losses(whole)
    assert losses(other)[-1] != losses(whole)[-1]
    assert "computes in bfloat16, as it began; float32 would be faster here" in (
        capsys.readouterr().out
    )


def test_a_run_that_goes_on_elsewhere_says_so(made: MNTP) -> None:
    train_mntp(made)
    made = dataclasses.replace(made, resume=True)
    began = begun.computing(made)
    assert began == {"device": "1 x cpu", "weights": "float32", "products": "float32"}
    assert processes.moved(made, began) == ""
    said = processes.moved(made, {**began, "device": "8 x cuda"})
    assert said.startswith("began with 1 x cpu and goes on with 8 x cuda: dropout")


@pytest.mark.parametrize("name", ["optimizer.pt", "trained.safetensors", begun.STATE])
def test_a_checkpoint_that_a_disk_has_changed_is_named(
    made: MNTP, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train_mntp(made)
    newest = begun.newest(made.output)
    assert newest is not None
    data = bytearray((newest / name).read_bytes())
    place = data.index(b'"step": ') + 8 if name == begun.STATE else len(data) - 9
    data[place] ^= 1
    (newest / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{newest.name}/{name} is not what the run wrote: "):
        train_mntp(dataclasses.replace(made, resume=True))
    shutil.rmtree(newest)
    train_mntp(dataclasses.replace(made, resume=True))


def test_nan_stops_with_the_last_checkpoint_kept(
    made: MNTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 4, None)
    with pytest.raises(TrainingError, match=r"loss is nan in update 4, on batch 3 .*step-00000002"):
        train_mntp(made)
    kept = begun.newest(made.output)
    assert kept is not None
    assert begun.step_of(kept) == 2
    with pytest.raises(FileNotFoundError):
        Encoder.from_pretrained(made.output)


def test_infinite_gradient_stops(made: MNTP, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(TrainingError, match="gradient norm is inf in update 1"):
        train_mntp(made)


def test_interrupted_saves_leave_nothing_that_loads(
    made: MNTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("unplugged")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="unplugged"):
            train_mntp(made)
    assert begun.newest(made.output) is None
    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_card", fail)
        with pytest.raises(OSError, match="unplugged"):
            train_mntp(dataclasses.replace(made, resume=True))
    assert begun.newest(made.output) is not None
    assert not (made.output / "config.json").exists()
    done = train_mntp(dataclasses.replace(made, resume=True))
    assert Encoder.from_pretrained(done, dtype="float32").encode("text").shape == (32,)
    assert not [*done.rglob("*.partial")]


def test_other_options_are_not_resumed(made: MNTP) -> None:
    short = dataclasses.replace(made, max_steps=2)
    train_mntp(short)
    with pytest.raises(ValueError, match="not empty: name another folder, or go on with resume"):
        train_mntp(short)
    other = dataclasses.replace(short, resume=True, learning_rate=1e-4, seed=7)
    with pytest.raises(ValueError, match=r"learning_rate was 0.01 and is 0.0001; seed was 42"):
        train_mntp(other)
    train_mntp(dataclasses.replace(short, resume=True, batch_tokens=64, log_every=5))


def test_a_run_that_goes_on_counts_nothing_again_and_knows_its_data(
    made: MNTP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "copy.txt"
    shutil.copy(made.data[0], data)
    short = dataclasses.replace(made, data=(str(data),), max_steps=2)
    train_mntp(short)
    with monkeypatch.context() as patch:
        patch.setattr(mixture, "survey_all", None)
        train_mntp(dataclasses.replace(short, resume=True))
    data.write_text(data.read_text(encoding="utf-8") + "More.\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"copy.txt is not what it was when the run began"):
        train_mntp(dataclasses.replace(short, resume=True))


def test_a_run_may_be_made_longer_where_its_rates_stay(made: MNTP, tmp_path: Path) -> None:
    """And then goes on as if it had been that long from the start."""
    falling = dataclasses.replace(made, schedule="linear", max_steps=2)
    train_mntp(falling)
    with pytest.raises(ValueError, match=r"max_steps was 2 and is 4.*may be raised where"):
        train_mntp(dataclasses.replace(falling, max_steps=4, resume=True))
    planned = dataclasses.replace(falling, schedule_steps=6, output=tmp_path / "planned")
    train_mntp(planned)
    longer = dataclasses.replace(planned, max_steps=4)
    found = losses(train_mntp(dataclasses.replace(longer, resume=True)))
    assert found == losses(train_mntp(dataclasses.replace(longer, output=tmp_path / "whole")))
    with pytest.raises(ValueError, match=r"max_steps was 4 and is 3"):
        train_mntp(dataclasses.replace(planned, max_steps=3, resume=True))


def test_full_disk_is_seen_before_writing(made: MNTP, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10, 9, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(TrainingError, match="the disk has 0.00 GB left"):
        train_mntp(made)
    assert begun.newest(made.output) is None


def test_sharded_processes_make_the_same_update(made: MNTP, tmp_path: Path) -> None:
    """With frozen weights, by both versions of FSDP, and from their checkpoints.

    A number of steps to accumulate in the environment changes nothing.
    """
    single = options(made.model, made.data[0], tmp_path / "single")
    train_mntp(single)
    arguments = ("helpers.training_sharded", made.model, made.data[0], tmp_path)
    run_two(*arguments, ACCELERATE_GRADIENT_ACCUMULATION_STEPS="4")
    lines = read_metrics(tmp_path / "single")
    weights = load_file(tmp_path / "single" / "model.safetensors")
    for name, first in (("fsdp1", 0), ("fsdp2", 0), ("resumed1", 2), ("resumed2", 2)):
        found = read_metrics(tmp_path / name)
        assert len(found) == 3 - first
        for one, other in zip(lines[first:], found, strict=True):
            for key in ("step", "loss", "gradient_norm"):
                assert one[key] == pytest.approx(other[key], rel=1e-5)
        sharded = load_file(tmp_path / name / "model.safetensors")
        for key, weight in weights.items():
            torch.testing.assert_close(weight, sharded[key], atol=1e-5, rtol=1e-4)


def test_two_processes_make_the_same_update(made: MNTP, tmp_path: Path) -> None:
    single = options(made.model, made.data[0], tmp_path / "single")
    train_mntp(single)
    run_two("helpers.training_processes", made.model, made.data[0], tmp_path / "double")
    one, two = (dict(losses(tmp_path / name)) for name in ("single", "double"))
    assert one == pytest.approx(two, rel=1e-5)
    weights = [load_file(tmp_path / n / "model.safetensors") for n in ("single", "double")]
    before = load_file(Path(made.model) / "model.safetensors")
    moved = 0.0
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=1e-5, rtol=1e-4)
        moved = max(moved, float((weight - before[f"model.{name}"]).abs().max()))
    assert moved > 1e-3
    wanted = gradients(made.model, tmp_path / "unused", budget=10_000)
    for process in range(2):
        found = torch.load(tmp_path / f"double-{process}.pt", weights_only=True)
        assert_same_gradients(wanted, found)


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        ({"fsdp_plugin": FullyShardedDataParallelPlugin(fsdp_version=1)}, "use_orig_params: true"),
        ({"deepspeed_plugin": SimpleNamespace(deepspeed_config={})}, None),
        (
            {"deepspeed_plugin": SimpleNamespace(deepspeed_config=_DIVIDED)},
            "gradient_accumulation_steps is 8, and batch_size says",
        ),
    ],
)
def test_strategies_do_what_the_options_say(
    made: MNTP, plugins: dict[str, Any], message: str | None
) -> None:
    for plugin in plugins.values():
        plugin.use_orig_params = False
    accelerator: Any = SimpleNamespace(state=SimpleNamespace(**plugins), num_processes=3)
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    if message is not None:
        with pytest.raises(ValueError, match=message):
            processes.check_strategy(accelerator, model, made)
        return
    processes.check_strategy(accelerator, model, made)
    assert accelerator.state.deepspeed_plugin.deepspeed_config == {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": 3,
        "gradient_clipping": made.max_grad_norm,
    }


def test_fsdp1_refuses_weights_of_two_dtypes(made: MNTP) -> None:
    plugin = FullyShardedDataParallelPlugin(fsdp_version=1)
    plugin.use_orig_params = True
    accelerator: Any = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin), num_processes=2)
    model = torch.nn.Linear(2, 2)
    processes.check_strategy(accelerator, model, made)
    model.bias.data = model.bias.data.bfloat16()
    with pytest.raises(ValueError, match="are torch.bfloat16 and torch.float32: take fsdp_version"):
        processes.check_strategy(accelerator, model, made)


def assert_same_gradients(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    size = torch.cat([gradient.flatten() for gradient in wanted.values()]).norm()
    assert size > 0
    for name, gradient in wanted.items():
        assert (gradient - found[name].reshape(gradient.shape)).norm() <= 1e-5 * size


def test_gradient_cache_is_the_whole_batch(model: str, tmp_path: Path) -> None:
    wanted = gradients(model, tmp_path, budget=10_000)
    assert_same_gradients(wanted, gradients(model, tmp_path, budget=40))
    assert len(wanted) == 2 * 7 * 2  # in each of two blocks seven layers have A and B


def test_second_pass_repeats_the_dropout_of_the_first(model: str, texts: str) -> None:
    made = options(model, texts, Path("unused"))
    trained = load_backbone_for_training(
        dataclasses.replace(made, lora=LoraOptions(dropout=0.5)), mntp.MNTP_RECIPE
    )
    open_adapters(trained.backbone)
    encoding = Encoding(trained.backbone, trained.recipe, attention_dropout=0.3).train()
    seen: dict[int, list[torch.Tensor]] = {}

    def encode(rows: list[list[int]], starts: list[int]) -> torch.Tensor:
        found = encoding.vectors(rows, starts)
        seen.setdefault(rows[0][1], []).append(found.detach())
        return found

    rows = [[1, 100 + row, *range(5, 12)] for row in range(6)]
    backward_vectors(
        Accelerator(),
        encoding,
        rows,
        [0] * 6,
        lambda vectors: {"loss": vectors.square().mean()},
        budget=18,
        encode=encode,
    )
    assert sorted(map(len, seen.values())) == [1, 2, 2]
    for passes in seen.values():
        assert torch.equal(passes[0], passes[-1])
    again = encoding.vectors(rows[:2], [0, 0])
    assert not torch.equal(again, seen[100][0])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_pass_is_as_large_as_the_memory(model: str, checkpointing: bool) -> None:
    """What is kept grows with the tokens; logits and the optimiser's moments come off before."""
    made = options(model, "unused", Path("unused"))
    made = dataclasses.replace(made, gradient_checkpointing=checkpointing)
    trained = load_backbone_for_training(made, mntp.MNTP_RECIPE)
    encoding = Encoding(trained.backbone, trained.recipe)
    weights = [weight.numel() for weight in encoding.parameters() if weight.requires_grad]

    def fitting(model: torch.nn.Module, megabytes: float) -> int:
        size = int(megabytes * 10**6) + 12 * sum(weights)
        return memory.fitting_tokens(model, free=size, checkpointing=checkpointing)

    some = fitting(encoding, 12)
    assert memory.FEWEST < some < memory.MOST / 2
    assert fitting(encoding, 24) == pytest.approx(2 * some, abs=2)
    assert (fitting(encoding, 0), fitting(encoding, 10**6)) == (memory.FEWEST, memory.MOST)
    head = torch.nn.Linear(32, 32000, bias=False, device="meta").requires_grad_(False)
    logits = 1024 * 32000 * 4 * 4 / memory._SHARE / 10**6
    with_head = mntp._Model(encoding, head)
    assert fitting(with_head, 12 + logits) == pytest.approx(some, abs=2)
    assert encoding.training


def test_the_passes_that_are_measured_leave_nothing_behind(model: str) -> None:
    made = options(model, "unused", Path("unused"))
    trained = load_backbone_for_training(made, mntp.MNTP_RECIPE)
    encoding = Encoding(trained.backbone, trained.recipe)

    def tensors() -> int:
        gc.collect()  # `isinstance` would ask proxies for their class, which warn
        return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())

    before = tensors()
    memory.fitting_tokens(encoding, free=10**9, checkpointing=False)
    assert tensors() == before


def test_free_bytes_are_known_of_devices_that_have_memory() -> None:
    assert memory.free_bytes(torch.device("cpu"))
    assert memory.free_bytes(torch.device("meta")) is None


def test_passes_are_sized_and_said_and_kept_by_a_resumed_run(
    made: MNTP, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = dataclasses.replace(made, batch_tokens=None, max_steps=2, show_progress=True)
    monkeypatch.setattr(memory, "free_bytes", lambda _: 24 * 10**6)
    output = train_mntp(made)
    match = re.search(r"([\d,]+) tokens per pass, by 0\.0 GB", capsys.readouterr().out)
    assert match
    chosen = int(match[1].replace(",", ""))
    newest = begun.newest(output)
    assert newest is not None
    assert begun.options_of(newest)["batch_tokens"] == chosen < memory.MOST
    monkeypatch.setattr(memory, "free_bytes", lambda _: 10**12)
    train_mntp(dataclasses.replace(made, resume=True))
    values = json.loads((output / "provenance.json").read_text(encoding="utf-8"))
    assert values["options"]["batch_tokens"] == chosen


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 10, 1000])
def test_plan_shares_every_row_once(processes: int, budget: int) -> None:
    lengths = [3, 9, 1, 4, 7, 30, 2]
    shares = plan(lengths, budget, processes)
    assert sorted(row for share in shares for chunk in share for row in chunk) == [*range(7)]
    assert len({len(share) for share in shares}) == 1
    if budget == 10 and processes == 1:
        assert all(len(c) == 1 or sum(lengths[r] for r in c) <= budget for c in shares[0])


def test_processes_share_work_and_have_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    items, asked = list(range(7)), list[list[int]]()

    def work(part: Sequence[int]) -> list[int]:
        asked.append(list(part))
        return [item**2 for item in part]

    def gathered(own: list[list[int]]) -> list[list[int]]:
        assert own == [work(items[1::3])]
        return [[item**2 for item in items[rank::3]] for rank in range(3)]

    monkeypatch.setattr("accelerate.utils.gather_object", gathered)
    second: Any = SimpleNamespace(num_processes=3, process_index=1)
    assert shared(second, items, work) == [item**2 for item in items]
    assert asked[0] == [1, 4]
    assert shared(None, items, work) == [item**2 for item in items]


def test_plan_needs_a_row_for_each_process() -> None:
    with pytest.raises(ValueError, match="a batch of 1 rows cannot be shared by 2"):
        plan([5], 10, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 must be 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
        ({"schedule": "cubic"}, "schedule='cubic' is not one of"),
        ({"max_steps": None}, "neither max_steps nor epochs"),
        ({"lora": None, "save": "adapter"}, "needs lora"),
        ({"eval_every": 3}, "needs evaluation files"),
        ({"beta2": 1.0}, r"beta2=1.0 must be in \[0, 1\)"),
        ({"data": ()}, "is empty"),
    ],
)
def test_bad_options_are_named(made: MNTP, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(made, **changes)


def test_learning_rates_are_those_of_transformers(made: MNTP) -> None:
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    kinds = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}
    for name, kind in kinds.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        schedule = kind(optimizer, 3, 10)
        options = dataclasses.replace(made, learning_rate=0.5, warmup=3, schedule=name)
        for step in range(10):
            wanted = optimizer.param_groups[0]["lr"]
            assert learning_rate(options, step, 10) == pytest.approx(wanted)
            optimizer.step()
            schedule.step()


def test_a_run_that_ends_within_its_warm_up_says_so(
    made: MNTP, capsys: pytest.CaptureFixture[str]
) -> None:
    made = dataclasses.replace(made, max_steps=2, warmup=4, learning_rate=4e-3, show_progress=True)
    train_mntp(made)
    found = capsys.readouterr().out
    assert "rises for 4 updates and this run has 2: it ends at 1.0e-03 and not at 4.0e-03" in found
    for warmup, total in ((4, 5), (0.5, 2), (0, 1), (4, None)):
        assert still_rising(dataclasses.replace(made, warmup=warmup), total) == ""
    planned = dataclasses.replace(made, warmup=0.5, schedule_steps=10)
    assert "rises for 5 updates and this run has 4" in still_rising(planned, 4)


def test_a_falling_rate_needs_an_end(made: MNTP) -> None:
    endless = dataclasses.replace(made, max_steps=None, epochs=1, schedule="linear")
    with pytest.raises(ValueError, match="give max_steps or schedule_steps"):
        updates_of(endless, None)
    assert updates_of(endless, 7) == 7
    assert updates_of(dataclasses.replace(endless, max_steps=5), 7) == 5


def test_evaluation_and_tensorboard(made: MNTP, tmp_path: Path) -> None:
    pairs = [{"a": f"cat {n}", "b": f"dog {n * n}", "score": n} for n in range(6)]
    path = tmp_path / "sts.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    output = train_mntp(
        dataclasses.replace(
            made, max_steps=4, evaluation=str(path), eval_every=3, tensorboard=True, save="adapter"
        )
    )
    scores = [line for line in read_metrics(output) if "sts/spearman" in line]
    assert [line["step"] for line in scores] == [3, 4]
    assert any((output / checkpoints.LOGS).iterdir())
    encoder = Encoder.from_pretrained(output, dtype="float32")
    from llm_embeddings.evaluation import evaluate

    found = evaluate(lambda texts, role: encoder.encode(texts, role), [path])["sts/spearman"]
    assert found.value == pytest.approx(scores[-1]["sts/spearman"], abs=1e-6)


def test_a_run_is_drawn(made: MNTP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "sts.jsonl"
    pairs = [{"a": f"cat {n}", "b": f"dog {n * n}", "score": n} for n in range(6)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    drawn = dataclasses.replace(made, max_steps=2, evaluation=(str(path),), curve=True)
    output = train_mntp(drawn)
    assert (output / "curve.png").read_bytes().startswith(b"\x89PNG")
    plots.plot_run(read_metrics(output), tmp_path / "curve.svg")
    picture = (tmp_path / "curve.svg").read_text()
    assert all(f"<!-- {name} -->" in picture for name in ("loss", "sts/spearman", "updates"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plots need matplotlib: pip install 'llm-emb.*\[eval"):
        train_mntp(dataclasses.replace(drawn, output=tmp_path / "other"))
    assert not (tmp_path / "other/metrics.jsonl").exists()


def test_adapter_and_merged_result_are_the_same_model(made: MNTP, tmp_path: Path) -> None:
    short = dataclasses.replace(made, max_steps=2, save_every=None)
    found = []
    for save in ("adapter", "merged"):
        output = train_mntp(dataclasses.replace(short, output=tmp_path / save, save=save))
        found.append(Encoder.from_pretrained(output, dtype="float32").encode(["a cat", "b"]))
    torch.testing.assert_close(*map(torch.tensor, found), atol=1e-5, rtol=0)
    plain = Encoder.from_pretrained(short.model, recipe=mntp.MNTP_RECIPE, dtype="float32")
    assert abs(plain.encode(["a cat", "b"]) - found[0]).max() > 1e-3


def test_a_stage_may_follow_one_of_another_precision(made: MNTP, tmp_path: Path) -> None:
    first = train_mntp(dataclasses.replace(made, max_steps=1, dtype="float32"))
    second = dataclasses.replace(made, output=tmp_path / "second", max_steps=1)
    second = train_mntp(dataclasses.replace(second, dtype="bfloat16"))
    ((_, exact),), ((_, rounded),) = losses(first), losses(second)
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=1e-2)


def test_checkpoint_of_another_model(made: MNTP) -> None:
    train_mntp(dataclasses.replace(made, max_steps=2))
    newest = begun.newest(made.output)
    assert newest is not None
    with pytest.raises(ValueError, match="checkpoint of another model"):
        state.load_state(Accelerator(), torch.nn.Linear(2, 2), None, newest)


def test_stage_options_are_json() -> None:
    options = StageOptions(model="m", output="out", data="a.txt", recipe=mntp.MNTP_RECIPE)
    values = json.loads(json.dumps(options.to_dict()))
    assert values["data"] == ["a.txt"]
    assert values["lora"]["rank"] == 16
