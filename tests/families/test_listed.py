"""Listed checkpoints on tiny random weights in their own layouts, against independent references.

Folders are written by hand as the hub has them. The reference is sentence-transformers on the same
folder or, where that would need remote code, the stock class of transformers with the pooling and
the special tokens put together here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModel, PreTrainedTokenizerFast

from llm_embeddings import Encoder, get_recipe
from llm_embeddings.families import OWN_FILES, RECIPES, REFUSED

MARKS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<instruct>",
    "<query>",
)
WEB = "Given a web search query, retrieve relevant passages that answer the query"
LONG = "the cat sat on a mat while rain fell over quiet hills " * 12
TEXTS = ["the cat sat on a mat", "rain", " a space before", "und Grüße\nin two lines ", LONG]
POSITIONS = 128
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
# Shorter than most texts; both kinds of layers.
GEMMA3 = {
    **SIZES,
    "sliding_window": 12,
    "query_pre_attn_scalar": 8,
    "layer_types": ["sliding_attention", "full_attention"],
}
WINDOWED = {**GEMMA3, "attn_logit_softcapping": 50.0}
GEMMA_ENDS = ("<bos>", "<eos>")
_TYPES = "sentence_transformers.models."


def tokenizer(directory: Path, ends: tuple[str | None, str | None]) -> int:
    """Byte-level, with merges that begin in a space, and a post-processor; gives its length."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(mark, normalized=False) for mark in MARKS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([LONG, "Instruct: search query, task: title:"], trainer)
    first, last = ends
    if first or last:
        single = " ".join(part for part in (first, "$A", last) if part)
        used = [(mark, MARKS.index(mark)) for mark in ends if mark]
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=f"{single} $B", special_tokens=used
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        # As Qwen's: the token that closes a text is another one.
        eos_token="<eos>" if first else "<|im_end|>",
        bos_token=first,
        model_max_length=POSITIONS,
        padding_side="left",
    )
    made.save_pretrained(directory)
    return len(made)


def write(
    directory: Path,
    kind: str,
    values: Mapping[str, Any],
    ends: tuple[str | None, str | None] = (None, None),
    *,
    pooling: str = "lasttoken",
    prompts: Mapping[str, str] | None = None,
    dense: Sequence[tuple[int, int]] = (),
    extra: Sequence[str] = ("Normalize",),
) -> Path:
    """A checkpoint as sentence-transformers lays it out."""
    directory.mkdir(parents=True, exist_ok=True)
    size = tokenizer(directory, ends)
    torch.manual_seed(3)
    config = getattr(transformers, kind)(**values, vocab_size=size)
    backbone: Any = AutoModel.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in backbone.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.25)
    backbone.save_pretrained(directory)
    modules = ["Transformer", "Pooling", *["Dense" for _ in dense], *extra]
    layout = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}" if number else "",
            "type": kind if "." in kind else _TYPES + kind,
        }
        for number, kind in enumerate(modules)
    ]
    width = getattr(config, "embedding_dim", None) or values["hidden_size"]
    put(directory / "modules.json", layout)
    put(directory / "sentence_bert_config.json", {"max_seq_length": POSITIONS})
    put(
        directory / "1_Pooling/config.json",
        {"word_embedding_dimension": width, f"pooling_mode_{pooling}": True},
    )
    if prompts is not None:
        named = directory / "config_sentence_transformers.json"
        put(named, {"prompts": prompts, "similarity_fn_name": "cosine"})
    for number, (given, length) in enumerate(dense, start=2):
        folder = directory / f"{number}_Dense"
        identity = "torch.nn.modules.linear.Identity"
        put(
            folder / "config.json",
            {
                "in_features": given,
                "out_features": length,
                "bias": False,
                "activation_function": identity,
            },
        )
        weight = {"linear.weight": torch.randn(length, given) / 8}
        save_file(weight, folder / "model.safetensors")
    return directory


def put(path: Path, values: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))


def edit(path: Path, **values: Any) -> None:
    put(path, {**json.loads(path.read_text()), **values})


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, atol=3e-5 * max(1, np.abs(wanted).max()), rtol=0)


def compare(path: Path, name: str, *, names: Sequence[str] = ()) -> Encoder:
    """A listed recipe and sentence-transformers, on the same folder."""
    theirs = SentenceTransformer(str(path), device="cpu")
    ours = Encoder.from_pretrained(path, recipe=name, dtype="float32")
    close(ours.encode_query(TEXTS), theirs.encode_query(TEXTS, batch_size=1))
    close(ours.encode_document(TEXTS), theirs.encode_document(TEXTS, batch_size=1))
    for prompt in names:
        wanted = theirs.encode(TEXTS, prompt_name=prompt, batch_size=1)
        close(ours.encode(TEXTS, prompt_name=prompt), wanted)
    return ours


