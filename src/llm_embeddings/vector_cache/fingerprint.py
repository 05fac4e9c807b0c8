"""A short name for everything that decides a vector."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version as _version_of
from typing import TYPE_CHECKING, Any

from ..arithmetic.stored import converted, dtype_of
from ..model import Model
from ..storage.hashing import BLOCK, hash_blocks, note, noted
from .origin import Origin

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

_TEMPLATES = ("query", "document", "prompts")
# Of a config: where it comes from, who wrote it, what heads and training read, and the direction
# of attention, which the recipe says and loading checks.
_IDLE = frozenset(
    "_attn_implementation _name_or_path architectures auto_map dtype gradient_checkpointing "
    "id2label is_causal label2id name_or_path output_attentions output_hidden_states problem_type "
    "return_dict torch_dtype transformers_version use_cache".split()
)
_RUNNING = frozenset("gradient_checkpointing max_seq_len_cached name_or_path training".split())
_GROWING = frozenset(("dynamic", "longrope"))  # kinds of positions whose tables follow the texts
_SMALL = 2**14  # values of a buffer that are compared, not only watched


class Fingerprints:
    """Fingerprints of a model; its weights are hashed when one is first asked for.

    What a fingerprint says is what lies in memory. Where untouched weights come from files, the
    hash is noted by these, so that the next process need not make it.
    """

    def __init__(self, model: Model, origin: Origin | None = None) -> None:
        """Hash nothing yet.

        Args:
            model: What is named.
            origin: The files that its weights, as they are now, were read from; None = none.
        """
        self._model, self._origin = model, origin
        self._begun = None if origin is None else self._state()
        self._known: tuple[tuple[Any, ...], str] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Fingerprints, (self._model, self.origin)

    @property
    def origin(self) -> Origin | None:
        """The files, while the weights are those of the files."""
        return self._origin if self._untouched() else None

    def of(self, role: str, instruction: str | None) -> str:
        """32 hex digits over all that decides the vectors of texts in a role."""
        recipe = self._model.recipe
        facts = recipe.replace(name="", source="", base=None, instruction="").to_dict()
        facts = {key: value for key, value in facts.items() if key not in _TEMPLATES}
        prefix, suffix = recipe.prefix(role, instruction), recipe.template(role).suffix
        return _hash_json([facts, prefix, suffix, self._config(), self._parts()])[:32]

    def _config(self) -> dict[str, Any]:
        return _facts_of(self._model.backbone.config.to_dict())

    def _parts(self) -> str:
        """Of tokenizer and weights; read again only when they change."""
        with self._lock:
            state = self._state()
            if state[0] is None or self._known is None or self._known[0] != state:
                self._known = state, self._digest()
            return self._known[1]

    def _digest(self) -> str:
        head = self._model.head
        parts = [
            self._model.tokenizer.backend_tokenizer.to_str(),
            type(self._model.backbone).__name__,
            _remote_code(self._model.backbone),
            self._weights(),
            None if head is None else _hash_tensors(head),
            None if head is None else _structure(head),
        ]
        return _hash_json(parts)

    def _weights(self) -> str:
        """Of the backbone; noted by the files it comes from."""
        backbone, origin = self._model.backbone, self.origin
        if origin is None:
            return _hash_module(backbone)
        made = [_version_of(name) for name in ("torch", "transformers", "peft")]
        made += [str(self._model.dtype), backbone.device.type, type(backbone).__name__]
        facts = {**origin.facts, "config": _hash_json(self._config()), "made": made}
        found = noted(origin.files, facts)
        if found is None:
            found = _hash_module(backbone)
            note(origin.files, facts, found)
        return found

    def _untouched(self) -> bool:
        begun = self._begun
        return begun is not None and begun[0] is not None and begun[:2] == self._state()[:2]

    def _state(self) -> tuple[Any, ...]:
        """Differs when the backbone's weights or its buffers, the head or the tokenizer do."""
        model, head = self._model, self._model.head
        buffers = [_seen(buffer) for _, buffer in _buffers(model.backbone)]
        beside = [] if head is None else [*head.parameters(), *head.buffers()]
        tokenizer = model.tokenizer
        others = (id(tokenizer), len(tokenizer), [_seen(one) for one in beside])
        return model.version(), buffers, others


