"""Causal language modelling: the student learns what words follow each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import runs
import torch
import torch.nn.functional as functional
from transformers import LlamaForCausalLM

from llm_embeddings.arithmetic.dtype import bfloat16_pays

Ints = npt.NDArray[np.int64]


def pack(rows: Sequence[Sequence[int]], bos: int, length: int) -> Ints:
    """All rows end to end, BOS before each, cut into blocks of `length` + 1 ids."""
    flat = np.concatenate([np.asarray([bos, *row], np.int64) for row in rows])
    blocks = len(flat) // (length + 1)
    return flat[: blocks * (length + 1)].reshape(blocks, length + 1)


def sampled_loss(
    states: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    log_share: torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy over the target and a sample of the vocabulary, shared by all positions.

    Each sampled logit is corrected by the log of its expected count (Jean et al. 2015,
    arXiv 1412.2007), so the loss tends to that over the whole vocabulary at a tenth of its cost.

    Args:
        states: final hidden states, [positions, hidden].
        head: output embeddings, [entries, hidden].
        targets: next tokens, [positions].
        log_share: log probability of each entry being drawn, [entries].
        noise: drawn entries, [samples].
    """
    own = (states * functional.embedding(targets, head)).sum(1, keepdim=True).float()
    others = (states @ functional.embedding(noise, head).T).float()
    others = others - (log_share[noise] + np.log(len(noise)))
    others = others.masked_fill(targets.unsqueeze(1) == noise, float("-inf"))
    return (torch.cat([own, others], 1).logsumexp(1, keepdim=True) - own).mean()


def pretrain(
    model: LlamaForCausalLM,
    blocks: Ints,
    share: npt.NDArray[np.float64],
    run: runs.Run,
    *,
    rows: int = 16,
    learning_rate: float = 2e-3,
    samples: int = 4096,
    seed: int = 13,
) -> None:
    """Train the layers and the head; word vectors stay where the teacher put them."""
    model.model.embed_tokens.weight.requires_grad_(False)
    drawn = torch.from_numpy((share + 1e-7) ** 0.75)
    log_share = (drawn / drawn.sum()).log().float()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=learning_rate,
        betas=(0.9, 0.95),
        weight_decay=0.01,
        fused=True,
    )
    model.train()

    def update(step: int) -> tuple[torch.Tensor, int]:
        random = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.randint(len(blocks), (rows,), generator=random).numpy()
        ids = torch.from_numpy(blocks[chosen])
        noise = torch.multinomial(drawn, samples, replacement=True, generator=random)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_pays()):
            states = model.model(input_ids=ids[:, :-1]).last_hidden_state.flatten(0, 1)
            loss = sampled_loss(
                states, model.lm_head.weight, ids[:, 1:].flatten(), log_share, noise
            )
        return loss, ids.numel() - rows

    runs.train(run, model, optimizer, update)