def states(backbone: Any, ids: Sequence[int]) -> Any:
    with torch.inference_mode():
        return backbone(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


GEMMA_PROMPTS = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "Clustering": "task: clustering | query: ",
    "STS": "task: sentence similarity | query: ",
    "unheard-of": "of a later revision: ",
}


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EmbeddingGemma: both ways, a symmetric window, two Dense layers."""
    return write(
        tmp_path_factory.mktemp("gemma"),
        "Gemma3TextConfig",
        {**GEMMA3, "use_bidirectional_attention": True},
        GEMMA_ENDS,
        pooling="mean_tokens",
        prompts=GEMMA_PROMPTS,
        dense=[(32, 3072), (3072, 768)],
    )


EG = "google/embeddinggemma-300m"


@pytest.mark.slow
def test_embeddinggemma_as_in_sentence_transformers(gemma: Path, tmp_path: Path) -> None:
    ours = compare(gemma, EG, names=["Clustering", "STS", "unheard-of"])
    assert ours.dimension == 768
    assert ours.recipe.template("Summarization").prefix == "task: summarization | query: "
    native = tmp_path / "native"
    ours.export_sentence_transformers(native)
    theirs = SentenceTransformer(str(native), device="cpu")
    close(theirs.encode_query(TEXTS, batch_size=1), ours.encode_query(TEXTS))


@pytest.mark.slow
def test_a_window_is_halved_once(gemma: Path, tmp_path: Path) -> None:
    """Gemma 3 halves it whenever a config is made, and undoes that in what it saves."""
    ours = Encoder.from_pretrained(gemma, recipe=EG, dtype="float32")
    wanted, path = ours.encode(TEXTS), gemma
    for copy in ("first", "second"):
        ours.save_pretrained(tmp_path / copy)
        path = tmp_path / copy
        assert json.loads((path / "config.json").read_text())["sliding_window"] == 12
        ours = Encoder.from_pretrained(path, dtype="float32")
        np.testing.assert_array_equal(ours.encode(TEXTS), wanted)


def test_gemma_does_not_run_in_float16(gemma: Path) -> None:
    with pytest.raises(ValueError, match="gemma3_text models overflow in float16"):
        Encoder.from_pretrained(gemma, recipe=EG, dtype="float16")


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False], ids=["with towers", "text alone"])
def test_embeddinggemma_2_by_its_text_part(whole: bool, tmp_path: Path) -> None:
    """The towers' weights lie in the file and are left; states are projected by the model."""
    from transformers import EmbeddingGemma2Config, EmbeddingGemma2Model

    text = {
        **SIZES,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
        "global_head_dim": 16,
        "hidden_size_per_layer_input": 8,
        "embedding_dim": 24,
    }
    prompts = {**GEMMA_PROMPTS, "STS": "task: sentence similarity | query: "}
    path = write(
        tmp_path / "text",
        "EmbeddingGemma2TextConfig",
        text,
        GEMMA_ENDS,
        pooling="mean_tokens",
        prompts=prompts,
    )
    if not whole:
        ours = compare(path, "google/embeddinggemma-2", names=["STS", "Clustering"])
        assert (ours.dimension, ours.packing) == (
            24,
            "padded batches: its sliding window goes both ways",
        )
        ours.export_sentence_transformers(tmp_path / "native")
        theirs = SentenceTransformer(str(tmp_path / "native"), device="cpu")
        close(theirs.encode_query(TEXTS, batch_size=1), ours.encode_query(TEXTS))
        return
    alone = Encoder.from_pretrained(path, recipe="google/embeddinggemma-2", dtype="float32")
    config = EmbeddingGemma2Config(text_config=alone.backbone.config.to_dict())
    EmbeddingGemma2Model(config).save_pretrained(path)
    weights = {
        f"language_model.{name}": weight for name, weight in alone.backbone.state_dict().items()
    }
    tower = {"vision_tower.encoder.weight": torch.ones(2), "embed_audio.weight": torch.ones(2)}
    save_file({**weights, **tower}, path / "model.safetensors", {"format": "pt"})
    edit(path / "config.json", vision_config={"model_type": "gemma4_vision"})
    found = Encoder.from_pretrained(path, recipe="google/embeddinggemma-2", dtype="float32")
    np.testing.assert_array_equal(found.encode(TEXTS), alone.encode(TEXTS))


