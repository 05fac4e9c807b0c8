"""Losses against the references' own numbers, gradients included, and the rules they keep.

`LLM_EMBEDDINGS_GOLDEN=DIR` takes the numbers and the checkpoints of another directory.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import GOLDEN, read_case
from torch.nn.functional import normalize

from llm_embeddings.packed import attention
from llm_embeddings.packed.attention import bucketed
from llm_embeddings.packed.pack import Pack
from llm_embeddings.packed.twin import enable
from llm_embeddings.training import losses
from llm_embeddings.training.batches.masking import blocks, mask_token, mask_tokens
from llm_embeddings.training.grit import GRIT_RECIPE
from llm_embeddings.training.passes.encoding import Encoding
from llm_embeddings.training.passes.unified import UnifiedModel

CASE = GOLDEN / "losses"
PRETRAIN = GOLDEN / "llara-pretrain"
golden = pytest.mark.golden


def arrays(name: str) -> dict[str, torch.Tensor]:
    with np.load(CASE / f"golden_{name}.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def assert_same(found: Any, wanted: Any) -> None:
    """Within 1e-5, relative to the largest element."""
    found, wanted = torch.as_tensor(found).detach(), torch.as_tensor(wanted)
    difference = (found.double() - wanted.double()).abs().max()
    assert difference <= 1e-5 * wanted.double().abs().max()


def causal_lm(path: Path) -> Any:
    """A checkpoint with its head, whose attention takes packs."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path)
    config.use_cache = False
    vars(config).pop("auto_map", None)
    model = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32)
    enable(model.model)
    return model.eval()


def states(backbone: Any, rows: list[list[int]], *, causal: bool) -> list[torch.Tensor]:
    """Packed hidden states of each row."""
    lengths = [len(row) for row in rows]
    pack = Pack(lengths, [None] * len(rows), causal=causal, device=torch.device("cpu"))
    return pack.apart(attention.forward(backbone, rows, pack, bucketed))


def real(table: dict[str, torch.Tensor], key: str, what: str = "input_ids") -> list[list[int]]:
    """Rows without their padding."""
    mask = table[f"{key}/attention_mask"].bool()
    return [row[kept].tolist() for row, kept in zip(table[f"{key}/{what}"], mask, strict=True)]


def language_loss(model: Any, hidden: list[torch.Tensor], labels: list[list[int]]) -> Any:
    """Sum of -log softmax at the labels, and how many."""
    places, wanted = losses.next_tokens(labels)
    return losses.head_nll_sum(model.lm_head, torch.cat(hidden)[places], torch.tensor(wanted))


def gradient_norm(module: torch.nn.Module, name: str) -> float:
    gradient = module.get_parameter(name).grad
    assert gradient is not None
    return float(gradient.norm())


# Contrastive


@golden
@pytest.mark.parametrize(
    ("name", "scale", "hard"),
    [
        ("simcse_scale20_no_negatives", 20, False),
        ("scale20_hard_negatives", 20, True),
        ("supervised_scale50_hard_negatives", 50, True),
    ],
)
def test_contrastive_loss_of_llm2vec(name: str, scale: float, hard: bool) -> None:
    table = arrays("llm2vec")
    queries = table["hn/q"].requires_grad_()
    positives = table["hn/pos"].requires_grad_()
    passages = torch.cat([positives, table["hn/neg"]]) if hard else positives
    loss = losses.info_nce(
        normalize(queries, dim=-1),
        normalize(passages, dim=-1),
        torch.arange(len(queries)),
        temperature=1 / scale,
    )
    loss.backward()
    assert_same(loss, table[f"hn/{name}/loss"])
    assert_same(queries.grad, table[f"hn/{name}/grad_q"])
    assert_same(positives.grad, table[f"hn/{name}/grad_pos"])


@golden
def test_supervised_step_of_llm2vec() -> None:
    table, step = arrays("llm2vec"), read_case(CASE)["parts"]["llm2vec"]["supervised_step"]
    queries, positives, negatives = (
        normalize(table[f"e2e/{side}/reps"], dim=-1) for side in ("q", "pos", "neg")
    )
    targets = torch.arange(len(queries))
    both = torch.cat([positives, negatives])
    assert_same(losses.info_nce(queries, both, targets, temperature=0.02), step["loss"])
    assert_same(
        losses.info_nce(queries, positives, targets, temperature=0.05),
        step["loss_no_negatives_scale20"],
    )


