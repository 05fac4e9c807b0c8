"""LlamaIndex's nodes in the order of the core's reranker."""

from __future__ import annotations

import pytest
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.llms.llm_embeddings import DocumentReranker, GritLM

from llm_embeddings.generation import Generator, Reranker

TEXTS = ["Cats purr.", "Dogs bark at the postman.", "Owls"]


def test_nodes_come_as_the_core_orders_them(llm: GritLM) -> None:
    core = Reranker(Generator(llm.encoder))
    nodes = [NodeWithScore(node=TextNode(text=text, id_=text), score=0.5) for text in TEXTS]
    wanted = core.rerank("cats", TEXTS)
    found = DocumentReranker(reranker=core, top_n=2).postprocess_nodes(nodes, query_str="cats")
    assert [(one.node.node_id, one.score) for one in found] == [
        (TEXTS[one.index], one.score) for one in wanted[:2]
    ]
    with pytest.raises(ValueError, match="needs the query"):
        DocumentReranker(reranker=core).postprocess_nodes(nodes)