QUERY, SEARCH = (
    {"query": f"Instruct: {WEB}\nQuery: "},
    {"query": "query: ", "document": "passage: "},
)
F2 = "Given a question, retrieve passages that can help answer the question."
CASES: dict[str, tuple[str, str, dict[str, Any], tuple[str | None, str | None], dict[str, Any]]] = {
    "harrier of Gemma 3": (
        "microsoft/harrier-oss-v1-270m",
        "Gemma3TextConfig",
        GEMMA3,
        GEMMA_ENDS,
        {"prompts": {"query": QUERY["query"], "sts_query": "Instruct: similar\nQuery: "}},
    ),
    "harrier of Qwen3": (
        "microsoft/harrier-oss-v1-0.6b",
        "Qwen3Config",
        SIZES,
        (None, "<|endoftext|>"),
        {"prompts": QUERY},
    ),
    "bge-multilingual-gemma2": (
        "BAAI/bge-multilingual-gemma2",
        "Gemma2Config",
        WINDOWED,
        ("<bos>", None),
        {"prompts": {"query": f"<instruct>{WEB}.\n<query>"}},
    ),
    "Octen": (
        "Octen/Octen-Embedding-0.6B",
        "Qwen3Config",
        SIZES,
        (None, "<|endoftext|>"),
        {"prompts": {"query": f"Instruct: {WEB}\nQuery:", "document": " "}},
    ),
    "F2LLM-v2": (
        "codefuse-ai/F2LLM-v2-0.6B",
        "Qwen3Config",
        SIZES,
        (None, "<|im_end|>"),
        {"prompts": {"query": f"Instruct: {F2}\nQuery: "}},
    ),
    "Nemotron-3-Embed": (
        "nvidia/Nemotron-3-Embed-1B-BF16",
        "Ministral3Config",
        {**SIZES, "is_causal": False},
        ("<bos>", None),
        {"prompts": SEARCH, "pooling": "mean_tokens"},
    ),
    "gte-Qwen2": (
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct",
        "Qwen2Config",
        {**SIZES, "is_causal": False},
        (None, "<|endoftext|>"),
        {"prompts": QUERY},
    ),
    "jina-v5": (
        "jinaai/jina-embeddings-v5-text-small-retrieval",
        "Qwen3Config",
        SIZES,
        (None, None),
        {"prompts": {"query": "Query: ", "document": "Document: "}},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_as_in_sentence_transformers(case: str, tmp_path: Path) -> None:
    name, kind, values, ends, rest = CASES[case]
    path = write(tmp_path, kind, values, ends, **rest)
    others = set(rest["prompts"]) - {"query", "document"}
    ours = compare(path, name, names=sorted(others))
    assert ours.recipe.causal is get_recipe(name).causal
    query, document = (ours.tokenize(LONG, role)[0] for role in ("query", "document"))
    assert len(query) == len(document) == POSITIONS


def test_an_embedder_of_gte_states_its_direction(tmp_path: Path) -> None:
    """Its code attends both ways where the key is absent, unlike the stock class."""
    path = write(
        tmp_path, "Qwen2Config", SIZES, (None, "<|endoftext|>"), prompts=QUERY, extra=["Normalize"]
    )
    edit(path / "config.json", auto_map={"AutoModel": "gte/gte--modeling_qwen.Qwen2Model"})
    with pytest.raises(ValueError, match="needs remote code"):
        Encoder.from_pretrained(path, dtype="float32")
    listed = Encoder.from_pretrained(
        path, recipe="Alibaba-NLP/gte-Qwen2-7B-instruct", dtype="float32"
    )
    edit(path / "config.json", is_causal=False)
    mine = Encoder.from_pretrained(path, dtype="float32")
    assert not mine.recipe.causal
    assert mine.recipe.family == "sentence-transformers"
    np.testing.assert_array_equal(mine.encode_query(TEXTS), listed.encode_query(TEXTS))
    edit(path / "config.json", is_causal=True)
    message = "which has causal=False, but its config.json says is_causal = True"
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(path, recipe="Alibaba-NLP/gte-Qwen2-7B-instruct", dtype="float32")


@pytest.fixture
def bidirectional_llama(tmp_path: Path) -> Path:
    """As llama-nemotron-embed-1b-v2 lies on the hub."""
    path = write(
        tmp_path / "model",
        "LlamaConfig",
        SIZES,
        ("<bos>", None),
        pooling="mean_tokens",
        prompts=SEARCH,
    )
    edit(
        path / "config.json",
        model_type="llama_bidirec",
        architectures=["LlamaBidirectionalModel"],
        auto_map={"AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel"},
        pooling="avg",
        temperature=0.02,
    )
    return path


def both_ways(path: Path, kind: str) -> Any:
    """The stock class around the folder's weights, without a causal mask."""
    values = json.loads((path / "config.json").read_text())
    for key in ("model_type", "auto_map", "architectures", "pooling", "temperature"):
        values.pop(key, None)
    config = getattr(transformers, f"{kind}Config")(**values, is_causal=False)
    backbone = AutoModel.from_config(config, dtype=torch.float32).eval()
    backbone.load_state_dict(load_file(path / "model.safetensors"))
    return backbone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("nvidia/llama-nemotron-embed-1b-v2", "query: "),
        ("nvidia/llama-embed-nemotron-8b", f"Instruct: {F2}\nQuery: "),
    ],
)
def test_a_bidirectional_llama_runs_without_its_code(
    name: str, query: str, bidirectional_llama: Path, tmp_path: Path
) -> None:
    path, document = bidirectional_llama, get_recipe(name).prefix("document")
    prompts = {"query": query, "document": document}
    edit(path / "config_sentence_transformers.json", prompts=prompts)
    ours = Encoder.from_pretrained(path, recipe=name, dtype="float32")
    stock = both_ways(path, "Llama")
    tokens = PreTrainedTokenizerFast.from_pretrained(path)
    for role, prompt in prompts.items():
        rows = [tokens(prompt + text)["input_ids"][:POSITIONS] for text in TEXTS]
        assert rows[0][0] == MARKS.index("<bos>")
        wanted = unit(np.stack([states(stock, row).mean(0) for row in rows]))
        close(ours.encode(TEXTS, role), wanted)  # type: ignore[call-overload]
    own = Encoder.from_pretrained(path, dtype="float32")
    np.testing.assert_array_equal(own.encode_query(TEXTS), ours.encode_query(TEXTS))
    ours.save_pretrained(tmp_path / "again")
    again = Encoder.from_pretrained(tmp_path / "again", dtype="float32")
    assert again.backbone.config.model_type == "llama"
    np.testing.assert_array_equal(again.encode_query(TEXTS), ours.encode_query(TEXTS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "cls"}, 'pooling = "cls" is not known for llama_bidirec'),
        ({"latents": 4}, "latents = 4 is not known for llama_bidirec"),
        ({"auto_map": {"AutoModel": "x.Other"}}, "needs remote code"),
        ({"is_causal": True}, "which has causal=False"),
    ],
)
def test_a_bidirectional_llama_that_is_another_is_refused(
    change: dict[str, Any], message: str, bidirectional_llama: Path
) -> None:
    edit(bidirectional_llama / "config.json", **change)
    name = None if "auto_map" in change else "nvidia/llama-nemotron-embed-1b-v2"
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(bidirectional_llama, recipe=name, dtype="float32")


