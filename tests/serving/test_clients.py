"""The server on a loopback socket: real clients, the guide's code, and the end of the process."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tiktoken
import typer
from helpers import BUNDLED, ROOT, assert_close
from helpers.serving import EMBEDDINGS, LOOPBACK, gate, running
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings
from llama_index.core import Document, VectorStoreIndex
from llama_index.embeddings.openai import OpenAIEmbedding
from typer.testing import CliRunner

from llm_embeddings import Encoder
from llm_embeddings.cli.console import Commands
from llm_embeddings.cli.serve import KEY_VARIABLE, serve_command
from llm_embeddings.serving import Limits, create_app

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]

GUIDE = ROOT / "docs" / "serving.md"
KEY = "correct horse"
TEXTS = [
    "Rain fell over quiet hills.",
    "line one, line two",
    "Straße 中文 🙂",
    ("cats purr " * 40).strip(),
]
SECRET = "the patient is called Ada"


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    found = Encoder.from_pretrained(BUNDLED / "e5-mistral/model", dtype="float32")
    yield found
    found.close()


@pytest.fixture(scope="module", params=["auto", "h11"])
def address(encoder: Encoder, request: pytest.FixtureRequest) -> Iterator[str]:
    with running(create_app(encoder, api_key=KEY), request.param) as found:
        yield found


def clients(address: str, **options: Any) -> tuple[openai.OpenAI, openai.AsyncOpenAI]:
    where = {"base_url": f"{address}/v1", "api_key": KEY, "max_retries": 0, **options}
    return openai.OpenAI(**where), openai.AsyncOpenAI(**where)


# -- OpenAI's own client ---------------------------------------------------------------------------


async def test_openai_client(address: str, encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS)
    sync, concurrent = clients(address)
    with sync:
        plain = sync.embeddings.create(model="model", input=TEXTS)
        bytes_of_numbers = sync.embeddings.create(
            model="model", input=TEXTS, encoding_format="base64"
        )
        numbers = sync.embeddings.create(model="model", input=TEXTS, encoding_format="float")
        short = sync.embeddings.create(model="model", input=TEXTS[0], dimensions=8, user="u")
        query = sync.embeddings.create(
            model="model", input=TEXTS, extra_body={"role": "query", "instruction": "Find a poem"}
        )
        named = [model.id for model in sync.models.list()]
        assert sync.models.retrieve("model:query").id == "model:query"
    async with concurrent:
        again = await concurrent.embeddings.create(model="model:query", input=TEXTS)
    np.testing.assert_array_equal(vectors_of(plain), expected)
    np.testing.assert_array_equal(vectors_of(numbers), expected)
    raw = [base64.b64decode(str(item.embedding)) for item in bytes_of_numbers.data]
    assert b"".join(raw) == expected.astype("<f4").tobytes()
    assert_close(vectors_of(short)[0], encoder.encode(TEXTS[0], truncate_dim=8), 1e-6)
    assert_close(vectors_of(query), encoder.encode_query(TEXTS, "Find a poem"), 1e-6)
    assert_close(vectors_of(again), encoder.encode_query(TEXTS), 1e-6)
    assert plain.usage.total_tokens == sum(map(len, encoder.tokenize(TEXTS)))
    assert named == ["model", "model:query", "model:document"]


def vectors_of(response: Any) -> Any:
    return np.array([item.embedding for item in response.data], np.float32)


def test_openai_client_sees_errors(address: str) -> None:
    client, _ = clients(address)
    with client:
        with pytest.raises(openai.NotFoundError, match="use one of model, model:query") as found:
            client.embeddings.create(model="gpt", input="x")
        assert found.value.code == "model_not_found"
        assert found.value.request_id
        with pytest.raises(openai.BadRequestError, match="did you mean 'dimensions'"):
            client.embeddings.create(model="model", input="x", extra_body={"dimension": 3})
        with pytest.raises(openai.APIStatusError, match="larger than the 8388608 bytes") as large:
            client.embeddings.create(model="model", input="x" * 20_000_000)
        assert large.value.status_code == 413
    wrong, _ = clients(address, api_key="wrong")
    with wrong, pytest.raises(openai.AuthenticationError, match="send the server's key"):
        wrong.models.list()


def test_openai_client_waits_and_tries_again(encoder: Encoder) -> None:
    app = create_app(encoder, limits=Limits(queue_requests=1))
    with running(app) as address, ThreadPoolExecutor() as pool:
        client, _ = clients(address, max_retries=3)
        with client, gate(encoder) as closed:
            first = pool.submit(client.embeddings.create, model="model", input="first")
            assert closed.reached.wait(20)
            second = pool.submit(client.embeddings.create, model="model", input="second")
            refused = 'llm_embeddings_requests_total{route="/v1/embeddings",status="429"} 1.0'
            wait_until(lambda: refused in httpx.get(f"{address}/metrics").text)
            closed.open()
            assert_close(vectors_of(first.result(20))[0], encoder.encode("first"), 1e-6)
            assert_close(vectors_of(second.result(20))[0], encoder.encode("second"), 1e-6)


# -- LangChain and LlamaIndex ----------------------------------------------------------------------


@pytest.fixture
async def connections() -> AsyncIterator[tuple[Any, Any]]:
    """Of the hosts' classes, which leave theirs open."""
    with openai.DefaultHttpxClient() as sync:
        async with openai.DefaultAsyncHttpxClient() as concurrent:
            yield sync, concurrent


