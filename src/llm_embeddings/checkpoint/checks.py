"""Do backbone, tokenizer and recipe go together? Tokens by name, attention by behaviour."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING

import torch

from ..arithmetic.quantization import check_blocks
from ..arithmetic.stored import computed_in
from ..model import Model, embedding_rows
from ..packed.padded import forward, pad
from ..packed.shallow import shallow
from ..recipe import Recipe
from ..tokens import special_id, tokenize

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

_LOOKED_AT = 512  # values of each weight


def prepare(model: Model) -> None:
    """Set the attention direction of a loaded backbone, and check that model and recipe agree.

    Raises:
        ValueError: a token or an embedding row is missing, weights in 4 bits would be read wrongly,
            or the backbone attends otherwise.
    """
    backbone, tokenizer, recipe = model.backbone, model.tokenizer, model.recipe
    check_tokens(tokenizer, recipe)
    if (model.head is None) == bool(recipe.heads):
        raise ValueError(
            f"recipe {recipe.name!r} has the heads {recipe.heads}, and the model's is {model.head}"
        )
    check_blocks(backbone)
    backbone.eval()
    backbone.config.use_cache = False
    _check_rows(model)
    _check_values(backbone)
    if recipe.window == "drop" or _attends_otherwise(model):
        set_direction(backbone.config, recipe)
        if recipe.window == "drop":
            for module in backbone.modules():
                if getattr(module, "sliding_window", None):
                    setattr(module, "sliding_window", None)  # noqa: B010
        check_attention(model)


def _check_rows(model: Model) -> None:
    """There is an embedding for each token that can be fed."""
    tokenizer, recipe = model.tokenizer, model.recipe
    rows = embedding_rows(model.backbone)
    vocabulary = tokenizer.get_vocab()
    beyond = sorted(token for token, number in vocabulary.items() if number >= rows)
    if beyond and not recipe.required_tokens:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} knows {len(beyond)} tokens that the model "
            f"has no embedding for ({', '.join(map(repr, beyond[:3]))}, ...; {rows} rows): "
            "tokenizer and weights are not of one checkpoint, or the embeddings were not resized"
        )
    needed = [vocabulary[token] for token in recipe.required_tokens]
    if max([*needed, 0]) >= rows:
        raise ValueError(
            f"recipe {recipe.name!r} needs the token id {max(needed)}, and the model has {rows} "
            "embedding rows: tokenizer and weights are not of one checkpoint"
        )


def _check_values(backbone: PreTrainedModel) -> None:
    """Look at some values of every weight, side by side so that little is read of mapped files."""
    zero = []
    for name, weight in backbone.named_parameters():
        if not weight.is_floating_point() or weight.device.type == "meta":
            continue
        flat = weight.detach().reshape(-1)
        middle = flat[flat.numel() // 2 :][:_LOOKED_AT]
        if not bool(torch.isfinite(middle).all()):
            raise ValueError(
                f"{name} of {type(backbone).__name__} ({backbone.name_or_path}) holds values that "
                f"are not finite in {weight.dtype}: the weights are broken, or need another dtype"
            )
        if weight.ndim > 1:
            zero.append(not bool(middle.any()))
    if zero and all(zero):
        raise ValueError(
            f"{type(backbone).__name__} ({backbone.name_or_path}) has weights that are all zero"
        )


def check_tokens(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    """BOS, EOS and the recipe's own tokens must exist, and a text must leave something to pool.

    Raises:
        ValueError: one does not; the message names it.
    """
    for token in recipe.required_tokens:
        ids = tokenizer(token, add_special_tokens=False)["input_ids"]
        if tokenizer.backend_tokenizer.token_to_id(token) is None or len(ids) > 1:
            raise ValueError(
                f"recipe {recipe.name!r} needs the token {token!r}, which this tokenizer does not "
                "have: this is not a checkpoint of that family"
            )
    bos = special_id(tokenizer, recipe.bos, "bos")
    eos = special_id(tokenizer, recipe.eos, "eos")
    for role, template in (("query", recipe.query), ("document", recipe.document)):
        row = tokenize(tokenizer, recipe, ["text"], role)[0]
        first_and_last = (bos in (None, row.ids[0])) and (eos in (None, row.ids[-1]))
        if not first_and_last or not row.start < len(row.ids):
            raise ValueError(f"recipe {recipe.name!r}: the {role} template {template} does not fit")


def set_direction(config: PretrainedConfig, recipe: Recipe) -> None:
    """Write the attention direction into the backbone's own config, and drop its sliding window.

    transformers >= 5.2 reads `is_causal` from there on every forward. The window goes only where
    the recipe says so.
    """
    config.is_causal = recipe.causal
    config.use_cache = False
    if recipe.window == "keep":
        return
    kinds = getattr(config, "layer_types", None)
    if kinds and "sliding_attention" in kinds:
        # Wider than any text, not another kind of layer: Gemma 3 rotates the kinds differently.
        config.sliding_window = config.max_position_embeddings
    elif not kinds and getattr(config, "sliding_window", None):
        config.sliding_window = None


def attends_causally(backbone: PreTrainedModel) -> bool:
    """Whether a backbone, its config as it is, lets no token see those behind it.

    Raises:
        ValueError: its hidden states are not finite.
    """
    backbone = shallow(backbone)
    rows = embedding_rows(backbone)
    row = [rows // 7, rows // 5, rows // 3, rows // 2]
    batch = torch.tensor([row, row, [*row[:-1], rows // 4]], device=backbone.device)
    with torch.inference_mode():
        hidden = backbone(input_ids=batch).last_hidden_state[:, : len(row) - 1].float()
    return not _moved(hidden, backbone)


def check_token_types(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """The token types that sentence-transformers would pass on must change nothing: none are here.

    GPT-2 adds an embedding even for zeros; a post-processor may name other types than zero.

    Raises:
        ValueError: they change the hidden states.
    """
    fed = tokenizer("text", return_tensors="pt").to(backbone.device)
    if (
        "token_type_ids" not in fed
        or "token_type_ids" not in signature(backbone.forward).parameters
    ):
        return
    ids, backbone = fed["input_ids"], shallow(backbone)
    with torch.inference_mode():
        found = backbone(input_ids=ids).last_hidden_state.float()
        typed = backbone(input_ids=ids, token_type_ids=fed["token_type_ids"])
    if bool(((found - typed.last_hidden_state.float()).abs() > 1e-3 * found.abs().max()).any()):
        raise ValueError(
            f"{type(backbone).__name__} takes the token types that its tokenizer gives "
            f"({type(tokenizer).__name__}), which is not done here: take 'token_type_ids' out of "
            "model_input_names in tokenizer_config.json, or pass recipe=Recipe(...)"
        )


def check_attention(model: Model) -> None:
    """The backbone attends as the recipe asks.

    Raises:
        ValueError: the architecture ignores the switch, or a state is not finite.
    """
    backbone, causal = model.backbone, model.recipe.causal
    if _attends_otherwise(model):
        wanted, found = ("causal", "both ways") if causal else ("bidirectional", "causally")
        raise ValueError(
            f"recipe {model.recipe.name!r} needs {wanted} attention, but "
            f"{type(backbone).__name__} attends {found} "
            f"(attn_implementation={backbone.config._attn_implementation!r}): it "
            "ignores config.is_causal, so its vectors would be wrong"
        )


def _attends_otherwise(model: Model) -> bool:
    """Change the last token: earlier states must move if and only if attention is bidirectional.

    Runs with and without padding, since attention kernels have taken different directions in the
    two cases. The same row twice in a batch gives the noise of the arithmetic.

    Raises:
        ValueError: the architecture cannot be run so, or a state is not finite.
    """
    backbone, recipe = shallow(model.backbone), model.recipe
    rows = embedding_rows(backbone)
    row = [rows // 7, rows // 5, rows // 3, rows // 2]
    other = [*row[:-1], rows // 4]
    longer = [*row, rows // 6, rows // 8]
    for batch in ([row, row, other], [row, row, other, longer]):
        ids, lengths = pad(batch, backbone.device)
        try:
            with torch.inference_mode():
                hidden = forward(backbone, recipe, ids, lengths)[:3, : len(row) - 1].float()
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"{type(backbone).__name__} cannot be run as recipe {recipe.name!r} asks: {error}"
            ) from error
        if _moved(hidden, backbone) == recipe.causal:
            return True
    return False


def _moved(hidden: torch.Tensor, backbone: PreTrainedModel) -> bool:
    """Whether the third row's states `[3, length, dim]` differ from those of the first two."""
    if not bool(torch.isfinite(hidden).all()):
        raise ValueError(
            f"{type(backbone).__name__} gives hidden states that are not finite in "
            f"{computed_in(backbone)}: its weights are broken or it needs another dtype"
        )
    if not bool(hidden.any()):
        raise ValueError(
            f"{type(backbone).__name__} gives hidden states that are all zero: its weights are"
        )
    noise = float((hidden[0] - hidden[1]).abs().max())
    moved = float((hidden[0] - hidden[2]).abs().max())
    relative = max(2 * torch.finfo(computed_in(backbone)).eps, 1e-4)
    return moved > max(10 * noise, relative * float(hidden.abs().mean()))
