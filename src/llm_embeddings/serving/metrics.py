"""Metrics of a server for Prometheus: numbers, never a text or a key."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from ..packed.attention import tokens_in
from .queue import Queue

if TYPE_CHECKING:
    from ..encoder import Encoder
    from ..recipe import Role

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SHARES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


class Metrics:
    """Counters and histograms of one server, in a registry of their own."""

    def __init__(self, queue: Queue) -> None:
        """Create the metrics, all at 0; `queue` tells what is in hand."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "llm_embeddings_requests",
            "Requests answered; 499: the client had gone.",
            ("route", "status"),
            registry=registry,
        )
        self._latency = Histogram(
            "llm_embeddings_request_seconds",
            "From the head of a request for vectors to the end of its answer.",
            ("status",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._texts, self._tokens, self._cut = (
            Counter(f"llm_embeddings_{name}", words, ("role",), registry=registry)
            for name, words in (
                ("texts", "Texts embedded."),
                ("tokens", "Tokens of these, template and special tokens included."),
                ("cut_texts", "Texts that were longer than the model takes, and cut."),
            )
        )
        self._fill = Histogram(
            "llm_embeddings_pass_fill",
            "Tokens of a forward pass as a share of those that suit the device.",
            buckets=_SHARES,
            registry=registry,
        )
        for name, words, value in (
            ("requests", "Requests in hand.", lambda: queue.requests),
            ("tokens", "Tokens taken on that have no vectors yet.", lambda: queue.tokens),
        ):
            gauge = Gauge(f"llm_embeddings_queue_{name}", words, registry=registry)
            gauge.set_function(value)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def answered(self, route: str, status: int, seconds: float, *, computed: bool) -> None:
        """Count a response to a request of a route, and the seconds of one that asked for work."""
        self._requests.labels(route, status).inc()
        if computed:
            self._latency.labels(status).observe(seconds)

    def embedded(self, role: Role, texts: int, tokens: int, cut: int) -> None:
        """Count texts that were embedded, their tokens, and how many texts were cut off."""
        self._texts.labels(role).inc(texts)
        self._tokens.labels(role).inc(tokens)
        self._cut.labels(role).inc(cut)

    def watch(self, encoder: Encoder) -> None:
        """Record how full the forward passes of an encoder in this process are."""
        runner, fill = encoder.scheduler.runner, self._fill

        def see(module: Any, arguments: Any, options: dict[str, Any], output: Any) -> None:
            fill.observe(tokens_in(options) / runner.budget)

        handle = encoder.model.backbone.register_forward_hook(see, with_kwargs=True)
        weakref.finalize(self, handle.remove)
