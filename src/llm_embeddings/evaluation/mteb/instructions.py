"""The instructions of MTEB's tasks, as published with E5-Mistral.

From table 15 of arXiv 2401.00368 and microsoft/unilm `e5/` at 59d0483 (MIT), which has the
Chinese tasks too. GritLM (arXiv 2402.09906) and LLM2Vec (McGill-NLP/llm2vec,
test_configs/mteb/task_to_instructions.json at 312adcf, MIT) use the same sentences.
"""

from __future__ import annotations

import re

STS = "Retrieve semantically similar text."
BITEXT = "Retrieve parallel sentences."
SUMMARIES = "Given a news summary, retrieve other semantically similar summaries"

_PAPERS = "Identify the main category of {} papers based on the titles"
_ARXIV = "Identify the main and secondary category of Arxiv papers based on the titles"
_REDDIT = "Identify the topic or theme of Reddit posts based on the titles"
_EXCHANGE = "Identify the topic or theme of StackExchange posts based on the "
_TWEETS = "Retrieve tweets that are semantically similar to the given tweet"
_FORUM = "Retrieve duplicate questions from {} forum"
_CLAIM = "retrieve documents that support or refute the claim"
_PASSAGES = "retrieve relevant passages that answer the query"
_CQADUPSTACK = (
    "Given a question, retrieve detailed question descriptions from Stackexchange that are "
    "duplicates to the given question"
)
_NEWS = "Identify the topic or theme of the given news articles"
_WIKIPEDIA = "Given a question, retrieve Wikipedia passages that answer the question"
_CHINESE = "Given a Chinese search query, retrieve web passages that answer the question"
_CHINESE_MEDICAL = (
    "Given a Chinese community medical question, retrieve replies that best answer the question"
)

CQADUPSTACK = tuple(
    f"CQADupstack{forum}Retrieval"
    for forum in (
        "Android English Gaming Gis Mathematica Physics Programmers Stats Tex Unix Webmasters "
        "Wordpress"
    ).split()
)

