"""What an output folder was begun with: written first, compared whenever it goes on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...storage.journal import check_settings
from ..batch import Facts
from ..folder import MANIFEST, UNFINISHED, Folder
from ..input.staging import Staged
from ..options import COLUMN, EmbeddingOptions

_REMEDY = "it would hold rows of two kinds. Go on as it was begun, or name another folder"

_TELLING = ("device", "dtype", "instruction")  # of what the fingerprint hides, the likely reasons


def settings_of(embedding: EmbeddingOptions) -> dict[str, Any]:
    """What was asked of the model and decides vectors; what it is, only loading it tells."""
    return {
        "quantization": embedding.get("quantization"),
        "role": embedding.get("role", "document"),
        "normalize": embedding.get("normalize"),
        "truncate_dim": embedding.get("truncate_dim"),
        "precision": embedding.get("precision", "float32"),
        "max_length": embedding.get("max_length"),
        "embedding_column": embedding.get("embedding_column", COLUMN),
    }


def opened(
    folder: Folder, settings: dict[str, Any], origins: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """The manifest of an output folder, None of an empty one.

    Raises:
        ValueError: the folder is another's, or was begun with other settings or another input.
    """
    manifest = folder.get_json(MANIFEST)
    others = [name for name in folder.names() if name != UNFINISHED]
    if manifest is None and others:
        raise ValueError(
            f"{folder.place} is not empty and was not begun by embed_dataset: it has "
            f"{others[0]!r}. Name another folder"
        )
    if manifest is None:
        return None
    check_settings(folder.place, manifest["settings"], settings, _REMEDY)
    there = manifest["input"]
    if there != origins:
        changed = next(
            (one for one in (*origins, *there) if one not in there or one not in origins),
            {"place": "the order of the files"},
        )
        raise ValueError(
            f"the input has changed since {folder.place} was begun ({changed['place']}): name "
            "another folder for it"
        )
    return manifest


def begun(
    folder: Folder,
    manifest: dict[str, Any] | None,
    settings: dict[str, Any],
    origins: list[dict[str, Any]],
    facts: Facts,
) -> dict[str, Any]:
    """Write the manifest, or compare the model with the one it was begun with.

    Raises:
        ValueError: it is another model, or the same one elsewhere or in another dtype.
    """
    model = asdict(facts)
    if manifest is None:
        from ... import __version__

        manifest = {
            "written_by": f"llm-embeddings {__version__}",
            "settings": settings,
            "model": model,
            "input": origins,
            "staged": None,
            "unreadable": None,
        }
        folder.put_json(MANIFEST, manifest)
        return manifest
    telling = {name: model[name] for name in _TELLING}
    check_settings(folder.place, manifest["model"], telling, _REMEDY)
    if manifest["model"]["fingerprint"] != facts.fingerprint:
        raise ValueError(f"{folder.place} was begun with another model: {_REMEDY}")
    return manifest


def planned(
    folder: Folder, manifest: dict[str, Any], staged: Staged, unreadable: dict[str, str]
) -> None:
    """Note which files hold the rows, before the first block: blocks are counted through them."""
    if manifest["unreadable"] is None:
        folder.put_json(MANIFEST, {**manifest, "staged": asdict(staged), "unreadable": unreadable})