@golden
@pytest.mark.parametrize("temperature", ["0.02", "1"])
def test_contrastive_loss_of_gritlm(temperature: str) -> None:
    table = arrays("gritlm")
    queries, passages = (table[f"contrastive/{side}"].requires_grad_() for side in "qp")
    loss = losses.info_nce(
        queries, passages, torch.arange(len(queries)) * 2, temperature=float(temperature)
    )
    loss.backward()
    assert_same(loss, table[f"contrastive/temperature_{temperature}/loss"])
    assert_same(queries.grad, table[f"contrastive/temperature_{temperature}/grad_q"])
    assert_same(passages.grad, table[f"contrastive/temperature_{temperature}/grad_p"])


@golden
def test_finetuning_loss_of_llara() -> None:
    table = arrays("llara_finetune")
    queries, passages = table["q_reps"], table["p_reps"]
    targets = torch.arange(len(queries)) * 4
    assert_same(losses.info_nce(queries, passages, targets, temperature=0.01), table["loss"])


@golden
@pytest.mark.skipif(
    not (GOLDEN / "llara/model").exists(),
    reason="the checkpoint is not bundled: LLM_EMBEDDINGS_GOLDEN names a folder that has it",
)
def test_finetuning_step_of_llara() -> None:
    table, meta = arrays("llara_finetune"), read_case(CASE)["parts"]["llara_finetune"]
    model = causal_lm(GOLDEN / "llara/model")
    queries, passages = (
        normalize(
            torch.stack([h[-8:].mean(0) for h in states(model.model, real(table, s), causal=True)])
        )
        for s in "qp"
    )
    targets = torch.arange(len(queries)) * 4
    loss = losses.info_nce(queries, passages, targets, temperature=0.01)
    loss.backward()
    assert_same(loss, meta["loss"])
    for name, norm in meta["grad_norms"].items():
        assert_same(gradient_norm(model, name), norm)


def test_negatives_of_the_same_tower() -> None:
    torch.manual_seed(0)
    queries, passages = (normalize(torch.randn(n, 8), dim=-1) for n in (3, 6))
    targets, temperature = torch.tensor([0, 2, 4]), 0.1
    wanted = []
    for i in range(3):
        scores = [queries[i] @ passage for passage in passages]
        scores += [queries[i] @ queries[j] for j in range(3) if j != i]
        own = passages[targets[i]]
        scores += [own @ passages[targets[j]] for j in range(3) if j != i]
        positive = queries[i] @ own
        kept = [score for score in scores if score <= positive + 0.1]
        wanted.append(torch.logsumexp(torch.stack(kept) / temperature, 0) - positive / temperature)
    found = losses.info_nce(
        queries, passages, targets, temperature=temperature, same_tower=True, margin=0.1
    )
    assert_same(found, torch.stack(wanted).mean())


@pytest.mark.parametrize("same_tower", [False, True])
def test_known_answers_are_no_negatives(same_tower: bool) -> None:
    """Against a plain loop over queries and negatives."""
    torch.manual_seed(0)
    queries, passages = (normalize(torch.randn(n, 8), dim=-1) for n in (3, 6))
    targets, known = torch.tensor([0, 2, 4]), torch.zeros(3, 6, dtype=torch.bool)
    for row, place in [(0, 0), (1, 2), (2, 4), (0, 3), (1, 4)]:
        known[row, place] = True
    total = torch.zeros(())
    for row in range(3):
        own = passages[targets[row]]
        kept = [queries[row] @ own]
        kept += [queries[row] @ passages[p] for p in range(6) if not known[row, p]]
        for other in range(3) if same_tower else ():
            related = known[row, targets[other]] or known[other, targets[row]]
            if other != row and not related:
                kept += [queries[row] @ queries[other], own @ passages[targets[other]]]
        total = total + torch.logsumexp(torch.stack(kept) / 0.1, 0) - kept[0] / 0.1
    found = losses.info_nce(
        queries, passages, targets, temperature=0.1, known=known, same_tower=same_tower
    )
    assert_same(found, total / 3)


