"""Every entry takes every option of loading and of a call, or the tables here say why not.

Who adds a field to `LoadOptions` or `EncodeOptions` gives it to each entry, or gives a reason.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import langchain_llm_embeddings as langchain
import llama_index.llms.llm_embeddings as llama_index
import pytest
import torch
import typer
from helpers import ROOT
from langchain_llm_embeddings import GritLMChat, LLMEmbeddings
from langchain_llm_embeddings.loading import SPELLED as LANGCHAIN_NAMES
from llama_index.embeddings.llm_embeddings import LLMEmbedding
from llama_index.embeddings.llm_embeddings._options import SPELLED as LLAMA_INDEX_NAMES
from llama_index.embeddings.llm_embeddings._options import EmbeddingKeywords, ModelKeywords
from llama_index.llms.llm_embeddings import GritLM
from sentence_transformers import SentenceTransformer
from sentence_transformers_llm_embeddings import as_sentence_transformer
from sentence_transformers_llm_embeddings.module import EncoderModule
from transformers import BitsAndBytesConfig
from transformers.quantizers.auto import AutoQuantizationConfig
from typer.testing import CliRunner

from llm_embeddings import Encoder, Recipe, synthesis, training
from llm_embeddings.checkpoint import LoadOptions
from llm_embeddings.checkpoint.options import LoadKeywords, from_plain, plain
from llm_embeddings.cli import app
from llm_embeddings.cli.loading import OPTIONS, taken
from llm_embeddings.distributed import EmbedBatch, EmbeddingOptions, embed_dataset
from llm_embeddings.evaluation import evaluate, local_task, mteb_encoder
from llm_embeddings.generation import Generator, Reranker
from llm_embeddings.inputs import EncodeKeywords, EncodeOptions
from llm_embeddings.rag import DocumentIndex, Reader, StateStore
from llm_embeddings.serving import Limits, create_app, serve
from llm_embeddings.serving.dialects.openai import EmbeddingRequest
from llm_embeddings.vector_cache import VectorCache

LOAD = [field.name for field in dataclasses.fields(LoadOptions)]
CALL = [field.name for field in dataclasses.fields(EncodeOptions)]

# A value of each field that is not its default.
VALUES: dict[str, Any] = {
    "recipe": "mean",
    "adapters": ["a", "b"],
    "device": "cpu",
    "devices": ["cpu", "cpu"],
    "dtype": "bfloat16",
    "attn_implementation": "eager",
    "quantization": "int8",
    "device_map": "auto",
    "revision": "main",
    "token": "hf_token",
    "cache_dir": "hub",
    "local_files_only": True,
    "trust_remote_code": True,
    "vector_cache": "vectors.sqlite",
}

# The commands that load a model for what they do; `train` has the options of its stages.
COMMANDS = {
    "info": [],
    "verify": [],
    "encode": [],
    "search": ["query"],
    "ask": ["question"],
    "demo": [],
    "evaluate": [],
    "passkey": [],
    "mine": ["pairs", "--output", "out"],
    "synthesize": ["out"],
    "serve": [],
    "export": ["out"],
}

ONE_DEVICE = "a worker of Ray has one device"
SHOWN_LINES = "command lines are seen by other users: the variable HF_TOKEN, or `hf auth login`"
NOTHING_COMPUTED = "export writes weights that it reads on the CPU, and computes nothing"
OWN_FORWARD = "sentence-transformers runs the module itself, not the encoder's calls"

# By entry and option: why it is not there.
ABSENT: dict[str, dict[str, str]] = {
    "EmbedBatch": {"devices": ONE_DEVICE},
    "sentence-transformers": {
        "device": "an argument of SentenceTransformer, which moves the module",
        "devices": OWN_FORWARD,
        "vector_cache": OWN_FORWARD,
        "trust_remote_code": "code in the repository never runs; sentence-transformers takes the "
        "flag for the import of this module",
    },
    **{command: {"token": SHOWN_LINES} for command in COMMANDS},
}
for command in ("info", "verify"):
    ABSENT[command]["vector_cache"] = "a test of the model must not be answered from a file"
ABSENT["export"] |= dict.fromkeys(
    ("device", "devices", "device_map", "attn_implementation", "vector_cache"), NOTHING_COMPUTED
)
ABSENT_CALL: dict[str, dict[str, str]] = {
    "LlamaIndex": {"show_progress": "LlamaIndex's own methods take it, and show its own bar"},
    "EmbedBatch": {"show_progress": "nobody sees a worker's standard error"},
    "sentence-transformers": {"max_batch_tokens": "it batches by its own batch_size"},
    "server": {
        "precision": "the protocol has floats, as numbers or base64",
        "show_progress": "a server has no terminal; it has /metrics",
    },
}
SPELLED_CALL = {
    "LangChain": {"prompt_name": "query_prompt_name"},
    "LlamaIndex": {"prompt_name": "query_prompt_name"},
    "encode": {
        "truncate_dim": "dimensions",
        "max_batch_tokens": "batch_tokens",
        "show_progress": "quiet",
    },
    "server": {"truncate_dim": "dimensions"},
    "sentence-transformers": {
        "normalize": "normalize_embeddings",
        "show_progress": "show_progress_bar",
        "max_length": "max_seq_length",
    },
}


class Opened(Exception):  # no error: what a test waits for
    """Instead of a loaded model: what it would have been loaded with."""


@pytest.fixture
def catch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], LoadOptions]:
    """Calls what loads a model, and returns the options it would load it with."""

    def opened(cls: type, model: object, options: LoadOptions) -> None:
        raise Opened(options)

    monkeypatch.setattr(Encoder, "open", classmethod(opened))

    def caught(load: Callable[[], object]) -> LoadOptions:
        with pytest.raises(Opened) as found:
            load()
        options: LoadOptions = found.value.args[0]
        return options

    return caught


def sentence_transformers_load(**given: Any) -> object:
    own = inspect.signature(EncoderModule.load).parameters
    arguments = {
        {"cache_dir": "cache_folder"}.get(name, name): value for name, value in given.items()
    }
    kwargs = {name: arguments.pop(name) for name in list(arguments) if name not in own}
    return EncoderModule.load("model", **arguments, model_kwargs=kwargs)


def spelled(names: Mapping[str, str], given: dict[str, Any]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in given.items()}


ENTRIES: dict[str, Callable[..., object]] = {
    "from_pretrained": Encoder.from_pretrained,
    "LangChain": lambda **given: LLMEmbeddings(**spelled(LANGCHAIN_NAMES, given)),
    "LangChain chat": lambda **given: GritLMChat(model="m", **spelled(LANGCHAIN_NAMES, given)),
    "LlamaIndex": lambda **given: LLMEmbedding(**spelled(LLAMA_INDEX_NAMES, given)),
    "LlamaIndex LLM": lambda **given: GritLM("m", **spelled(LLAMA_INDEX_NAMES, given)),
    "EmbedBatch": EmbedBatch,
    "sentence-transformers": sentence_transformers_load,
}


@pytest.mark.parametrize("name", LOAD)
@pytest.mark.parametrize("entry", ENTRIES)
def test_an_option_of_loading_reaches_the_core(entry: str, name: str, catch: Any) -> None:
    load = ENTRIES[entry]
    if name in ABSENT.get(entry, {}):
        with pytest.raises((TypeError, ValueError), match=name):
            load(**{name: VALUES[name]})
        return
    found = catch(lambda: load(**{name: VALUES[name]}))
    assert plain(name, getattr(found, name)) == VALUES[name]
    others = {other for other in LOAD if getattr(found, other) != getattr(LoadOptions(), other)}
    assert others == {name}


@pytest.mark.parametrize("name", LOAD)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_of_loading_is_one_of_the_command(command: str, name: str) -> None:
    group: Any = typer.main.get_command(app)
    parser = group.commands[command]
    own = {option for parameter in parser.params for option in parameter.opts}
    if name in ABSENT[command]:
        assert name not in OPTIONS or OPTIONS[name].name not in own
        return
    value = VALUES[name]
    given = []
    for each in value if isinstance(value, list) else [value]:
        given += [OPTIONS[name].name, *([] if each is True else [each])]
    context = parser.make_context(command, [*given, *COMMANDS[command]])
    assert plain(name, getattr(taken(context.params), name)) == value


def test_commands_load_with_what_they_are_given(catch: Any) -> None:
    def encode() -> None:
        arguments = ["--traceback", "encode", "-", "--model", "m", "--revision", "r"]
        result = CliRunner().invoke(app, [*arguments, "--devices", "cpu"], input="a text\n")
        if result.exception is not None:
            raise result.exception

    assert catch(encode) == LoadOptions(revision="r", devices=["cpu"])


def test_a_recipe_may_lie_in_a_file_for_every_command(catch: Any, tmp_path: Path) -> None:
    wanted = Recipe(name="mine", causal=True, pooling="mean")
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(wanted.to_dict()))

    def run(recipe: Path) -> object:
        command = ["search", str(ROOT / "README.md"), "x", "--recipe", str(recipe)]
        return CliRunner().invoke(app, command, standalone_mode=False, catch_exceptions=False)

    assert catch(lambda: run(file)).recipe == wanted
    file.write_text("{}")
    result = CliRunner().invoke(app, ["info", "--recipe", str(file)])
    assert "mine.json is not a recipe" in result.stderr


def test_every_command_is_looked_at() -> None:
    group: Any = typer.main.get_command(app)
    assert {*COMMANDS, "recipes", "train"} == set(group.commands)


@pytest.mark.parametrize(
    ("kind", "names"), [(LoadKeywords, LOAD), (EncodeKeywords, CALL)], ids=["load", "call"]
)
def test_keywords_are_the_fields(kind: type, names: list[str]) -> None:
    assert list(kind.__annotations__) == names


def keywords_of_call() -> dict[str, set[str]]:
    """What each entry takes for its calls."""
    group: Any = typer.main.get_command(app)
    commands = {
        name: {parameter.name for parameter in group.commands[name].params}
        for name in ("encode", "serve")
    }
    served = {
        *inspect.signature(create_app).parameters,
        *EmbeddingRequest.model_fields,
    }
    assert {"normalize", "max_length", "batch_tokens"} <= commands["serve"]
    assert set(inspect.signature(create_app).parameters) - {"encoder"} <= set(
        inspect.signature(serve).parameters
    )
    return {
        "Encoder.encode": set(inspect.signature(Encoder.encode).parameters),
        "LangChain": set(LLMEmbeddings.model_fields),
        "LlamaIndex": set(EmbeddingKeywords.__annotations__) & set(LLMEmbedding.model_fields),
        "EmbedBatch": set(EmbeddingOptions.__annotations__),
        "encode": commands["encode"],
        "server": served,
        "sentence-transformers": {
            *inspect.signature(SentenceTransformer.encode).parameters,
            *(name for name in dir(SentenceTransformer) if not name.startswith("_")),
        },
    }


@pytest.mark.parametrize("name", CALL)
def test_an_option_of_a_call_is_everywhere(name: str) -> None:
    lacking = {
        entry
        for entry, names in keywords_of_call().items()
        if SPELLED_CALL.get(entry, {}).get(name, name) not in names
    }
    assert lacking == {entry for entry, table in ABSENT_CALL.items() if name in table}


def test_the_page_about_commands_lists_the_options() -> None:
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(--[\w-]+)` \|", page, re.M)
    assert listed == [option.name for option in OPTIONS.values()]


def test_a_quantization_config_is_written_and_read() -> None:
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=5.0)
    written = plain("quantization", config)
    assert json.loads(json.dumps(written)) == plain("quantization", written) == written
    read = AutoQuantizationConfig.from_dict(written)
    assert read.to_dict() == config.to_dict()
    assert from_plain({"quantization": written}).quantization == written


@pytest.mark.parametrize(
    "load", [lambda **given: LLMEmbeddings(**given), lambda **given: LLMEmbedding(**given)]
)
@pytest.mark.parametrize("wrong", [3, {"dtype": torch.float32}])
def test_what_is_no_quantization_is_refused(load: Callable[..., object], wrong: object) -> None:
    with pytest.raises((TypeError, ValueError), match="quantization=.*(is not a|be written)"):
        load(quantization=wrong)


def test_names_of_torch_and_paths_are_plain() -> None:
    assert plain("device_map", {"layers.0": torch.device("cpu"), "": 0}) == {
        "layers.0": "cpu",
        "": 0,
    }
    assert plain("dtype", torch.bfloat16) == plain("dtype", "torch.bfloat16") == "bfloat16"
    assert plain("adapters", (Path("a"), "b")) == ["a", "b"]


def test_commands_refuse_options_of_a_model_they_do_not_load() -> None:
    for arguments in (
        ["mine", "pairs.jsonl", "-o", "out", "--bm25", "--revision", "r"],
        ["synthesize", "out", "--model", "local:x", "--revision", "r"],
    ):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
        assert result.exit_code == 2
        assert "--revision" in result.stderr


@pytest.mark.parametrize("name", ["devices", "show_progress"])
def test_a_worker_says_why_it_lacks_an_option(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}= is not for a worker: "):
        EmbedBatch(**{name: True})
    if name == "devices":
        with pytest.raises(TypeError, match="devices= is not for a worker: "):
            embed_dataset("x.jsonl", output="out", devices=["cpu"])


TAKERS: list[Callable[..., object]] = [
    Encoder.from_pretrained,
    Encoder.calibrate,
    Recipe,
    LoadOptions,
    VectorCache,
    Generator,
    Generator.generate,
    Reranker,
    DocumentIndex,
    DocumentIndex.search,
    Reader,
    StateStore,
    EmbedBatch,
    create_app,
    serve,
    Limits,
    evaluate,
    mteb_encoder,
    local_task,
    training.MNTP,
    training.SimCSE,
    training.Contrastive,
    training.Distill,
    training.LLaRA,
    training.GRIT,
    training.LoraOptions,
    synthesis.Filters,
    synthesis.Mining,
    synthesis.Plan,
    synthesis.Rounds,
    as_sentence_transformer,
    LLMEmbeddings,
    langchain.GritLMChat,
    langchain.DocumentReranker,
    langchain.DocumentRetriever,
    langchain.DocumentRetriever.from_documents,
    langchain.cache_backed,
    LLMEmbedding,
    GritLM,
    llama_index.DocumentReranker,
    llama_index.DocumentRetriever,
    llama_index.DocumentSynthesizer,
    llama_index.DocumentQueryEngine,
]


def keywords_of(taker: Callable[..., object]) -> list[str]:
    parameters = inspect.signature(taker).parameters.values()
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]


@pytest.mark.parametrize("taker", TAKERS, ids=lambda taker: taker.__qualname__)
def test_a_typing_mistake_names_the_nearest(taker: Callable[..., object]) -> None:
    names = keywords_of(taker.__init__) or keywords_of(taker)  # type: ignore[misc]
    name = max(names, key=len)
    with pytest.raises((TypeError, ValueError), match=f"did you mean '{name}'"):
        taker(**{name[:3] + name[4:]: None})


@pytest.mark.parametrize(
    ("taker", "wrong", "meant"),
    [(Encoder.from_pretrained, "model_name", "model"), (LLMEmbedding, "model", "model_name")],
)
def test_a_model_by_another_hosts_word(
    taker: Callable[..., object], wrong: str, meant: str
) -> None:
    with pytest.raises(TypeError, match=f"did you mean '{meant}'"):
        taker(**{wrong: "x"})


@pytest.mark.parametrize(
    "call",
    [
        lambda generator: generator.stream("x", max_new_token=1),
        lambda generator: Reader(generator, mode="none").answer("x", [], max_new_token=1),
        lambda generator: generator.encoder.encode_tokens("x", max_lenght=1),
        lambda generator: generator.encoder.iter_encode(["x"], max_lenght=1),
        lambda generator: generator.encoder.recipe.replace(max_lenght=1),
        lambda generator: GritLM(encoder=generator.encoder, max_new_token=1),
        lambda generator: LLMEmbedding(max_lenght=1),
    ],
)
def test_a_typing_mistake_among_options_that_are_passed_on(
    gritlm: Encoder, call: Callable[[Generator], object]
) -> None:
    with pytest.raises(TypeError, match="did you mean 'max_(length|new_tokens)'"):
        call(Generator(gritlm))


@pytest.mark.parametrize("name", ["encode", "encode_query", "encode_document", "prepare"])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("normalise", "did you mean 'normalize'"),
        ("normalize_embeddings", "here it is normalize="),
        ("batch_size", "here it is max_batch_tokens="),
        ("convert_to_tensor", "as_tensor=True"),
    ],
)
def test_a_call_names_what_is_meant(e5: Encoder, name: str, wrong: str, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        getattr(e5, name)(["x"], **{wrong: True})


def test_other_hosts_words_for_loading_name_ours(e5: Encoder) -> None:
    with pytest.raises(
        TypeError, match="'torch_dtype': here it is dtype=; 'device_map' is device_map="
    ):
        Encoder.from_pretrained(model_kwargs={"torch_dtype": "x", "device_map": "y"})  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="here it is dtype="):
        Encoder.from_pretrained(torch_dtype="float32")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean 'prompts'"):
        as_sentence_transformer(e5, promts={})  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="here it is max_length="):
        create_app(e5, max_seq_length=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean 'host'"):
        serve(lambda: e5, hots="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="known are .'max_length'"):
        e5.encode_tokens("x", normalize_embeddings=True)  # type: ignore[call-arg]


def test_keywords_of_llama_index_are_its_fields() -> None:
    hidden = {"token"}  # in no dict
    assert set(EmbeddingKeywords.__annotations__) - hidden <= set(LLMEmbedding.model_fields)
    assert set(ModelKeywords.__annotations__) == {
        LLAMA_INDEX_NAMES.get(each, each) for each in LOAD
    }
