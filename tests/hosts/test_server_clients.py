"""One server, and the client libraries of four services unchanged against it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import BUNDLED, assert_close
from helpers.serving import running

from llm_embeddings import Encoder
from llm_embeddings.serving import create_app

cohere = pytest.importorskip("cohere")
litellm = pytest.importorskip("litellm")
openai = pytest.importorskip("openai")
huggingface_hub = pytest.importorskip("huggingface_hub")

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.filterwarnings("default"),  # the libraries' own
]

KEY = "correct-horse"
TEXTS = ["Rain fell over quiet hills.", "Straße 中文 🙂", "cats purr " * 20]


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    found = Encoder.from_pretrained(BUNDLED / "e5-mistral/model", dtype="float32")
    yield found
    found.close()


@pytest.fixture(scope="module")
def address(encoder: Encoder) -> Iterator[str]:
    with running(create_app(encoder, name="model", api_key=KEY)) as found:
        yield found


def test_clients_of_four_services_see_the_same_vectors(address: str, encoder: Encoder) -> None:
    queries = {
        "openai": of_openai(address),
        "cohere": of_cohere(address),
        "huggingface_hub": of_huggingface(address),
        "litellm, OpenAI": of_litellm("openai/model", f"{address}/v1", input_type="query"),
        "litellm, vLLM": of_litellm("hosted_vllm/model:query", f"{address}/v1"),
        "litellm, Cohere": of_litellm(
            "cohere/model", f"{address}/v2/embed", input_type="search_query"
        ),
    }
    for vectors in queries.values():
        assert_close(vectors, encoder.encode_query(TEXTS), 1e-6)
    found = of_litellm("huggingface/model", f"{address}/embed", input_type="embed")
    assert_close(found, encoder.encode(TEXTS), 1e-6)


def of_openai(address: str) -> Any:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY) as client:
        found = client.embeddings.create(
            model="model", input=TEXTS, extra_body={"input_type": "search_query"}
        )
    return [item.embedding for item in found.data]


def of_cohere(address: str) -> Any:
    client = cohere.ClientV2(api_key=KEY, base_url=address)
    found = client.embed(
        model="model", texts=TEXTS, input_type="search_query", embedding_types=["float", "int8"]
    )
    assert np.array(found.embeddings.int8).shape == (3, 32)
    return found.embeddings.float_


def of_huggingface(address: str) -> Any:
    client = huggingface_hub.InferenceClient(address, token=KEY)
    return client.feature_extraction(TEXTS, prompt_name="query", normalize=True, truncate=True)


def of_litellm(model: str, address: str, **options: Any) -> Any:
    found = litellm.embedding(model=model, input=TEXTS, api_base=address, api_key=KEY, **options)
    return [item["embedding"] for item in found.data]


def test_clients_of_three_services_rank_alike(address: str, encoder: Encoder) -> None:
    scores = encoder.encode(TEXTS) @ encoder.encode_query("rain")
    order = [int(index) for index in np.argsort(-scores)]
    client = cohere.ClientV2(api_key=KEY, base_url=address)
    found = client.rerank(model="model", query="rain", documents=TEXTS, top_n=2)
    assert [one.index for one in found.results] == order[:2]
    for model, base in (
        ("cohere/model", address),
        ("hosted_vllm/model", address),
        ("huggingface/model", address),
        ("jina_ai/model", address),
    ):
        ranked = litellm.rerank(
            model=model, query="rain", documents=TEXTS, top_n=3, api_base=base, api_key=KEY
        )
        assert [one["index"] for one in ranked.results] == order, model
        assert_close([one["relevance_score"] for one in ranked.results], scores[order], 1e-5)
    similar = huggingface_hub.InferenceClient(f"{address}/similarity", token=KEY)
    vectors = encoder.encode(TEXTS)
    found = similar.sentence_similarity(TEXTS[0], TEXTS[1:])
    assert_close(found, vectors[1:] @ vectors[0], 1e-5)


def test_errors_are_the_clients_own(address: str) -> None:
    client = cohere.ClientV2(api_key=KEY, base_url=address)
    with pytest.raises(cohere.NotFoundError, match="is not served here: use one of model"):
        client.embed(model="embed-v4", texts=TEXTS, input_type="search_query")
    with pytest.raises(cohere.UnauthorizedError, match="send the server's key"):
        cohere.ClientV2(api_key="wrong", base_url=address).rerank(
            model="model", query="x", documents=["x"]
        )
    hub = huggingface_hub.InferenceClient(address, token=KEY)
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="this model knows query"):
        hub.feature_extraction("x", prompt_name="sts")
    with pytest.raises(litellm.NotFoundError, match="is not served here"):
        of_litellm("openai/gpt", f"{address}/v1")
