"""An `Encoder` behind mteb's interface, with the right instruction for each task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from ...faces import require
from ...inputs import names_checked
from ..rules import Prompts, Side, prompts_of, rules_of
from ..scores import Floats

if TYPE_CHECKING:
    from ...encoder import Encoder

Precision = Literal["float32", "float16", "int8", "uint8"]
_OWN_GROUP = "llm-embeddings"


@names_checked
def mteb_encoder(
    encoder: Encoder,
    *,
    instructions: Mapping[str, str] | None = None,
    max_length: int | None = None,
    name: str | None = None,
    revision: str | None = None,
) -> MTEBEncoder:
    """Wrap an encoder for `mteb.evaluate`.

    Example:
        >>> import mteb  # doctest: +SKIP
        >>> model = mteb_encoder(Encoder.from_pretrained("GritLM/GritLM-7B"))  # doctest: +SKIP
        >>> mteb.evaluate(model, mteb.get_task("NFCorpus"))  # doctest: +SKIP

    Args:
        encoder: Makes the vectors.
        instructions: Instructions to use instead of the published ones, by task name or type of
            task; "" = none.
        max_length: Most tokens of a text; None = the limit of the family's published scores.
        name: Name under which mteb stores results, "organisation/name"; None = the recipe's.
        revision: Revision under which mteb stores results; None = a fingerprint of weights, recipe
            and these options, so that mteb's cache never takes another model's result.

    Raises:
        ImportError: mteb is not installed.
    """
    import_mteb()
    return MTEBEncoder(encoder, instructions or {}, max_length, name, revision)


class MTEBEncoder:
    """`mteb.EncoderProtocol` over an `Encoder`; made by `mteb_encoder`.

    Attributes:
        encoder: Makes the vectors.
    """

    def __init__(
        self,
        encoder: Encoder,
        instructions: Mapping[str, str],
        max_length: int | None,
        name: str | None,
        revision: str | None,
    ) -> None:
        """Wrap an encoder; the arguments are those of `mteb_encoder`."""
        self.encoder = encoder
        self._instructions = dict(instructions)
        published = rules_of(encoder.recipe).max_length
        self._max_length = max_length or (min(published, encoder.max_length) if published else None)
        self._name, self._revision = name, revision

    @property
    def mteb_model_meta(self) -> Any:
        """An `mteb.ModelMeta` of the model as it is, made without asking the hub."""
        return self._meta(self._name, self._revision)

    def prompts(self, task_metadata: Any) -> Prompts:
        """Roles and instructions with which a task is embedded.

        Args:
            task_metadata: An `mteb.TaskMetadata`.

        Warns:
            InstructionWarning: no instruction is given or published for the task.
        """
        own = task_metadata.prompt
        return prompts_of(
            self.encoder.recipe,
            task_metadata.type,
            task_metadata.name,
            instructions=self._instructions,
            own=own.get("query") if isinstance(own, dict) else own,
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        batch_size: int = 32,
        show_progress_bar: bool = False,
        precision: Precision = "float32",
    ) -> Floats:
        """Vectors of a task's texts.

        Args:
            inputs: Batches with a list of strings under "text".
            task_metadata: An `mteb.TaskMetadata`.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: An `mteb.types.PromptType`, in searches and rerankings: query or document.
            batch_size: Not used: passes are filled by tokens.
            show_progress_bar: Show a progress bar.
            precision: "float32", "float16", "int8" or "uint8"; mteb keeps results of each apart.

        Returns:
            `[texts, dim]`, in that precision.

        Raises:
            ValueError: the task is not about texts, or a precision that is none, or has no cosine.
        """
        if precision not in get_args(Precision):
            raise ValueError(
                f"precision={precision!r} is not one of {get_args(Precision)}: the packed ones put "
                "eight dimensions into a number, and mteb takes cosines"
            )
        texts: list[str] = []
        for batch in inputs:
            if "text" not in batch:
                raise ValueError(
                    f"{task_metadata.name} has {', '.join(batch)} and no text: this model embeds "
                    "texts only"
                )
            texts += batch["text"]
        prompts = self.prompts(task_metadata)
        side: Side = prompts.document if _is_document(prompt_type) else prompts.query
        found: Floats = self.encoder.encode(
            texts,
            side.role,
            side.instruction,
            normalize=prompts.normalize,
            max_length=self._max_length,
            show_progress=show_progress_bar,
            precision=precision,
        )
        return found

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine similarity of each of `[n, dim]` with each of `[m, dim]`, a tensor `[n, m]`."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Cosine similarity of two `[n, dim]` row by row, a tensor `[n]`."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)

    def _meta(self, name: str | None, revision: str | None) -> Any:
        """An `mteb.ModelMeta` of this encoder."""
        from mteb.models.model_meta import ModelMeta

        encoder, recipe = self.encoder, self.encoder.recipe
        name = name or recipe.name
        return ModelMeta(
            loader=None,
            name=name if "/" in name else f"{_OWN_GROUP}/{name}",
            revision=revision or self._fingerprint(),
            release_date=None,
            languages=None,
            n_parameters=sum(weight.numel() for weight in encoder.model.backbone.parameters()),
            memory_usage_mb=None,
            max_tokens=self._max_length or encoder.max_length,
            embed_dim=encoder.dimension,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch", "Transformers"],
            similarity_fn_name="cosine",  # type: ignore[arg-type]
            use_instructions=recipe.query.takes_instruction,
            training_datasets=None,
        )

    def _fingerprint(self) -> str:
        """A hash of weights, recipe and options, 32 hexadecimal digits."""
        whole = [
            self.encoder.fingerprint("query"),
            self.encoder.fingerprint("document"),
            self._instructions,
            self._max_length,
        ]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def import_mteb() -> Any:
    """The mteb package.

    Raises:
        ImportError: it is not installed.
    """
    return require("mteb", "MTEB's tasks need mteb", extra="eval")


def _is_document(prompt_type: Any) -> bool:
    """Whether a `PromptType`, or its value as a string, says document."""
    return prompt_type is not None and str(getattr(prompt_type, "value", prompt_type)) == "document"
