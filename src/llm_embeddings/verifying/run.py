"""The checks in order, and what a report says of the model and the machine."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.files import Source, find
from ..checkpoint.options import LoadOptions
from . import peer
from .examples import check_examples
from .invariants import check_model
from .report import Verification
from .subject import Subject, dtype_of

_PACKAGES = ("llm-embeddings", "torch", "transformers", "sentence-transformers")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from.

    Attributes:
        model: What it was loaded from, as it was named.
        directory: Where that lies on this disk; None = not known.
        checkpoint: Hub id of its weights; None = they are of no published checkpoint.
        added: Whether adapters were put on top.
    """

    model: str
    directory: Path | None
    checkpoint: str | None
    added: bool = False


def origin_of(opened: tuple[str, LoadOptions] | None, checkpoint: str | None) -> Origin:
    """Where a model comes from, by what it was loaded with.

    Args:
        opened: What it was loaded from, and with which options; None = it was put together by hand.
        checkpoint: Hub id that the user says its weights have. Without it only a model that was
            loaded by its hub id, and without adapters on top, is taken for a published one:
            names in files outlive the weights they belonged to.
    """
    if opened is None:
        return Origin("put together in memory", None, checkpoint)
    model, options = opened
    added = bool(options.adapters)
    if checkpoint is None and not Path(model).expanduser().is_dir() and not added:
        checkpoint = model
    source = Source(options.revision, None, options.cache_dir, local_files_only=True)
    try:
        directory = find(model, source)
    except FileNotFoundError:
        return Origin(model, None, checkpoint, added)
    return Origin(model, directory, checkpoint, added)


def check_alone(subject: Subject, origin: Origin) -> tuple[Verification, peer.Ours | None]:
    """All that needs one copy of the weights.

    Returns:
        The checks but for the one with sentence-transformers, and our half of that one, for which
        the model is not needed any more; None where the checks say why it is not run.
    """
    verification = Verification(
        facts=_facts(subject, origin),
        checks=(*check_examples(subject, origin.checkpoint), *check_model(subject)),
    )
    reason = peer.reason_against(subject, origin.directory, added=origin.added)
    if reason is not None:
        return verification.with_checks(peer.not_run(reason)), None
    try:
        return verification, peer.ours(subject)
    except (ValueError, RuntimeError, IndexError) as error:
        return verification.with_checks(peer.failed(error)), None


def check_peer(verification: Verification, made: peer.Ours, origin: Origin) -> Verification:
    """The comparison with sentence-transformers, which loads the weights once more."""
    assert origin.directory is not None
    return verification.with_checks(peer.compare(made, origin.directory))


def verify(subject: Subject, origin: Origin) -> Verification:
    """All checks of a model that stays in memory meanwhile."""
    verification, made = check_alone(subject, origin)
    if made is None:
        return verification
    if not peer.has_room(made):
        words = (
            "there is no memory for a second copy of the weights: `llm-embeddings verify` loads "
            "one after the other"
        )
        return verification.with_checks(peer.not_run(words))
    return check_peer(verification, made, origin)


def _facts(subject: Subject, origin: Origin) -> dict[str, str]:
    """What somebody who reads the report has to know."""
    model = subject.model
    recipe, config = model.recipe, model.backbone.config
    facts = {
        "model": origin.model,
        "hub id": origin.checkpoint or "not given",
        "revision": _revision(origin.directory) or "not known",
        "recipe": f"{recipe.name} ({recipe.family})",
        "source": recipe.source or "none given",
        "computed": f"{type(model.backbone).__name__}, {dtype_of(subject)}, {model.device}, "
        f"{getattr(config, '_attn_implementation', None)}, {subject.scheduler.runner.packing}",
        "fingerprint": subject.fingerprint(),
    }
    if subject.quantization_cosine is not None:
        facts["quantised"] = f"lowest cosine with the plain model {subject.quantization_cosine:.5f}"
    versions = [f"{name} {_version(name)}" for name in _PACKAGES]
    return facts | {"versions": ", ".join(versions), "machine": _machine()}


def _revision(directory: Path | None) -> str | None:
    """The commit of a snapshot in a hub cache."""
    if directory is None or directory.parent.name != "snapshots":
        return None
    return directory.name


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _machine() -> str:
    return f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