def langchain(address: str, model: str, connections: Any, **options: Any) -> OpenAIEmbeddings:
    where = {"base_url": f"{address}/v1", "api_key": KEY, "max_retries": 0}
    clients = dict(zip(("http_client", "http_async_client"), connections, strict=True))
    return OpenAIEmbeddings(model=model, **where, **clients, **options)


async def test_langchain(address: str, encoder: Encoder, connections: Any) -> None:
    options = {"connections": connections, "check_embedding_ctx_length": False}
    documents = langchain(address, "model", **options)
    queries = langchain(address, "model:query", dimensions=8, **options)
    assert_close(documents.embed_documents(TEXTS), encoder.encode(TEXTS), 1e-6)
    assert_close(await documents.aembed_documents(TEXTS), encoder.encode(TEXTS), 1e-6)
    expected = encoder.encode_query(TEXTS[0], truncate_dim=8)
    assert_close(queries.embed_query(TEXTS[0]), expected, 1e-6)
    assert_close(await queries.aembed_query(TEXTS[0]), expected, 1e-6)
    store = InMemoryVectorStore(documents)
    store.add_texts(TEXTS)
    assert store.similarity_search(TEXTS[2], k=1)[0].page_content == TEXTS[2]


class OtherVocabulary:
    """Stands in for tiktoken's cl100k_base, which is not on this machine."""

    def encode_ordinary(self, text: str) -> list[int]:
        return [100 + ord(letter) for letter in text]


async def test_langchains_default_is_refused(
    address: str, connections: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: OtherVocabulary())
    embeddings = langchain(address, "model", connections)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings.embed_documents(TEXTS)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        await embeddings.aembed_query("x")


async def test_llama_index(address: str, encoder: Encoder, connections: Any) -> None:
    def made(name: str) -> OpenAIEmbedding:
        where = {"api_base": f"{address}/v1", "api_key": KEY, "max_retries": 0}
        clients = dict(zip(("http_client", "async_http_client"), connections, strict=True))
        return OpenAIEmbedding(model_name=name, **where, **clients)

    texts, queries = made("model"), made("model:query")
    assert_close(texts.get_text_embedding_batch(TEXTS), encoder.encode(TEXTS), 1e-6)
    assert_close(await texts.aget_text_embedding_batch(TEXTS), encoder.encode(TEXTS), 1e-6)
    expected = encoder.encode_query(TEXTS[0])
    assert_close(queries.get_query_embedding(TEXTS[0]), expected, 1e-6)
    assert_close(await queries.aget_query_embedding(TEXTS[0]), expected, 1e-6)
    index = VectorStoreIndex.from_documents([Document(text=t) for t in TEXTS], embed_model=texts)
    found = index.as_retriever(embed_model=queries, similarity_top_k=4).retrieve("rain")
    scores = encoder.encode(TEXTS) @ encoder.encode_query("rain")
    assert [hit.text for hit in found] == [TEXTS[place] for place in np.argsort(-scores)]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the hosts leave connections open