def test_scores_of_a_teacher_are_learnt() -> None:
    """Both losses against plain loops."""
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 4), torch.randn(3, 4) * 5
    divergence = margins = 0.0
    for own, wanted in zip(student.tolist(), teacher.tolist(), strict=True):
        sums = [
            sum(math.exp(score) for score in scores) for scores in (own, [w / 2 for w in wanted])
        ]
        for one, other in zip(own, wanted, strict=True):
            p, q = math.exp(other / 2) / sums[1], math.exp(one) / sums[0]
            divergence += p * math.log(p / q) / 3
        for place in range(1, 4):
            margins += ((own[0] - own[place]) - (wanted[0] - wanted[place])) ** 2 / 9
    assert_same(losses.distillation(student, teacher, "kl", temperature=2.0), divergence)
    assert_same(losses.distillation(student, teacher, "margin-mse"), margins)
    for kind in ("kl", "margin-mse"):
        assert float(losses.distillation(teacher, teacher + 7, kind)) < 1e-6  # type: ignore[arg-type]


def test_matryoshka_adds_up_the_losses_of_cut_vectors() -> None:
    torch.manual_seed(0)
    queries, passages = torch.randn(3, 8), torch.randn(3, 8)

    def loss(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        assert_same(q.norm(dim=-1), torch.ones(3))
        return losses.info_nce(q, p, torch.arange(3), temperature=0.1)

    found = losses.matryoshka(loss, queries, passages, (4, 8))
    short = loss(normalize(queries[:, :4], dim=-1), normalize(passages[:, :4], dim=-1))
    assert_same(found, short + loss(normalize(queries, dim=-1), normalize(passages, dim=-1)))


# Language models


@golden
@pytest.mark.parametrize(
    "run", ["default_collator_p20", "all_mask_collator_p20", "line_by_line_padded"]
)
def test_masked_next_token_prediction(run: str) -> None:
    from peft import PeftModel

    table, meta = arrays("llm2vec"), read_case(CASE)["parts"]["llm2vec"]["mntp"][run]
    model = causal_lm(GOLDEN / "llm2vec-mistral/base")
    backbone = PeftModel.from_pretrained(
        model.model, GOLDEN / "llm2vec-mistral/mntp", is_trainable=True
    ).eval()
    rows, labels = real(table, f"mntp/{run}"), real(table, f"mntp/{run}", "labels")
    hidden = states(backbone.base_model.model, rows, causal=False)
    total, count = language_loss(model, hidden, labels)
    (total / count).backward()
    assert_same(total / count, table[f"mntp/{run}/loss"])
    for name, norm in meta.get("grad_norms", {}).items():
        assert_same(gradient_norm(backbone, name.removeprefix("model.")), norm)


@golden
@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("aggregation", ["token", "mixed"])
def test_generative_loss_of_gritlm(aggregation: Any, factor: float) -> None:
    table = arrays("gritlm")
    logits, labels = table["next_token/logits"], table["next_token/labels"].tolist()
    places, wanted = losses.next_tokens(labels)
    counts = [len(losses.next_tokens([row])[0]) for row in labels]
    each = losses.generative_weights(counts, aggregation)
    weights = [weight for weight, n in zip(each, counts, strict=True) for _ in range(n)]
    found, _ = losses.nll_sum(
        logits.flatten(0, 1)[places], torch.tensor(wanted), torch.tensor(weights)
    )
    expected = read_case(CASE)["parts"]["gritlm"]["next_token"]
    assert_same(factor * found, expected[f"{aggregation}_factor{factor}"])


@golden
@pytest.mark.parametrize(("aggregation", "factor"), [("mixed", 1.0), ("token", 0.5)])
def test_training_step_of_gritlm(aggregation: Any, factor: float) -> None:
    """Both directions in one set of weights, and one backward pass through both."""
    table = arrays("gritlm")
    part = read_case(CASE)["parts"]["gritlm"]["train_step"]["gritlm-7b"]
    model = causal_lm(GOLDEN / "gritlm-7b/model")
    vectors = []
    for side in ("query", "passage"):
        rows = real(table, f"gritlm-7b/{side}")
        starts = table[f"gritlm-7b/{side}/instruction_lens"].tolist()
        hidden = states(model.model, rows, causal=False)
        pooled = [each[start:].mean(0) for each, start in zip(hidden, starts, strict=True)]
        vectors.append(normalize(torch.stack(pooled), dim=-1))
    assert_same(vectors[0], table["gritlm-7b/q_reps"])
    embedding = losses.info_nce(*vectors, torch.arange(len(vectors[0])) * 2, temperature=0.02)
    labels = real(table, "gritlm-7b/generative", "labels")
    hidden = states(model.model, real(table, "gritlm-7b/generative"), causal=True)
    total, count = language_loss(model, hidden, labels)
    generative = factor * total / (count if aggregation == "mixed" else len(labels))
    (embedding + generative).backward()
    wanted = part[f"{aggregation}_factor{factor}"]
    assert_same(embedding, wanted["loss_emb"])
    assert_same(generative, wanted["loss_gen"])
    assert_same(embedding + generative, wanted["loss"])
    for name, norm in wanted["grad_norms"].items():
        assert_same(gradient_norm(model, name.removeprefix("model.")), norm)


@golden
@pytest.mark.skipif(
    not (GOLDEN / "gritlm-8x7b/model").exists(),
    reason="the checkpoint is not bundled: LLM_EMBEDDINGS_GOLDEN names a folder that has it",
)
@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("chunk", [1, 4])
def test_router_loss_of_gritlm(factor: float, chunk: int) -> None:
    """The mixture's training step, which has the model's own loss, in chunks of rows."""
    from accelerate import Accelerator

    table = arrays("gritlm")
    parts = read_case(CASE)["parts"]["gritlm"]["train_step"]["gritlm-8x7b"]
    wanted = parts[f"{'mixed' if factor == 1 else 'token'}_factor{factor}"]
    language = causal_lm(GOLDEN / "gritlm-8x7b/model")
    language.model.config.is_causal = False
    model = UnifiedModel(Encoding(language.model, GRIT_RECIPE), language.lm_head)
    vectors = []
    for side in ("query", "passage"):
        rows = real(table, f"gritlm-8x7b/{side}")
        starts = table[f"gritlm-8x7b/{side}/instruction_lens"].tolist()
        vectors.append(normalize(model(rows, starts), dim=-1))
    targets = torch.arange(len(vectors[0])) * 2
    embedding = losses.info_nce(*vectors, targets, temperature=0.02)
    rows, labels = (real(table, "gritlm-8x7b/generative", name) for name in ("input_ids", "labels"))
    starts = range(0, len(rows), chunk)
    weight = language.config.router_aux_loss_coef / factor
    accelerator = Accelerator(cpu=True)
    balance = model.balance(accelerator, model, [rows[i : i + chunk] for i in starts], weight)
    generative = torch.zeros(())
    for i in starts:
        part = slice(i, i + chunk)
        weights = [1 / len(rows)] * len(rows[part])
        generative = generative + model(
            rows[part], labels=labels[part], weights=weights, balance=balance
        )
    (embedding + factor * generative).backward()
    assert_same(embedding, wanted["loss_emb"])
    assert_same(factor * generative, wanted["loss_gen"])
    for name, norm in wanted["grad_norms"].items():
        assert_same(gradient_norm(language, name.removeprefix("model.")), norm)


def test_every_sample_counts_the_same() -> None:
    assert losses.generative_weights([2, 4], "sample") == [1 / 4, 1 / 8]
    assert losses.generative_weights([2, 4, 5, 0], "mixed", group=2) == [1 / 12, 1 / 12, 0.1, 0.1]
    assert losses.generative_weights([2, 0, 0, 0], "mixed", group=2) == [0.5, 0.5, 0, 0]
    with pytest.raises(ValueError, match=r"aggregation='mean' is not one of"):
        losses.generative_weights([1], "mean")  # type: ignore[arg-type]


def test_a_label_is_predicted_from_the_state_before_it() -> None:
    assert losses.next_tokens([[7, -100, 8], [-100, 9]]) == ([1, 3], [8, 9])


def test_the_head_in_parts_has_the_same_loss_and_gradient() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 9, bias=False)
    hidden, labels = torch.randn(7, 4), torch.randint(9, (7,))
    weights = torch.rand(7)
    found = []
    for rows in (7, 3):
        inputs = hidden.clone().requires_grad_()
        head.zero_grad()
        total, count = losses.head_nll_sum(head, inputs, labels, weights, rows=rows)
        total.backward()
        assert head.weight.grad is not None
        assert inputs.grad is not None
        found.append((total, count, head.weight.grad.clone(), inputs.grad))
    for one, other in zip(*found, strict=True):
        assert_same(one, other)


