"""The model behind an object: loaded from options, or shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from langchain_core.load.serializable import (
    Serializable,
    SerializedConstructor,
    SerializedNotImplemented,
)
from pydantic import AliasChoices, ConfigDict, Field, SecretStr

from llm_embeddings import Encoder, Recipe

from .values import PathText, RecipeValue, TorchText

MODEL_CONFIG = ConfigDict(
    extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True
)


class LoadOptions(Serializable):
    """What loads a model, or the loaded model instead. `LLMEmbeddings` says what each means."""

    model_config = MODEL_CONFIG

    model: PathText | None = Field(
        default=None, validation_alias=AliasChoices("model", "model_name")
    )
    recipe: RecipeValue = None
    adapters: Sequence[PathText] | None = None
    device: TorchText | None = None
    devices: Sequence[TorchText] | None = None
    dtype: TorchText = "auto"
    attn_implementation: str | None = None
    revision: str | None = None
    token: SecretStr | None = None
    cache_folder: PathText | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    vector_cache: PathText | None = None
    # Never None outside: model_post_init sets it where none is given.
    encoder: Encoder = Field(default=cast(Encoder, None), exclude=True, repr=False)

    def model_post_init(self, context: Any) -> None:
        """Load the model unless a loaded one is given."""
        if self._is_shared:
            extra = sorted(self.model_fields_set & set(LoadOptions.model_fields) - {"encoder"})
            if extra:
                raise ValueError(f"encoder is loaded already: leave out {', '.join(extra)}")
        else:
            object.__setattr__(self, "encoder", self._load())

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True: `langchain_core.load.dumps` writes the options, not the weights."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """`token` is dumped as a reference to the secret HF_TOKEN."""
        return {"token": "HF_TOKEN"}

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """The options, from which `loads` makes an equal object.

        Made over a given `encoder`, the object has no model name to write: it is then marked as not
        serialisable instead of coming back with another model.
        """
        return self.to_json_not_implemented() if self._is_shared else super().to_json()

    @property
    def model_name(self) -> str | None:
        """`model`, under the name other LangChain classes give it."""
        return None if self.model is None else str(self.model)

    @property
    def _is_shared(self) -> bool:
        return "encoder" in self.model_fields_set

    def _load(self) -> Encoder:
        recipe = self.recipe
        return Encoder.from_pretrained(
            self.model,
            recipe=Recipe.from_dict(recipe) if isinstance(recipe, dict) else recipe,
            adapters=self.adapters,
            device=self.device,
            devices=self.devices,
            dtype=self.dtype,
            attn_implementation=self.attn_implementation,
            revision=self.revision,
            token=self.token.get_secret_value() if self.token else None,
            cache_dir=self.cache_folder,
            local_files_only=self.local_files_only,
            trust_remote_code=self.trust_remote_code,
            vector_cache=self.vector_cache,
        )