def test_code_of_the_guide_runs(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it asks this machine
    blocks = re.findall(r"^```py\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) > 2
    with running(create_app(encoder, name="intfloat/e5-mistral-7b-instruct")) as address:
        for block in blocks:
            assert "http://127.0.0.1:8000" in block
            code = block.replace("http://127.0.0.1:8000", address)
            exec(compile(code, str(GUIDE), "exec"), {"__name__": "__main__"})


# -- clients that go -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["auto", "h11"])
def test_closed_connection_cancels_its_work(encoder: Encoder, kind: str) -> None:
    own, theirs = (sum(map(len, encoder.tokenize(texts))) for texts in (["first"], TEXTS))
    body = json.dumps({"model": "model", "input": TEXTS}).encode()
    head = f"POST {EMBEDDINGS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    app = create_app(encoder)
    with running(app, kind) as address, ThreadPoolExecutor() as pool, httpx.Client() as http:

        def wait_for(name: str, value: float) -> None:
            wait_until(lambda: f"{name} {value}" in http.get(f"{address}/metrics").text)

        with gate(encoder) as closed:
            fields = {"model": "model", "input": "first"}
            first = pool.submit(http.post, f"{address}{EMBEDDINGS}", json=fields)
            assert closed.reached.wait(20)
            port = int(address.rpartition(":")[2])
            with socket.create_connection((LOOPBACK, port)) as lost:
                lost.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                wait_for("llm_embeddings_queue_tokens", own + theirs)
            wait_for("llm_embeddings_queue_tokens", own)
            closed.open()
            assert first.result(20).status_code == 200
            encoder.encode("last")
            assert sum(closed.tokens) == own + len(encoder.tokenize("last")[0])
        wait_for('llm_embeddings_requests_total{route="/v1/embeddings",status="499"}', 1.0)


# -- the process -----------------------------------------------------------------------------------

SLOW_SERVER = """
import sys, time
from pathlib import Path
from llm_embeddings import Encoder
from llm_embeddings.serving import serve

model, signals, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

def load():
    while not (signals / "load").exists():
        time.sleep(0.01)
    encoder = Encoder.from_pretrained(model, dtype="float32")
    def wait(module, arguments):
        if (signals / "slow").exists():
            (signals / "reached").touch()
            while not (signals / "go").exists():
                time.sleep(0.01)
    encoder.backbone.register_forward_pre_hook(wait)
    return encoder

serve(load, port=port, grace=20)
"""


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.slow
def test_process_answers_while_loading_and_ends_well(tmp_path: Path) -> None:
    port = free_port()
    arguments = [str(BUNDLED / "e5-mistral/model"), str(tmp_path), str(port)]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_SERVER, *arguments], stderr=subprocess.PIPE, text=True
    )
    address = f"http://{LOOPBACK}:{port}"

    def status(path: str) -> int:
        try:
            return httpx.get(f"{address}{path}").status_code
        except (httpx.ConnectError, httpx.RemoteProtocolError):  # refused, or cut off
            assert process.poll() is None
            return 0

    try:
        wait_until(lambda: status("/healthz") == 200)
        assert (status("/readyz"), status("/v1/models")) == (503, 503)
        (tmp_path / "load").touch()
        wait_until(lambda: status("/readyz") == 200)
        (tmp_path / "slow").touch()
        with ThreadPoolExecutor() as pool:
            fields = {"model": "model", "input": SECRET}
            url = f"{address}{EMBEDDINGS}"
            answer = pool.submit(httpx.post, url, json=fields, params={"q": SECRET}, timeout=60)
            wait_until((tmp_path / "reached").exists)
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: status("/healthz") == 0)  # no new connections
            assert not answer.done()
            (tmp_path / "go").touch()
            assert answer.result(60).status_code == 200
        log = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, log
    assert "POST /v1/embeddings 200" in log
    assert "patient" not in log
    assert "Traceback" not in log


def command(*arguments: str, **environment: str) -> Any:
    app = typer.Typer(cls=Commands)
    app.callback()(lambda: None)
    app.command("serve")(serve_command)
    return CliRunner(env={"NO_COLOR": "1", **environment}).invoke(app, ["serve", *arguments])


def test_command_hands_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}

    def run(load: Any, **options: Any) -> None:
        found.update(options, encoder=load())

    monkeypatch.setattr("llm_embeddings.serving.server.serve", run)
    model = str(BUNDLED / "e5-mistral/model")
    limits = ("--max-queue-tokens", "5", "--max-queue", "4", "--max-request-bytes", "3")
    options = (
        "--max-inputs",
        "2",
        "--timeout",
        "1",
        "--grace",
        "7",
        "--port",
        "0",
        "--no-normalize",
        "--max-length",
        "9",
        "--batch-tokens",
        "64",
        "--rank-by",
        "generation",
    )
    result = command(
        *(model, *limits, *options, "--instruction", "Find", "--token-arrays"),
        *("--dtype", "float32", "--log-level", "warning"),
        LLM_EMBEDDINGS_API_KEY=KEY,
    )
    assert result.exit_code == 0, result.output
    assert found.pop("encoder").dimension == 32
    assert found == {
        "host": LOOPBACK,
        "port": 0,
        "name": "model",
        "api_key": KEY,
        "instruction": "Find",
        "normalize": False,
        "token_arrays": True,
        "max_length": 9,
        "max_batch_tokens": 64,
        "rank_by": "generation",
        "limits": Limits(queue_tokens=5, queue_requests=4, request_bytes=3, inputs=2, timeout=1.0),
        "grace": 7,
        "log_level": "warning",
    }


def test_defaults_are_those_of_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}
    monkeypatch.setattr(
        "llm_embeddings.serving.server.serve", lambda load, **rest: found.update(rest)
    )
    result = command("--host", "0.0.0.0")
    assert result.exit_code == 0
    assert found["limits"] == Limits()
    assert found["name"] is None
    assert "no API key: whoever reaches 0.0.0.0 can use this server" in result.stderr


def test_mistakes_are_named_before_anything_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = command(**{KEY_VARIABLE: ""})
    assert empty.exit_code == 1
    assert f"{KEY_VARIABLE} is empty" in empty.stderr
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        result = command("--port", str(port))
    assert result.exit_code == 1
    assert f"cannot listen on {LOOPBACK}, port {port}: Address already in use" in result.stderr


def test_model_that_does_not_load_ends_the_server() -> None:
    result = command("./no/such/model", "--port", "0", "--log-level", "error")
    assert result.exit_code == 1
    assert "'./no/such/model' is neither a directory nor a hub id" in result.stderr


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import llm_embeddings.serving

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    for name in ("app", "metrics", "server", "service"):
        monkeypatch.delitem(sys.modules, f"llm_embeddings.serving.{name}", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'llm-embeddings\[serve\]'"):
        _ = llm_embeddings.serving.serve