def test_pplx_embed_gives_whole_numbers(tmp_path: Path) -> None:
    """Its module stands in modules.json without a folder of its own."""
    path = write(
        tmp_path / "model",
        "Qwen3Config",
        SIZES,
        pooling="mean_tokens",
        extra=["st_quantize.FlexibleQuantizer"],
    )
    layout = json.loads((path / "modules.json").read_text())
    put(path / "modules.json", [*layout[:2], {**layout[2], "path": "", "kwargs": ["quantization"]}])
    edit(
        path / "config.json",
        model_type="bidirectional_pplx_qwen3",
        architectures=["PPLXQwen3Model"],
        auto_map={"AutoModel": "modeling.PPLXQwen3Model"},
        use_bidirectional_attention=True,
    )
    ours = Encoder.from_pretrained(path, recipe="perplexity-ai/pplx-embed-v1-0.6b", dtype="float32")
    stock, tokens = both_ways(path, "Qwen3"), PreTrainedTokenizerFast.from_pretrained(path)
    rows = [tokens(text)["input_ids"][:POSITIONS] for text in TEXTS]
    pooled = np.stack([states(stock, row).mean(0) for row in rows])
    wanted = np.clip(np.round(np.tanh(pooled) * 127), -128, 127)
    for found in (ours.encode_query(TEXTS), ours.encode_document(TEXTS)):
        # A value between two whole numbers may fall on either side.
        assert np.abs(found - wanted).max() <= 1
        assert (found == wanted).mean() > 0.99
        assert len(np.unique(found)) > 100
    own = Encoder.from_pretrained(path, dtype="float32")
    np.testing.assert_array_equal(own.encode(TEXTS), ours.encode(TEXTS))
    own.save_pretrained(tmp_path / "again")
    again = Encoder.from_pretrained(tmp_path / "again", dtype="float32")
    np.testing.assert_array_equal(again.encode(TEXTS), ours.encode(TEXTS))
    with pytest.raises(ValueError, match="a rounding head"):
        ours.export_sentence_transformers(tmp_path / "native")
    assert ours.model.head is not None
    vectors = torch.zeros(1, 32, requires_grad=True)
    ours.model.head(vectors).sum().backward()
    assert vectors.grad is not None
    assert torch.equal(vectors.grad, torch.ones(1, 32))


