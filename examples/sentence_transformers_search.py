"""sentence-transformers: encode, cluster and search with its own tools over our vectors."""

from sentence_transformers import util
from sentence_transformers_llm_embeddings import as_sentence_transformer
from sklearn.cluster import KMeans

from llm_embeddings import Encoder
from llm_embeddings.corpus import load_corpus

QUERIES = ("how do nerves signal", "bacteria in the lungs", "how candidates are nominated")


def main() -> None:
    model = as_sentence_transformer(Encoder.from_pretrained())
    corpus = load_corpus()[:60]
    documents = model.encode_document([p.passage for p in corpus], convert_to_tensor=True)

    print("Clusters")
    kmeans = KMeans(n_clusters=6, n_init=4, random_state=0).fit(documents.cpu().numpy())
    distances = kmeans.transform(documents.cpu().numpy())
    for cluster in range(6):
        nearest = distances[:, cluster].argsort()[:3]
        size = int((kmeans.labels_ == cluster).sum())
        print(f"  {size:3} passages: {'; '.join(corpus[i].title for i in nearest)}")

    print("Semantic search")
    queries = model.encode_query(list(QUERIES), convert_to_tensor=True)
    for query, hits in zip(QUERIES, util.semantic_search(queries, documents, top_k=3), strict=True):
        print(f"  {query}")
        for hit in hits:
            print(f"    {hit['score']:.3f}  {corpus[int(hit['corpus_id'])].title}")


if __name__ == "__main__":
    main()
