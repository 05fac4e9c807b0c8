"""What LLaRA's joint pass costs, against a pass for each of its two prompts.

`python -m benchmarks.llara`: forward and backward of the same losses in the same modules, packed
alike; the contenders take turns. Their losses are compared before anything is timed. The head
computes the text's logits once either way, so a model that is mostly head (`small`) saves less.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from .measure import Task, interleave, take
from .models import LAYOUTS, SHAPES, WORK, random_backbone, write_tokenizer

if TYPE_CHECKING:
    import torch

    from llm_embeddings.training.passes.joint import Joint, JointModel

LIMIT = 0.6
_LAYOUT = LAYOUTS["llara"]
_WORDS = 40  # in a bag
_LONGEST_WAIT = 5.0


def main() -> None:
    """Measure, print, and fail where the joint pass is dearer than it may be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="medium", choices=SHAPES)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--texts", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    model = joint_model(given.shape, given.dtype, given.device)
    rows = random_rows(model, given.texts, given.tokens)
    loss = float(step(model, rows, joint=True))
    difference = abs(loss - float(step(model, rows, joint=False))) / loss
    allowed = 1e-5 if given.dtype == "float32" else 1e-2
    if difference > allowed:
        raise SystemExit(f"the losses differ by {difference:.1e}: nothing is timed")
    names = {"joint pass": True, "two passes": False}
    tasks = {name: partial(step, model, rows, joint=joint) for name, joint in names.items()}
    timings = interleave(
        {name: Task(run, take(Task(run)).seconds) for name, run in tasks.items()},
        given.repeats,
        attempts=2 * given.repeats,
        longest_wait=_LONGEST_WAIT,
    )
    one, two = timings["joint pass"], timings["two passes"]
    ratio = one.seconds / two.seconds
    contended = "" if one.clean and two.clean else " (contended: no clean sample)"
    print(
        f"{given.texts} texts of {given.tokens} tokens, {given.shape}, {given.dtype}, "
        f"{given.device}: losses differ by {difference:.1e}\n"
        f"joint pass {one.seconds:.3f} s, two passes {two.seconds:.3f} s, "
        f"ratio {ratio:.3f} (at most {LIMIT}){contended}"
    )
    if ratio > LIMIT:
        raise SystemExit(1)


def joint_model(shape: str, dtype: str, device: str) -> JointModel:
    """A backbone and head with random weights and LLaRA's prompts, all trained."""
    import torch

    from llm_embeddings.checkpoint.loading import load_tokenizer
    from llm_embeddings.training.passes.encoding import Encoding
    from llm_embeddings.training.passes.joint import JointModel, joint_prompts

    directory = WORK / "models" / "llara-tokenizer"
    directory.mkdir(parents=True, exist_ok=True)
    write_tokenizer(_LAYOUT, directory)
    prompts = joint_prompts(load_tokenizer(directory), _LAYOUT.recipe)
    backbone = random_backbone(SHAPES[shape], _LAYOUT, dtype=dtype, device=device)
    embedding: Any = backbone.get_input_embeddings()
    rows, width = embedding.weight.shape
    torch.manual_seed(0)
    head = torch.nn.Linear(width, rows, bias=False, device=device, dtype=getattr(torch, dtype))
    return JointModel(Encoding(backbone, _LAYOUT.recipe), head, prompts).train()


def random_rows(model: JointModel, texts: int, tokens: int) -> list[Joint]:
    """Texts of `tokens` random ids behind the prefix, with words for both prompts."""
    import torch

    from llm_embeddings.training.passes.joint import Joint

    generator = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        drawn: list[int] = torch.randint(3, 32000, (count,), generator=generator).tolist()
        return drawn

    prefix = list(model.prompts.prefix)
    return [Joint([*prefix, *ids(tokens)], ids(_WORDS), ids(_WORDS)) for _ in range(texts)]


def step(model: JointModel, rows: list[Joint], *, joint: bool) -> torch.Tensor:
    """Forward and backward of the three losses' sum; the loss."""
    import torch

    model.zero_grad()
    if joint:
        loss: torch.Tensor = model(rows).sum()
        loss.backward()
    else:
        loss = torch.stack([_separate(model, rows, summary=on) for on in (True, False)]).sum()
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
    return loss.detach()


def _separate(model: JointModel, rows: list[Joint], *, summary: bool) -> torch.Tensor:
    """One prompt's pass; the text's own loss comes with the first."""
    import torch

    from llm_embeddings.training.losses import IGNORED, bag_of_words_nll, head_nll_sum, next_tokens

    prompt = model.prompts.summary if summary else model.prompts.following
    hidden = model.encoding.hidden([[*row.ids, *prompt] for row in rows])
    slots = torch.stack([states[-model.prompts.slots :] for states in hidden])
    words = [row.summary if summary else row.following for row in rows]
    loss = bag_of_words_nll(model.head(slots), words)[0]
    if summary:
        start = len(model.prompts.prefix)
        labels = [[*[IGNORED] * start, *row.ids[start:], *[IGNORED] * len(prompt)] for row in rows]
        places, wanted = next_tokens(labels)
        states = torch.cat(hidden)[places]
        loss = (
            loss + head_nll_sum(model.head, states, torch.tensor(wanted, device=states.device))[0]
        )
    loss.backward()
    return loss.detach()


if __name__ == "__main__":
    main()
