"""What an encoder does with texts: each method hands them to a `Call` and gives back vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from .arithmetic.precision import NEEDS_RANGES, Precision, measure_ranges
from .call import Call
from .faces import check_names
from .inputs import (
    AllKeywords,
    EncodeKeywords,
    EncodeOptions,
    check_texts,
    names_checked,
)
from .recipe import Role
from .streams import Prepared
from .vectors import Vectors

if TYPE_CHECKING:
    import torch

    from .checkpoint.options import LoadOptions, Ticket
    from .model import Model
    from .vector_cache.origin import Origin
    from .vector_cache.store import VectorCache
    from .verifying.report import Verification


class BaseEncoder:
    """The way from text to vector; `Encoder` adds where a model comes from and where it goes.

    Attributes:
        model: Backbone, tokenizer and recipe.
        scheduler: The workers that run the backbone, for all threads and coroutines.
        ranges: Lowest and highest value of each dimension, `[2, dim]`, by (dim, normalize).
        vector_cache: Where vectors are kept and looked for, or None; may be set.
        quantization_cosine: Lowest cosine between vectors of a sample before and after quantising
            with "int8" or "fp8"; None without.
        opened: What it was loaded from, and how, but for token and cache; None = nothing.
    """

    quantization_cosine: float | None = None
    opened: tuple[str, LoadOptions] | None = None

    def __init__(self, model: Model) -> None:
        """Take a model that `checkpoint.checks` has checked, and find out what it can do."""
        from .engine.scheduler import Scheduler
        from .forward import Runner
        from .vector_cache.fingerprint import Fingerprints

        self.model = model
        self.ranges: dict[tuple[int, bool], Vectors] = {}
        self.vector_cache: VectorCache | None = None
        self.scheduler = Scheduler(Runner(model))
        self._fingerprints = Fingerprints(model)

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        as_tensor: Literal[False] = False,
        **options: Unpack[EncodeKeywords],
    ) -> NDArray[Any]: ...

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        as_tensor: Literal[True],
        **options: Unpack[EncodeKeywords],
    ) -> torch.Tensor: ...

    @names_checked
    def encode(
        self,
        texts: str | Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        normalize: bool | None = None,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        max_length: int | None = None,
        max_batch_tokens: int | None = None,
        prompt_name: str | None = None,
        show_progress: bool = False,
        as_tensor: bool = False,
    ) -> NDArray[Any] | torch.Tensor:
        """Vectors of texts, in the order given.

        Args:
            texts: One string or many. An empty one has a finite vector; lone surrogates count as
                U+FFFD; what is over the limit is cut (and counted in the debug log).
            role: "query" or "document": which of the recipe's templates stands around the text.
            instruction: None = the recipe's default for queries, none for documents; "" = none.
            normalize: Unit L2 length; None = as the recipe says.
            truncate_dim: Keep this many dimensions, then normalise if wanted.
            precision: "float32", "float16", "int8", "uint8", "binary" or "ubinary".
            max_length: Limit in tokens in the recipe's meaning; None = `self.max_length`.
            max_batch_tokens: Tokens per forward pass; None = 2048 on a CPU, else by memory.
            prompt_name: One of the recipe's named prompts, in place of the role's template.
            show_progress: Show a progress bar.
            as_tensor: Return a torch tensor on `self.device` instead of a NumPy array.

        Returns:
            `[dim]` for one string, `[n, dim]` for many (`[0, dim]` for none); float32 unless
            `precision` says otherwise.

        Raises:
            TypeError: a text is not a string (the message gives its index), or an unknown option.
            ValueError: a bad option, no such prompt, an instruction that does not fit, or a vector
                that is not finite (the message names the text).
        """
        strings, single = check_texts(texts)
        options = EncodeOptions(
            normalize=normalize,
            truncate_dim=truncate_dim,
            precision=precision,
            max_length=max_length,
            max_batch_tokens=max_batch_tokens,
            prompt_name=prompt_name,
            show_progress=show_progress,
        )
        vectors = self._call({role: instruction}, options).run(strings)[:, 0]
        result: NDArray[Any] | torch.Tensor = self._given(vectors, single, as_tensor)
        return result

    def encode_query(
        self,
        texts: str | Iterable[str],
        instruction: str | None = None,
        **options: Unpack[AllKeywords],
    ) -> Any:
        """`encode` with role "query": what to call for search queries."""
        call: Any = self.encode
        return call(texts, "query", instruction, **options)

    def encode_document(
        self,
        texts: str | Iterable[str],
        instruction: str | None = None,
        **options: Unpack[AllKeywords],
    ) -> Any:
        """`encode` with role "document": what to call for the passages to be found."""
        call: Any = self.encode
        return call(texts, "document", instruction, **options)

    def prepare(
        self,
        texts: Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        **options: Unpack[EncodeKeywords],
    ) -> Prepared:
        """`encode` in two steps: the texts are tokenised here, and computed by what comes back.

        For callers that want to know how many tokens texts have before, or besides, their vectors.
        """
        check_names(options, list(EncodeKeywords.__annotations__))
        call = self._call({role: instruction}, EncodeOptions(**options))
        return Prepared(call, check_texts(texts)[0])

    def fingerprint(self, role: str = "document", instruction: str | None = None) -> str:
        """32 hex digits that differ whenever vectors would: part of any cache key.

        Covers all weights, buffers, adapters, heads, config, tokenizer, dtype, recipe, role and
        instruction; not the options of a call (`normalize`, `truncate_dim`, `precision`,
        `max_length`), and not what only rounds otherwise (the device). The first call hashes the
        weights; for those that come unchanged from files the hash is noted in the user's cache
        directory, and taken from there until the files change. `role` may be the name of a prompt.
        """
        return self._fingerprints.of(role, instruction)

    @property
    def origin(self) -> Origin | None:
        """The files that the weights were read from; None = none, or they are others since then."""
        return self._fingerprints.origin

    @origin.setter
    def origin(self, origin: Origin | None) -> None:
        from .vector_cache.fingerprint import Fingerprints

        self._fingerprints = Fingerprints(self.model, origin)

    def ticket(self) -> Ticket | None:
        """What opens an encoder with the same vectors in another process, for pickles of hosts.

        None where the weights lie in memory alone, or have changed since they were read.
        """
        if self.opened is None or self.model.version() != 0:
            return None
        from .checkpoint.options import Ticket

        model, options = self.opened
        device = options.device if options.devices is None else options.devices[0]
        dtype = options.dtype
        if options.quantization is None:
            dtype = str(self.model.dtype).removeprefix("torch.")
        kept = replace(
            options, device=device, devices=None, dtype=dtype, vector_cache=self.vector_cache
        )
        return Ticket(model, kept, self.fingerprint("document", ""), dict(self.ranges))

    def verify(self, checkpoint: str | None = None) -> Verification:
        """Compare with what its authors printed, with sentence-transformers, and with itself.

        Args:
            checkpoint: Hub id of which the weights are a copy; None = what it was loaded by.

        Returns:
            A report to print; `.ok` where others' numbers were met and none was missed.
        """
        from .verifying.run import origin_of, verify

        return verify(self, origin_of(self.opened, checkpoint))

    def ranges_of(self, dim: int, normalize: bool) -> Vectors:
        """Ranges `[2, dim]` of int8 and uint8: calibrated, or measured when first needed."""
        if (dim, normalize) not in self.ranges:
            from .arithmetic.calibration import default_ranges

            self.ranges[dim, normalize] = default_ranges(self.encode, dim, normalize)
        return self.ranges[dim, normalize]

    @names_checked
    def calibrate(
        self,
        texts: Iterable[str],
        role: Role = "document",
        instruction: str | None = None,
        *,
        normalize: bool | None = None,
        truncate_dim: int | None = None,
    ) -> None:
        """Measure the ranges of int8 and uint8 on texts like yours, and keep them.

        They are saved by `save_pretrained`. Without this call the ranges come from passages in this
        package: the same in every process, but wider than a calibration on your own texts.
        """
        normalize = self.model.recipe.normalize if normalize is None else normalize
        vectors = self.encode(
            check_texts(texts)[0], role, instruction, normalize=normalize, truncate_dim=truncate_dim
        )
        if not len(vectors):
            raise ValueError("calibrate needs at least one text")
        self.ranges[vectors.shape[1], normalize] = measure_ranges(vectors)

    def _call(self, roles: Mapping[str, str | None], options: EncodeOptions) -> Call:
        """A `Call` with these options, which are checked against the model first."""
        options.check(self.model.dimension)
        if options.prompt_name is not None:
            if len(roles) > 1:
                raise ValueError("prompt_name is for one kind of vectors, not for both at once")
            roles = dict.fromkeys([options.prompt_name], *roles.values())
        ranges = lookup = None
        if options.precision in NEEDS_RANGES:
            wanted = options.normalize
            normalize = self.model.recipe.normalize if wanted is None else wanted
            ranges = self.ranges_of(options.truncate_dim or self.model.dimension, normalize)
        if self.vector_cache is not None:
            from .vector_cache.lookup import Lookup

            prints = {role: self.fingerprint(role, text) for role, text in roles.items()}
            limit = self.model.max_length if options.max_length is None else options.max_length
            lookup = Lookup(self.vector_cache, prints, limit)
        return Call(self.model, self.scheduler, roles, options, ranges=ranges, lookup=lookup)

    def _given(self, vectors: NDArray[Any], single: bool, as_tensor: bool) -> Any:
        """What the caller gets: one vector or all, an array or a tensor."""
        result = np.ascontiguousarray(vectors[0] if single else vectors)
        if not as_tensor:
            return result
        import torch

        return torch.from_numpy(result).to(self.model.device)
