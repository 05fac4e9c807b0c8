"""Whose vectors an object gives, said in LangChain's fields; pickles and copies without weights."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.load.serializable import SerializedConstructor, SerializedNotImplemented
from pydantic import PrivateAttr, SecretStr

from llm_embeddings import Encoder
from llm_embeddings.checkpoint.options import Ticket

from .loading import ModelFields

# Options that decide no vector: where the model lies and how it is run.
IDLE = frozenset(
    "model device devices device_map attn_implementation token cache_folder local_files_only "
    "trust_remote_code vector_cache max_batch_tokens show_progress".split()
)
_OPENING = threading.Lock()


class Identified(ModelFields):
    """What has a name of its own: reading `model` or `model_name` says whose vectors it gives.

    Both are the hub id that was given. Of a directory, whose files may change, of no model, and
    where other options decide the vectors too, they are the name of the recipe with a fingerprint
    behind it, so that two models never share a namespace. It is computed when it is read.
    """

    _ticket: Ticket | None = PrivateAttr(default=None)

    def identity(self) -> str:
        """A name for all that decides the vectors of queries and documents."""
        raise NotImplementedError

    @property
    def model_name(self) -> str:
        """`model`, under the name other LangChain classes give it."""
        return self._shown()

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """As of the options: what was given as `model`, not what it shows."""
        found: Any = super().to_json()
        if "model" in found.get("kwargs", {}):
            found["kwargs"]["model"] = self.__dict__["model"]
        plain: SerializedConstructor | SerializedNotImplemented = found
        return plain

    if not TYPE_CHECKING:

        def __getattribute__(self, name: str) -> Any:
            if name == "model":
                return self._shown()
            if name == "encoder":
                return self._opened()
            return super().__getattribute__(name)

    def __getstate__(self) -> dict[Any, Any]:
        """The options, and a ticket in place of the weights where they lie in files."""
        state = super().__getstate__()
        encoder: Encoder | None = state["__dict__"].get("encoder")
        ticket = None if encoder is None else encoder.ticket()
        if ticket is None:
            return state
        private = {**(state["__pydantic_private__"] or {}), "_ticket": ticket}
        fields = {**state["__dict__"], "encoder": None}
        return {**state, "__dict__": fields, "__pydantic_private__": private}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        """A copy that shares the weights."""
        encoder = self.__dict__["encoder"]
        return super().__deepcopy__({**(memo or {}), id(encoder): encoder})

    def _shown(self) -> str:
        given = self.__dict__["model"]
        told = {
            name
            for name in self.model_fields_set - IDLE
            if self.__dict__[name] != type(self).model_fields[name].default
        }
        known = given is not None and not told and not Path(given).expanduser().is_dir()
        return str(given) if known else self.identity()

    def _opened(self) -> Encoder:
        found: Encoder | None = self.__dict__["encoder"]
        if found is None and self._ticket is not None:
            with _OPENING:
                found = self.__dict__["encoder"]
                if found is None:
                    token = self.token
                    plain = token.get_secret_value() if isinstance(token, SecretStr) else token
                    found = self._ticket.open(Encoder.open, plain)
                    self.__dict__["encoder"] = found
        opened: Any = found
        return opened  # type: ignore[no-any-return]