def test_zembed_keeps_its_suffix(tmp_path: Path) -> None:
    path = write(tmp_path, "Qwen3Config", SIZES)
    layout = json.loads((path / "modules.json").read_text())
    layout[0]["type"] = "modeling_zembed.ZembedTransformer"
    put(path / "modules.json", layout)
    with pytest.raises(ValueError, match="pass recipe='zeroentropy/zembed-1'"):
        Encoder.from_pretrained(path, dtype="float32")
    ours = Encoder.from_pretrained(path, recipe="zeroentropy/zembed-1", dtype="float32")
    tokens = PreTrainedTokenizerFast.from_pretrained(path)
    suffix = tokens("<|im_end|>\n")["input_ids"]
    assert len(suffix) == 2
    for role in ("query", "document"):
        prefix = f"<|im_start|>system\n{role}<|im_end|>\n<|im_start|>user\n"
        rows = [tokens(prefix + text)["input_ids"][: POSITIONS - 2] + suffix for text in TEXTS]
        wanted = unit(np.stack([states(ours.backbone, row)[-1] for row in rows]))
        close(ours.encode(TEXTS, role), wanted)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("name", "prompts"),
    [
        ("microsoft/harrier-oss-v1-0.6b", {"query": f"Instruct: {WEB}\nQuery:"}),
        ("Octen/Octen-Embedding-0.6B", {"query": f"Instruct: {WEB}\nQuery: x", "document": " "}),
        ("Octen/Octen-Embedding-0.6B", {"document": "- "}),
        ("jinaai/jina-embeddings-v5-text-small-retrieval", {"query": "Query:"}),
    ],
)
def test_prompts_that_contradict_a_listed_recipe_are_refused(
    name: str, prompts: dict[str, str], tmp_path: Path
) -> None:
    ends = (None, None) if "jina" in name else (None, "<|endoftext|>")
    path = write(tmp_path, "Qwen3Config", SIZES, ends, prompts=prompts)
    with pytest.raises(ValueError, match=f"{name}', whose .* template is .*, but its files say"):
        Encoder.from_pretrained(path, recipe=name, dtype="float32")


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("1_Pooling/config.json", {"include_prompt": False}, "the pooled span is all"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"message": {"format": "flat"}}},
            "the format of messages is None",
        ),
        ("config_sentence_transformers.json", {"truncate_dim": 8}, "what follows the pooling is"),
    ],
)
def test_settings_that_contradict_a_listed_recipe_are_refused(
    file: str, values: dict[str, Any], message: str, bidirectional_llama: Path
) -> None:
    edit(bidirectional_llama / file, **values)
    with pytest.raises(ValueError, match=message):
        Encoder.from_pretrained(bidirectional_llama, recipe="nvidia/llama-nemotron-embed-1b-v2")


def test_the_files_instruction_is_the_default(tmp_path: Path) -> None:
    prompts = {"query": "Instruct: find it\nQuery: "}
    path = write(tmp_path, "Qwen3Config", SIZES, (None, "<eos>"), prompts=prompts)
    recipe = Encoder.from_pretrained(path, recipe="codefuse-ai/F2LLM-v2-4B", dtype="float32").recipe
    assert recipe.instruction == "find it"
    assert (recipe.bos, recipe.eos) == (False, "<eos>")


def test_what_files_decide_is_not_used_without_them() -> None:
    tokens = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    from llm_embeddings.tokens import special_id

    with pytest.raises(ValueError, match="leaves eos to the checkpoint's tokenizer files"):
        special_id(tokens, get_recipe("codefuse-ai/F2LLM-v2-4B").eos, "eos")


def test_a_checkpoint_left_to_its_own_files_is_named_so() -> None:
    for name in OWN_FILES:
        with pytest.raises(ValueError, match=f"{name} is loaded by its own files"):
            get_recipe(name.lower())


def test_a_checkpoint_is_listed_left_to_its_files_or_refused() -> None:
    names = [name.lower() for table in (RECIPES, OWN_FILES, REFUSED) for name in table]
    assert len(names) == len(set(names))
    for name, recipe in RECIPES.items():
        assert "unverified" not in recipe.source, name
