"""An Encoder as a sentence-transformers module."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from sentence_transformers.base.modules import InputModule

from llm_embeddings import Encoder, Recipe, Template
from llm_embeddings.checkpoint.options import LoadOptions, Ticket, tame_forked_torch
from llm_embeddings.inputs import check_texts
from llm_embeddings.model import Model, vector_length
from llm_embeddings.packed.padded import forward, pad
from llm_embeddings.packed.pooling import pool
from llm_embeddings.tokens import tokenize

from .identity import SETTINGS, identify, require_package
from .sharing import Copies, check_kwargs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Role = Literal["query", "document"]
ROLES: tuple[Role, ...] = ("query", "document")
# Fields of `LoadOptions` in `model_kwargs`; four others are arguments of `load`. `device` is one of
# SentenceTransformer, which moves the module; `devices` and `vector_cache` serve the encoder's own
# calls, which it does not make; and code from the repository never runs.
_MODEL_KWARGS = "recipe adapters dtype attn_implementation quantization device_map".split()
_OTHER_NAMES = {"torch_dtype": "dtype", "quantization_config": "quantization"}


class EncoderModule(InputModule):
    """The whole way from text to vector as the first module of a sentence-transformers model.

    Features: `input_ids` and `attention_mask` `[batch, length]` (int64, right-padded),
    `pool_start` `[batch]` (int64, first pooled position); after `forward` also `token_embeddings`
    `[batch, length, hidden]` (the backbone's dtype, prompt and special tokens included) and
    `sentence_embedding` `[batch, dim]` (float32).

    Attributes:
        backbone: The decoder; a submodule, so `.to()`, trainers and PEFT find it.
        tokenizer: Its tokenizer.
        recipe: How the two are used.
        head: What follows the pooling; a submodule, or None.
    """

    forward_kwargs = {"instruction"}  # noqa: RUF012
    tokenizer: PreTrainedTokenizerFast

    def __init__(self, encoder: Encoder) -> None:
        """Hold `encoder`; its weights are shared, not copied."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.backbone = encoder.backbone
        self.tokenizer = encoder.tokenizer
        self.recipe: Recipe = encoder.recipe
        self.head = encoder.model.head
        self._encoder = encoder
        self._max_seq_length = encoder.max_length
        self._copies = Copies()
        self._saved_prompts: Mapping[str, str] = {}

    @property
    def encoder(self) -> Encoder:
        """An Encoder of this module's present weights, tokenizer and limit."""
        encoder = copy.copy(self._encoder)
        recipe = self.recipe.replace(max_length=self.max_seq_length)
        encoder.model = Model(self.backbone, self.tokenizer, recipe, self.head)
        return encoder

    @property
    def max_seq_length(self) -> int:
        """Limit in tokens, in the recipe's meaning; longer texts are cut."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        positions = getattr(self.backbone.config, "max_position_embeddings", None) or 2**31
        if not isinstance(value, int) or not 1 <= value <= positions:
            raise ValueError(
                f"max_seq_length={value!r} is not between 1 and the {positions} positions of this "
                "model"
            )
        self._max_seq_length = value

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A ticket in place of the weights, where they lie in files.

        Processes that are being started get the weights by shared memory.
        """
        mine = self._encoder.backbone is self.backbone and self._encoder.model.head is self.head
        ticket = self._encoder.ticket() if mine and get_spawning_popen() is None else None
        if ticket is None:
            return super().__reduce_ex__(protocol)
        state = {"_max_seq_length": self._max_seq_length, "_saved_prompts": self._saved_prompts}
        return type(self)._redeem, (ticket, state)

    @classmethod
    def _redeem(cls, ticket: Ticket, state: dict[str, Any]) -> EncoderModule:
        module = cls(ticket.open(Encoder.open))
        module.__dict__.update(state)
        return module

    def __deepcopy__(self, memo: dict[int, Any]) -> EncoderModule:
        """A copy that shares the weights; neither can be trained while both are there."""
        return self.__copy__()

    def __copy__(self) -> EncoderModule:
        found = type(self)(self._encoder)
        shared = self.__dict__ | {"_modules": dict(self._modules)}
        found.__dict__.update(shared)
        self._copies.add(self, found)
        return found

    def get_embedding_dimension(self) -> int:
        """Length of a vector."""
        return vector_length(self.recipe, self.backbone.config)

    def get_config_dict(self) -> dict[str, Any]:
        """What `repr` shows; all settings are saved by the encoder itself."""
        return {"recipe": self.recipe.name, "max_seq_length": self.max_seq_length}

    def default_prompt(self, role: str) -> str:
        """What the recipe puts around a text of `role`, its default instruction filled in.

        It is the name by which `encode(..., prompt_name="query")` is understood, too.
        """
        suffix = self.recipe.template(role).suffix
        return self.recipe.prefix(role) + (f"{{text}}{suffix}" if suffix else "")

    def on_model_ready(self, model: Any) -> None:
        """Show the recipe's prefixes as the prompts of a model that has none, and who it is.

        A prompt that was saved, and is empty now, was emptied by who loaded the model.
        """
        for role in (*ROLES, *dict(self.recipe.prompts)):
            if not model.prompts.get(role) and not self._saved_prompts.get(role):
                model.prompts[role] = self.default_prompt(role)
        identify(model)

    def preprocess(  # type: ignore[override]  # an unknown option is an error
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        *,
        task: str | None = None,
        instruction: str | None = None,
    ) -> dict[str, torch.Tensor]:
        """Token ids of texts.

        Args:
            inputs: Strings.
            prompt: Stands verbatim in place of the recipe's prefix ("" = nothing does); the
                recipe's suffix, special tokens and pooled span stay. None = the recipe's prefix.
            task: "query", or "document" (also None).
            instruction: Fills the recipe's template; "" = none, None = the recipe's default.

        Returns:
            `input_ids`, `attention_mask` and `pool_start`.

        Raises:
            TypeError: an input is not a string.
            ValueError: an unknown task, or both a prompt of one's own and an instruction.
        """
        role, recipe = str(_role(task)), self.recipe
        for candidate in (role, *ROLES, *dict(recipe.prompts)):
            if prompt == self.default_prompt(candidate):
                role, prompt = candidate, None
        if prompt is not None:
            if instruction is not None:
                raise ValueError(
                    f"prompt {prompt!r} and instruction {instruction!r} exclude each other: an "
                    "instruction fills the recipe's template, a prompt stands in place of it"
                )
            fixed = Template(prompt, recipe.template(role).suffix, bare=prompt)
            recipe, role = recipe.replace(query=fixed, document=fixed, instruction=""), "document"
        texts, _ = check_texts(list(inputs))
        rows = tokenize(self.tokenizer, recipe, texts, role, instruction, self.max_seq_length)
        ids, lengths = pad([row.ids for row in rows], torch.device("cpu"))
        return {
            "input_ids": ids,
            "attention_mask": (torch.arange(ids.shape[1])[None] < lengths[:, None]).long(),
            "pool_start": torch.tensor([row.start for row in rows]),
        }

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add the states of tokens and the vectors: the encoder's own forward, with gradients.

        Args:
            features: What `preprocess` returned, or a slice of it along the batch.
            **kwargs: The `instruction`, which has done its work in `preprocess`.
        """
        tame_forked_torch()
        if self.training and torch.is_grad_enabled():
            self._copies.check()
        ids, lengths = features["input_ids"], features["attention_mask"].sum(1)
        hidden = forward(self.backbone, self.recipe, ids, lengths)
        vectors = pool(hidden, features["pool_start"].to(ids.device), lengths, self.recipe)
        if self.head is not None:
            vectors = self.head(vectors)
        if self.recipe.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        features["token_embeddings"] = hidden
        features["sentence_embedding"] = vectors
        return features

    def save(
        self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """Write the encoder, adapters merged, so that `Encoder.from_pretrained` reads it too.

        Beside it, config_sentence_transformers.json is told which package the model needs.

        Raises:
            ValueError: `safe_serialization=False`, or adapters on quantised weights.
        """
        if not safe_serialization:
            raise ValueError("only safetensors are written: leave out safe_serialization=False")
        self.encoder.save_pretrained(output_path)
        require_package(Path(output_path))

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> EncoderModule:
        """Read what `save` wrote; called by `SentenceTransformer(path, trust_remote_code=True)`.

        Args:
            model_name_or_path: Local directory or hub id.
            subfolder: Folder of the module in it.
            token: Hub token.
            cache_folder: Hub cache.
            revision: Branch, tag or commit.
            local_files_only: Never ask the network.
            init_defaults: Not used; other kinds of models hand defaults to their modules by it.
            model_kwargs: `recipe`, `adapters`, `dtype`, `attn_implementation`, `quantization` (or
                `quantization_config`) and `device_map`, as in `Encoder.from_pretrained`.
            **kwargs: What sentence-transformers offers to every module: `trust_remote_code`, for
                which there is no use, as code in the repository never runs; `backend`,
                `processor_kwargs` and `config_kwargs`, which must be left as they are.

        Raises:
            FileNotFoundError: `subfolder` does not exist.
            ValueError: an unknown key in `model_kwargs`, or an option that is not for this module.
        """
        check_kwargs(kwargs)
        given = {
            _OTHER_NAMES.get(name, name): value for name, value in (model_kwargs or {}).items()
        }
        if unknown := set(given).difference(_MODEL_KWARGS):
            raise ValueError(f"model_kwargs {sorted(unknown)} are not among {_MODEL_KWARGS}")
        source: str | None = model_name_or_path
        if subfolder:
            place = token, cache_folder, revision, local_files_only
            source = cls.load_dir_path(model_name_or_path, subfolder, *place)
        if source is None:
            raise FileNotFoundError(f"{model_name_or_path} has no folder {subfolder!r}")
        options = LoadOptions(
            token=token,
            cache_dir=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
            **given,
        )
        module = cls(Encoder.open(source, options))
        settings = cls.load_file_path(
            model_name_or_path,
            SETTINGS,
            token=token,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
        )
        if settings is not None:
            saved = json.loads(Path(settings).read_text(encoding="utf-8"))
            module._saved_prompts = saved.get("prompts", {})
        return module


def _role(task: str | None) -> Role:
    if task in (None, "document"):
        return "document"
    if task == "query":
        return "query"
    raise ValueError(f"task={task!r} is not one of {ROLES}")
