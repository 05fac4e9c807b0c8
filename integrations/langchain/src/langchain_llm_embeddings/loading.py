"""The model behind an object: loaded from options, or shared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

from langchain_core.load.serializable import (
    Serializable,
    SerializedConstructor,
    SerializedNotImplemented,
)
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, model_validator

from llm_embeddings import Encoder
from llm_embeddings.checkpoint.options import LoadOptions, from_plain
from llm_embeddings.faces import hint

from .values import (
    DeviceMap,
    DeviceText,
    DtypeText,
    PathText,
    QuantizationValue,
    RecipeValue,
)

MODEL_CONFIG = ConfigDict(
    extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True
)

# The fields of the core's options that LangChain calls otherwise.
SPELLED = {"cache_dir": "cache_folder"}


def check_fields(kind: type[BaseModel], given: Any) -> Any:
    """What a class is made of, as it is given, or `ValueError` for a field that it does not have.

    The message says what it is called here.
    """
    fields = kind.model_fields
    aliases = {field.alias for field in fields.values() if field.alias} | {"model_name"}
    for name in given.keys() - fields.keys() - aliases if isinstance(given, dict) else ():
        role = "document" if name == "encode_kwargs" else "query"
        names = {**SPELLED, "prompt_name": f"{role}_prompt_name"}
        said = hint(name, list(fields), given[name], names)
        raise ValueError(f"{name!r} is not an option of {kind.__name__}; {said}")
    return given


class ModelFields(Serializable):
    """What loads a model, or the loaded model instead. `LLMEmbeddings` says what each means."""

    model_config = MODEL_CONFIG

    model: PathText | None = Field(
        default=None, validation_alias=AliasChoices("model", "model_name")
    )
    recipe: RecipeValue = None
    adapters: Sequence[PathText] | None = None
    device: DeviceText | None = None
    devices: Sequence[DeviceText] | None = None
    dtype: DtypeText = "auto"
    attn_implementation: str | None = None
    quantization: QuantizationValue = None
    device_map: DeviceMap | None = None
    revision: str | None = None
    token: SecretStr | bool | None = None
    cache_folder: PathText | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    vector_cache: PathText | None = None
    # Never None outside: model_post_init sets it where none is given.
    encoder: Encoder = Field(default=cast(Encoder, None), exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, given: Any) -> Any:
        """Say for an unknown option what it is called here, before a model is loaded."""
        return check_fields(cls, given)

    def model_post_init(self, context: Any) -> None:
        """Load the model unless a loaded one is given."""
        if self._is_shared:
            extra = sorted(self.model_fields_set & set(ModelFields.model_fields) - {"encoder"})
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
        """A `token` is dumped as a reference to the secret HF_TOKEN."""
        return {"token": "HF_TOKEN"} if isinstance(self.token, SecretStr) else {}

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
        names = [field.name for field in dataclasses.fields(LoadOptions)]
        values = {name: getattr(self, SPELLED.get(name, name)) for name in names}
        if isinstance(self.token, SecretStr):
            values["token"] = self.token.get_secret_value()
        return Encoder.open(self.__dict__["model"], from_plain(values))
