"""EmbedBatch: texts -> vectors inside `Dataset.map_batches`, with a model in each actor."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from numpy.typing import NDArray

from ..arithmetic.precision import NEEDS_RANGES
from ..recipe import Role
from .options import COLUMN, BatchKeywords, divided
from .tables import import_arrow, texts_of, with_vectors

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

_SAMPLE = 32  # texts that `count_tokens` tokenises


@dataclass(frozen=True, slots=True)
class Facts:
    """What a loaded model's vectors depend on; workers whose facts differ must not mix.

    Attributes:
        fingerprint: Hash of weights, tokenizer, dtype, recipe, role, instruction and ranges.
        device: "cpu", "cuda" or "mps".
        dtype: The dtype that is computed in.
        numbers: NumPy's name of the vectors' dtype.
        dimension: Numbers per vector.
        instruction: The instruction that is used; "" = none.
    """

    fingerprint: str
    device: str
    dtype: str
    numbers: str
    dimension: int
    instruction: str


class EmbedBatch:
    """Adds a column of vectors to batches; for `map_batches`, which makes one in each actor.

    Inside a Ray worker, torch gets as many threads as the worker has CPUs, and the model is put on
    the worker's GPU if it has one, else on the CPU.

    Example:
        >>> dataset.map_batches(  # doctest: +SKIP
        ...     EmbedBatch,
        ...     fn_constructor_kwargs={"model": "intfloat/e5-mistral-7b-instruct"},
        ...     batch_size=1024,
        ...     num_gpus=1,
        ...     compute=ray.data.ActorPoolStrategy(size=8),
        ... )

    Attributes:
        encoder: The loaded model.
        facts: What its vectors depend on.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        role: Role = "document",
        instruction: str | None = None,
        text_column: str = "text",
        embedding_column: str = COLUMN,
        **options: Unpack[BatchKeywords],
    ) -> None:
        """Load the model.

        Args:
            model: As in `Encoder.from_pretrained`.
            role: "document" or "query", as in `Encoder.encode`.
            instruction: None = the recipe's default.
            text_column: Name of the column of texts.
            embedding_column: Name of the new column of vectors.
            **options: As in `Encoder.from_pretrained` (`LoadOptions` has them all) and in
                `Encoder.encode`, but for `devices`, as a worker has one, and `show_progress`.
                `device`: None = the worker's GPU if it has one, else the CPU. `device_map`: for a
                model larger than a GPU; give the worker as many GPUs as it names. `vector_cache`:
                a file on the worker's machine; a vector from it may differ in its last bits.

        Raises:
            FileNotFoundError: as `Encoder.from_pretrained`.
            TypeError: an unknown option, with the nearest known one, or one that workers lack.
            ValueError: as `Encoder.from_pretrained` and `Encoder.encode`.
            ImportError: pyarrow is not installed.
        """
        from ..encoder import Encoder

        import_arrow()
        load, self._options = divided(options)
        device = _take_share(load.device) if load.device_map is None else None
        self.encoder = Encoder.open(model, replace(load, device=device))
        self._role, self._instruction = role, instruction
        name = self._options.prompt_name
        self._named = role if name is None else name
        self._text, self._vectors = text_column, embedding_column
        self.facts = self._facts()

    def __call__(self, batch: Mapping[str, NDArray[Any]] | pa.Table) -> pa.Table:
        """Embed a batch.

        Args:
            batch: Columns as arrays (`batch_format="numpy"`, Ray's default) or an Arrow table.

        Returns:
            The same columns and the vectors, a fixed-size list of float32 unless `precision` says
            otherwise.

        Raises:
            ValueError: there is no such column, it is not text, or a row has no text.
        """
        table = _as_table(batch)
        texts = texts_of(table, self._text)
        for row, text in enumerate(texts):
            if text is None:
                raise ValueError(
                    f"row {row} of the batch has no text in column {self._text!r}: drop such rows, "
                    "or fill them in"
                )
        found = self.encode([text for text in texts if text is not None])
        return with_vectors(table, self._vectors, found)

    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """Vectors `[n, dim]` of texts, the same bits whatever the process has embedded before."""
        self.encoder.scheduler.runner.forget()
        found: NDArray[Any] = self.encoder.encode(
            texts, self._role, self._instruction, **asdict(self._options)
        )
        return found

    def count_tokens(self, texts: Sequence[str]) -> int:
        """About how many tokens texts have, prompts included; exact for up to 32 texts.

        Of more texts, 32 evenly spaced ones are tokenised: to tokenise all a second time would cost
        a few percent of the time on a large GPU.
        """
        few = texts[:: max(1, len(texts) // _SAMPLE)][:_SAMPLE]
        limit = self._options.max_length
        rows = self.encoder.model.rows(few, self._named, self._instruction, limit)
        return round(sum(len(row.ids) for row in rows) * len(texts) / max(len(few), 1))

    def _facts(self) -> Facts:
        encoder, nothing = self.encoder, self.encode([])
        print_ = encoder.fingerprint(self._named, self._instruction)
        if self._options.precision in NEEDS_RANGES:
            wanted = self._options.normalize
            normalize = encoder.recipe.normalize if wanted is None else wanted
            ranges = encoder.ranges_of(nothing.shape[1], normalize)
            print_ = hashlib.sha256(print_.encode() + ranges.tobytes()).hexdigest()[:32]
        return Facts(
            print_,
            encoder.device.type,
            str(encoder.model.dtype).removeprefix("torch."),
            nothing.dtype.name,
            nothing.shape[1],
            encoder.recipe.resolve_instruction(self._named, self._instruction),
        )


def _as_table(batch: Mapping[str, NDArray[Any]] | pa.Table) -> pa.Table:
    """A batch as an Arrow table, made by Ray, which can store types that Arrow lacks."""
    if not isinstance(batch, Mapping):
        return batch
    from ray.data.block import BlockAccessor

    return BlockAccessor.batch_to_arrow_block(dict(batch))


def _take_share(device: str | torch.device | None) -> str | torch.device | None:
    """Use the CPUs and GPUs that Ray gave this worker; outside a worker, change nothing.

    Returns:
        The device to load the model on; None = the default.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return device
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return device
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # each worker's bar would be in the log
    share = context.get_assigned_resources()
    torch.set_num_threads(max(1, int(share.get("CPU", 1))))
    return device or ("cuda" if share.get("GPU") else "cpu")
