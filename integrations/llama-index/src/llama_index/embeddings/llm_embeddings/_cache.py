"""LlamaIndex's cache of embeddings, one collection per model and options."""

from __future__ import annotations

from collections.abc import Callable

from llama_index.core.storage.kvstore.types import BaseKVStore


class OwnCollection(BaseKVStore):
    """A store whose collections have a name behind theirs.

    `BaseEmbedding` has one entry per string in the collection "embeddings", whoever embeds it.
    """

    def __init__(self, store: BaseKVStore, name: Callable[[], str]) -> None:
        """Keep everything in `store`; `name` says what is put behind a collection's name."""
        if not isinstance(store, BaseKVStore):
            raise TypeError(f"embeddings_cache is {type(store).__name__}, not a BaseKVStore")
        self.store: BaseKVStore = store.store if isinstance(store, OwnCollection) else store
        self._name = name

    def _of(self, collection: str) -> str:
        return f"{collection}-{self._name()}"

    def put(self, key: str, val: dict, collection: str = "data") -> None:  # type: ignore[type-arg]
        """Keep a value."""
        self.store.put(key, val, self._of(collection))

    async def aput(self, key: str, val: dict, collection: str = "data") -> None:  # type: ignore[type-arg]
        """Keep a value."""
        await self.store.aput(key, val, self._of(collection))

    def get(self, key: str, collection: str = "data") -> dict | None:  # type: ignore[type-arg]
        """A value, or None."""
        return self.store.get(key, self._of(collection))

    async def aget(self, key: str, collection: str = "data") -> dict | None:  # type: ignore[type-arg]
        """A value, or None."""
        return await self.store.aget(key, self._of(collection))

    def get_all(self, collection: str = "data") -> dict[str, dict]:  # type: ignore[type-arg]
        """All values by key."""
        return self.store.get_all(self._of(collection))

    async def aget_all(self, collection: str = "data") -> dict[str, dict]:  # type: ignore[type-arg]
        """All values by key."""
        return await self.store.aget_all(self._of(collection))

    def delete(self, key: str, collection: str = "data") -> bool:
        """Remove a value; whether it was there."""
        return self.store.delete(key, self._of(collection))

    async def adelete(self, key: str, collection: str = "data") -> bool:
        """Remove a value; whether it was there."""
        return await self.store.adelete(key, self._of(collection))