CLASSIFICATION = {
    "AmazonCounterfactualClassification": "Classify a given Amazon customer review text as either "
    "counterfactual or not-counterfactual",
    "AmazonPolarityClassification": "Classify Amazon reviews into positive or negative sentiment",
    "AmazonReviewsClassification": "Classify the given Amazon review into its appropriate rating "
    "category",
    "Banking77Classification": "Given a online banking query, find the corresponding intents",
    "EmotionClassification": "Classify the emotion expressed in the given Twitter message into one "
    "of the six emotions: anger, fear, joy, love, sadness, and surprise",
    "ImdbClassification": "Classify the sentiment expressed in the given movie review text from "
    "the IMDB dataset",
    "MassiveIntentClassification": "Given a user utterance as query, find the user intents",
    "MassiveScenarioClassification": "Given a user utterance as query, find the user scenarios",
    "MTOPDomainClassification": "Classify the intent domain of the given utterance in "
    "task-oriented conversation",
    "MTOPIntentClassification": "Classify the intent of the given utterance in task-oriented "
    "conversation",
    "ToxicConversationsClassification": "Classify the given comments as either toxic or not toxic",
    "TweetSentimentExtractionClassification": "Classify the sentiment of a given tweet as either "
    "positive, negative, or neutral",
}
CLUSTERING = {
    "ArxivClusteringP2P": f"{_ARXIV} and abstracts",
    "ArxivClusteringS2S": _ARXIV,
    "BiorxivClusteringP2P": f"{_PAPERS.format('Biorxiv')} and abstracts",
    "BiorxivClusteringS2S": _PAPERS.format("Biorxiv"),
    "MedrxivClusteringP2P": f"{_PAPERS.format('Medrxiv')} and abstracts",
    "MedrxivClusteringS2S": _PAPERS.format("Medrxiv"),
    "RedditClustering": _REDDIT,
    "RedditClusteringP2P": f"{_REDDIT} and posts",
    "StackExchangeClustering": f"{_EXCHANGE}titles",
    "StackExchangeClusteringP2P": f"{_EXCHANGE}given paragraphs",
    "TwentyNewsgroupsClustering": _NEWS,
}
PAIR_CLASSIFICATION = {
    "SprintDuplicateQuestions": _FORUM.format("Sprint"),
    "TwitterSemEval2015": _TWEETS,
    "TwitterURLCorpus": _TWEETS,
}
RERANKING = {
    "AskUbuntuDupQuestions": _FORUM.format("AskUbuntu"),
    "MindSmallReranking": "Retrieve relevant news articles based on user browsing history",
    "SciDocsRR": "Given a title of a scientific paper, retrieve the titles of other relevant "
    "papers",
    "StackOverflowDupQuestions": _FORUM.format("StackOverflow"),
}
RETRIEVAL = {
    "ArguAna": "Given a claim, find documents that refute the claim",
    "ClimateFEVER": f"Given a claim about climate change, {_CLAIM}",
    "CQADupstackRetrieval": _CQADUPSTACK,
    "DBPedia": "Given a query, retrieve relevant entity descriptions from DBPedia",
    "FEVER": f"Given a claim, {_CLAIM}",
    "FiQA2018": "Given a financial question, retrieve user replies that best answer the question",
    "HotpotQA": "Given a multi-hop question, retrieve documents that can help answer the question",
    "MSMARCO": f"Given a web search query, {_PASSAGES}",
    "NFCorpus": "Given a question, retrieve relevant documents that best answer the question",
    "NQ": _WIKIPEDIA,
    "QuoraRetrieval": "Given a question, retrieve questions that are semantically equivalent to "
    "the given question",
    "SCIDOCS": "Given a scientific paper title, retrieve paper abstracts that are cited by the "
    "given paper",
    "SciFact": f"Given a scientific claim, {_CLAIM}",
    "Touche2020": "Given a question, retrieve detailed and persuasive arguments that answer the "
    "question",
    "TRECCOVID": "Given a query on COVID-19, retrieve documents that answer the query",
}
SIMILARITY = dict.fromkeys(
    (
        "BIOSSES",
        "SICK-R",
        *(f"STS{year}" for year in (12, 13, 14, 15, 16, 17, 22)),
        "STSBenchmark",
    ),
    STS,
)
# The 56 tasks of MTEB's first English benchmark, in the groups of its tables.
ENGLISH = {
    "Classification": CLASSIFICATION,
    "Clustering": CLUSTERING,
    "PairClassification": PAIR_CLASSIFICATION,
    "Reranking": RERANKING,
    "Retrieval": RETRIEVAL,
    "STS": SIMILARITY,
    "Summarization": {"SummEval": SUMMARIES},
}
OTHERS = {
    **dict.fromkeys(CQADUPSTACK, _CQADUPSTACK),
    "MIRACLRetrieval": _WIKIPEDIA,
    "TNews": "Classify the fine-grained category of the given news title",
    "IFlyTek": "Given an App description text, find the appropriate fine-grained category",
    "MultilingualSentiment": "Classify sentiment of the customer review into positive, neutral, "
    "or negative",
    "JDReview": "Classify the customer review for iPhone on e-commerce platform into positive or "
    "negative",
    "OnlineShopping": "Classify the customer review for online shopping into positive or negative",
    "Waimai": "Classify the customer review from a food takeaway platform into positive or "
    "negative",
    "CLSClusteringS2S": "Identify the main category of scholar papers based on the titles",
    "CLSClusteringP2P": "Identify the main category of scholar papers based on the titles and "
    "abstracts",
    "ThuNewsClusteringS2S": f"{_NEWS} based on the titles",
    "ThuNewsClusteringP2P": f"{_NEWS} based on the titles and contents",
    **dict.fromkeys(("T2Reranking", "MMarcoReranking", "T2Retrieval", "DuRetrieval"), _CHINESE),
    **dict.fromkeys(
        ("CMedQAv1-reranking", "CMedQAv2-reranking", "CmedqaRetrieval"), _CHINESE_MEDICAL
    ),
    **dict.fromkeys(("Ocnli", "Cmnli"), STS),
    "MMarcoRetrieval": f"Given a web search query, {_PASSAGES}",
    "CovidRetrieval": "Given a question on COVID-19, retrieve news articles that answer the "
    "question",
    "EcomRetrieval": "Given a user query from an e-commerce website, retrieve description "
    "sentences of relevant products",
    "MedicalRetrieval": "Given a medical question, retrieve user replies that best answer the "
    "question",
    "VideoRetrieval": "Given a video search query, retrieve the titles of relevant videos",
}
BY_NAME = {name: text for group in ENGLISH.values() for name, text in group.items()} | OTHERS
# One instruction for all tasks of a type, as in E5.
BY_TYPE = {"STS": STS, "BitextMining": BITEXT, "Summarization": SUMMARIES}
# For tasks without a published instruction: mteb's own defaults for the type of task.
GENERAL = {
    "Classification": "Classify user passages.",
    "MultilabelClassification": "Classify user passages.",
    "Clustering": "Identify categories in user passages.",
    "PairClassification": STS,
}
_VERSION = re.compile(r"(HardNegatives)?(\.v\d+)?$")


def published(name: str, kind: str) -> str | None:
    """The published instruction of a task; None = there is none.

    Args:
        name: MTEB's name of the task. Later versions of its data (`.v2`, `HardNegatives`) share
            the instruction of the first.
        kind: MTEB's type of the task.
    """
    first = _VERSION.sub("", name)
    for known in (name, first, first.removesuffix("Retrieval")):
        if known in BY_NAME:
            return BY_NAME[known]
    return BY_TYPE.get(kind)
