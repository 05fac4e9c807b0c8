"""What the worker costs a call: `encode` against its steps without queue, thread and future."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from llm_embeddings import Encoder
from llm_embeddings.call import Call
from llm_embeddings.inputs import EncodeOptions

from .models import E5_TOKENIZER

_CALLS = 300
_TEXT = "What do cats do?"


def per_call(repeats: int) -> float:
    """Milliseconds that `encode` of one text takes beyond its steps done in the calling thread.

    On a tiny model and one core, so that little else is left. Called from a thread of its own: the
    main thread would compute the text itself. Medians of single calls, in turns; the median of
    `repeats` rounds.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_per_call, repeats).result()


def _per_call(repeats: int) -> float:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    encoder = Encoder.from_pretrained(E5_TOKENIZER, dtype="float32", device="cpu")
    runner = encoder.scheduler.runner
    rounds = []
    for _ in range(repeats + 1):
        queued, inline = [], []
        for _ in range(_CALLS):
            start = time.perf_counter()
            encoder.encode(_TEXT)
            between = time.perf_counter()
            call = Call(encoder.model, encoder.scheduler, {"document": None}, EncodeOptions())
            job = call.job(None, [_TEXT])
            states = torch.stack(runner.run(list(job.units))).cpu().numpy()
            call.finish([_TEXT], states, int)
            inline.append(time.perf_counter() - between)
            queued.append(between - start)
        rounds.append(statistics.median(queued) - statistics.median(inline))
    torch.set_num_threads(threads)
    return 1000 * statistics.median(rounds[1:])