def _facts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says of the computation; None is what a missing key means."""
    return {
        str(key): _facts_of(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in _IDLE and value is not None
    }


def _remote_code(backbone: nn.Module) -> list[str]:
    """Hashes of the sources of classes that came with a checkpoint."""
    names = {type(module).__module__ for module in backbone.modules()}
    own = sorted(name for name in names if name.startswith("transformers_modules."))
    sources = [inspect.getsource(sys.modules[name]) for name in own]
    return [hashlib.sha256(source.encode()).hexdigest() for source in sources]


def _hash_module(backbone: PreTrainedModel) -> str:
    """Of all weights and buffers, and of what its config does not say of its modules."""
    return _hash_json([_hash_tensors(backbone), _unlike_its_config(backbone)])


def _hash_tensors(module: nn.Module) -> str:
    """Of the names, shapes and contents of all weights and buffers, as passes use them."""
    tensors = [*_plain(module.named_parameters()), *_plain(_buffers(module))]
    names = [(name, tuple(one.shape), str(dtype_of(one, module))) for name, one in tensors]
    pieces = [
        (flat, dtype, start)
        for _, one in tensors
        if one.device.type != "meta"
        for flat, dtype in [(one.detach().contiguous().reshape(-1), dtype_of(one, module))]
        for start in range(0, flat.numel(), BLOCK // dtype.itemsize)
    ]
    return _hash_json([names, hash_blocks(_hash_piece, pieces)])


def _unlike_its_config(backbone: PreTrainedModel) -> list[Any]:
    """The modules that are others, or have other numbers, than its config makes of its class."""
    import torch

    config = copy.deepcopy(backbone.config)
    config._attn_implementation = "eager"  # another kernel only rounds otherwise
    try:
        with torch.device("meta"):
            made = _structure(type(backbone)(config))
    except Exception:
        made = {}  # a class that wants more than its config
    return sorted(
        (name, *facts) for name, facts in _structure(backbone).items() if made.get(name) != facts
    )


def _structure(module: nn.Module) -> dict[str, tuple[str, str]]:
    """Class and numbers of each module by its name."""
    return {
        name: (type(part).__qualname__, json.dumps(_numbers(part), sort_keys=True))
        for name, part in module.named_modules()
    }


def _numbers(module: nn.Module) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str)
        and not key.startswith("_")
        and key not in _RUNNING
    }


def _hash_json(values: Any) -> str:
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _hash_piece(piece: tuple[torch.Tensor, torch.dtype, int]) -> bytes:
    flat, dtype, start = piece
    values = flat[start : start + BLOCK // dtype.itemsize]
    return hashlib.sha256(_raw(converted(values, dtype))).digest()


def _raw(flat: torch.Tensor) -> Any:
    """The bytes of a flat tensor as an array."""
    import torch

    return flat.cpu().view(torch.uint8).numpy()


def _buffers(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and buffers, but for the tables that long texts make and take away."""
    for name, part in module.named_modules():
        kind = getattr(part, "rope_type", None)
        kinds = set(kind.values()) if isinstance(kind, Mapping) else {kind}
        for key, buffer in part._buffers.items():
            moves = key.endswith("inv_freq") and "original" not in key and kinds & _GROWING
            if buffer is not None and not moves:
                yield f"{name}.{key}", buffer


def _seen(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Differs when a tensor was replaced or has changed; the values of a small one are compared."""
    small = tensor.device.type == "cpu" and tensor.numel() <= _SMALL
    if small and not hasattr(tensor, "__tensor_flatten__"):
        return tuple(tensor.shape), _raw(tensor.detach().contiguous().reshape(-1)).tobytes()
    count = None if tensor.is_inference() else tensor._version
    return id(tensor), tensor.data_ptr(), count


def _plain(weights: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and weights; a quantised tensor comes as the tensors it is made of."""
    for name, weight in weights:
        if hasattr(weight, "__tensor_flatten__"):
            parts = weight.__tensor_flatten__()[0]
            yield from _plain((f"{name}.{part}", getattr(weight, part)) for part in parts)
        else:
            yield name, weight
