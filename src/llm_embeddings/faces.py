"""Names: imported at first use, of packages some extra installs, of options known elsewhere."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T")

# Words of Hugging Face's libraries, and of LangChain and LlamaIndex over them, for what has another
# name here or none: the name by which `LoadOptions` and `EncodeOptions` know it, if they do, and
# what to say besides.
ELSEWHERE: Mapping[str, tuple[str, str]] = {
    "backend": ("", "weights run in PyTorch; for others write them with `llm-embeddings export`"),
    "batch_size": ("max_batch_tokens", "passes are filled by tokens, not by texts"),
    "chunk_size": ("", "the devices of devices= share the work by themselves"),
    "config_kwargs": ("", "a config is the checkpoint's; how it embeds is said by recipe="),
    "convert_to_numpy": ("", "`Encoder.encode` returns NumPy arrays"),
    "convert_to_tensor": ("", "`Encoder.encode(..., as_tensor=True)` returns tensors"),
    "default_prompt_name": ("prompt_name", ""),
    "load_in_8bit": ("quantization", "'int8', or a quantization config of transformers"),
    "max_seq_length": ("max_length", ""),
    "model_card_data": ("", "there is no model card to write"),
    "modules": ("", "a recipe says what follows the backbone: recipe=, or a loaded encoder="),
    "multi_process": ("devices", "a list, such as ['cuda:0', 'cuda:1']"),
    "normalize_embeddings": ("normalize", ""),
    "output_value": ("", "`Encoder.encode_tokens` gives vectors of tokens"),
    "parallel_process": ("devices", "a list, such as ['cuda:0', 'cuda:1']"),
    "pool": ("devices", "processes belong to the encoder and end with it"),
    "pooling": ("", "pooling is part of the recipe: recipe="),
    "processor_kwargs": (
        "max_length",
        "else a tokenizer is the checkpoint's, and padding no matter",
    ),
    "prompt": ("", "templates are the recipe's: give an instruction, or a recipe of your own"),
    "prompts": ("", "templates are the recipe's: give an instruction, or a recipe of your own"),
    "quantization_config": ("quantization", ""),
    "show_progress_bar": ("show_progress", ""),
    "similarity_fn_name": ("", "stores compare vectors; `Encoder.similarity` is the cosine"),
    "target_devices": ("devices", ""),
    "tokenizer": ("", "the tokenizer is the checkpoint's"),
    "tokenizer_kwargs": (
        "max_length",
        "else a tokenizer is the checkpoint's, and padding no matter",
    ),
    "tokenizer_name": ("", "the tokenizer is the checkpoint's"),
    "torch_dtype": ("dtype", ""),
    "use_auth_token": ("token", ""),
}
# Those whose value holds options in their turn.
NESTED = ("encode_kwargs", "model_kwargs", "query_encode_kwargs")


def require(module: str, need: str, *, extra: str) -> Any:
    """Import a module of an optional dependency.

    Args:
        module: Its dotted name, such as "matplotlib.pyplot".
        need: Who needs it, as the error says it: "plots need matplotlib".
        extra: The extra of this distribution that installs it.

    Returns:
        The module.

    Raises:
        ImportError: it cannot be imported; the message is `need` and the line to install the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{need}: pip install 'llm-embeddings[{extra}]'") from error


def lazy(package: str, homes: Mapping[str, str], *, extra: str) -> Callable[[str], Any]:
    """A module's `__getattr__` (PEP 562): importing the package alone stays cheap.

    Args:
        package: `__name__` of the package.
        homes: In which of its modules each name is defined.
        extra: The extra of this distribution that the modules need.

    Returns:
        What to assign to `__getattr__`. It raises `AttributeError` for other names, and
        `ImportError` with the line to install the extra where a dependency is missing.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"{package} needs {error.name}: pip install 'llm-embeddings[{extra}]'"
            ) from error

    return load


def hint(
    name: str, known: Sequence[str], value: Any = None, names: Mapping[str, str] | None = None
) -> str:
    """What to say in place of a name that is not known.

    Args:
        name: The unknown name.
        known: Those that are.
        value: What was given under the name; of a mapping each entry is looked at.
        names: What the host calls options of ours, by our name.
    """
    names = names or {}
    if name in NESTED:
        inner = value if isinstance(value, Mapping) else {}
        said = [_of_its_own(key, each, known, names) for key, each in inner.items()]
        return "; ".join(["its entries are options of their own", *said])
    if name in ELSEWHERE:
        ours, why = ELSEWHERE[name]
        ours = names.get(ours, ours)
        said = [f"here it is {ours}=" if ours in known else "", why]
        return "; ".join(filter(None, said)) or f"known are {list(known)}"
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {list(known)}"


def check_names(given: Iterable[str], known: Sequence[str]) -> None:
    """Raise `TypeError` for a name that is not among the known ones.

    The message names ours for another library's word, else the nearest.

    Args:
        given: Names, or options by name: their values are looked at too.
        known: Those there are.
    """
    for name in given:
        if name not in known:
            said = hint(name, known, given[name] if isinstance(given, Mapping) else None)
            raise TypeError(f"unexpected keyword argument {name!r}; {said}")


def init_checked(made: type[T]) -> type[T]:
    """A class that says of a keyword its `__init__` does not have which one is meant."""
    init: Any = made.__init__
    known = list(inspect.signature(made).parameters)

    @functools.wraps(init)
    def checked_init(self: T, *args: Any, **options: Any) -> None:
        check_names(options, known)
        init(self, *args, **options)

    made.__init__ = checked_init  # type: ignore[method-assign, assignment]
    return made


def _of_its_own(name: str, value: Any, known: Sequence[str], names: Mapping[str, str]) -> str:
    ours = names.get(name, name)
    if ours in known:
        return f"{name!r} is {ours}="
    return f"{name!r}: {hint(name, known, value, names)}"