# LLaRA


@golden
@pytest.mark.parametrize("run", ["cutoff128_no_stopwords", "cutoff96_with_stopwords"])
def test_joint_pass_and_losses_of_llara(run: str) -> None:
    """The text once, both prompts continuing it, as the reference does with mask and positions."""
    table = np.load(PRETRAIN / "golden.npz")
    meta = read_case(PRETRAIN)
    model = causal_lm(PRETRAIN / "model")
    key = f"{run}/"
    suffixes = [meta["suffix_ids"][name] for name in ("summarize", "predict")]
    tail = sum(map(len, suffixes))
    texts, labels = [], []
    for ids, mask, row in zip(
        table[key + "input_ids"], table[key + "attention_mask"], table[key + "labels"], strict=True
    ):
        texts.append(ids[mask.astype(bool)][:-tail].tolist())
        labels.append(row[mask.astype(bool)][:-tail].tolist())
    n = len(texts)
    rows = [*texts, *(suffix for suffix in suffixes for _ in texts)]
    pack = Pack(
        [len(row) for row in rows],
        [*[None] * n, *range(n), *range(n)],
        causal=True,
        device=torch.device("cpu"),
    )
    hidden = pack.apart(attention.forward(model.model, rows, pack, bucketed))
    total, count = language_loss(model, hidden[:n], labels)
    bags = []
    for number, name in enumerate(("summarize", "predict")):
        slots = torch.stack([part[-8:] for part in hidden[n * (number + 1) : n * (number + 2)]])
        wanted = table[f"{key}{'ebae' if number == 0 else 'ebar'}_emb"]
        assert_same(slots.mean(1), wanted)
        targets = [[i for i in ids if i > 2] for ids in table[f"{key}output_{name}_ids"].tolist()]
        bag, full = losses.bag_of_words_nll(model.lm_head(slots), targets)
        assert_same(bag / full / losses.LLARA_DIVISOR, table[f"{key}bow_{name}"])
        bags.append(bag / full)
    loss = total / count + torch.stack(bags).mean() / losses.LLARA_DIVISOR
    loss.backward()
    assert_same(total / count, table[key + "ar_loss"])
    assert_same(loss, table[key + "loss"])
    for name, norm in meta["runs"][run]["grad_norms"].items():
        assert_same(gradient_norm(model, name), norm)


def test_bag_of_words_knows_no_order_and_no_count() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 8, 30)
    once, rows = losses.bag_of_words_nll(logits, [[5, 9], []])
    again, _ = losses.bag_of_words_nll(logits, [[9, 5, 9, 5], []])
    assert rows == 1
    assert_same(once, again)


# Masking


def masked(style: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = torch.arange(20_000) % 1000
    generator = torch.Generator().manual_seed(0)
    defaults: dict[str, Any] = {"mask_id": 5000, "probability": 0.2, "vocabulary": 1000}
    inputs, labels = mask_tokens(ids, style=style, generator=generator, **defaults | options)
    return ids, inputs, labels


def test_masking_as_bert() -> None:
    ids, inputs, labels = masked("bert", special=(0, 1))
    chosen = labels != losses.IGNORED
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(inputs[~chosen], ids[~chosen])
    assert not chosen[ids < 2].any()
    share = chosen[ids >= 2].float().mean()
    hidden = (inputs[chosen] == 5000).float().mean()
    kept = (inputs[chosen] == ids[chosen]).float().mean()
    assert math.isclose(share, 0.2, abs_tol=0.01)
    assert math.isclose(hidden, 0.8, abs_tol=0.02)
    assert math.isclose(kept, 0.1, abs_tol=0.015)


def test_masking_everything_chosen() -> None:
    _, inputs, labels = masked("all", probability=0.8)
    assert torch.equal(inputs == 5000, labels != losses.IGNORED)
    assert math.isclose((inputs == 5000).float().mean(), 0.8, abs_tol=0.01)


def test_masking_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match=r"style='roberta' is not one of"):
        masked("roberta")
    with pytest.raises(ValueError, match=r"probability=1.5 must lie between"):
        masked("all", probability=1.5)


def test_mask_token_choices() -> None:
    from llm_embeddings.checkpoint.loading import load_tokenizer

    tokenizer = load_tokenizer(GOLDEN / "gritlm-7b/model")
    assert mask_token(tokenizer, "blank") == "_"
    assert mask_token(tokenizer, "eos") == "</s>"
    assert mask_token(tokenizer, "mask") == "<mask>"
    tokenizer.add_special_tokens({"mask_token": "<hidden>"})
    assert mask_token(tokenizer, "blank") == "<hidden>"
    with pytest.raises(ValueError, match=r"mask_token='none' is not one of"):
        mask_token(tokenizer, "none")  # type: ignore[arg-type]


def test_blocks_have_no_padding() -> None:
    rows = [[1, 2, 3], [4], [5, 6, 7, 8]]
    assert list(blocks(rows, 3)) == [[1, 2, 3], [4, 5, 6]]
    assert list(blocks(rows, 3, lines=2)) == [[1, 2, 3], [5, 6, 7]]
