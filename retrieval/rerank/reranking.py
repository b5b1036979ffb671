"""A second look at the best hits: a cross-encoder, here or at an endpoint, within a budget of time."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from retrieval.rerank.reranker import Reranker, RerankerConfig, RerankError
from retrieval.search.searcher import SearchHit

_BATCH = 8
"""Pairs scored at a time: few, so that little is done in vain when the time is over."""

T = TypeVar("T")


@dataclass(frozen=True)
class RerankedHits:
    """Hits after the second look.

    Attributes:
        hits: In the reranker's order with its scores, or as they came.
        by: What ordered them; None when they stand as they came.
        fallback_reason: Why they stand as they came; None when they were reordered.
        seconds: What the second look took.
    """

    hits: list[SearchHit]
    by: str | None
    fallback_reason: str | None
    seconds: float

    def summary(self) -> dict[str, str | float | None]:
        """All but the hits."""
        return {"by": self.by, "fallback_reason": self.fallback_reason, "seconds": round(self.seconds, 3)}

    def explanation(self) -> str:
        """What ordered the hits, or why nothing did."""
        ordered = f"ordered by {self.by}" if self.by else f"the fused order stands: {self.fallback_reason}"
        return f"{ordered}, {self.seconds:.2f} s"


def build_reranker(config: RerankerConfig) -> Reranker:
    """The reranker that a configuration names, loaded.

    Raises:
        RerankError: When nothing is configured, or the folder is not a cross-encoder.
    """
    if config.endpoint:
        from retrieval.rerank.endpoint_reranker import EndpointReranker  # imports an HTTP client

        return EndpointReranker(config.endpoint, config.endpoint_model, config.api_key)
    if config.model:
        from retrieval.rerank.cross_encoder import CrossEncoderReranker  # imports torch, which takes seconds

        return CrossEncoderReranker(config.model, _BATCH)
    raise RerankError(
        "no reranker is configured: set HEADWATER_RERANKER__MODEL to a CrossEncoder's folder, or "
        "HEADWATER_RERANKER__ENDPOINT to the URL of a rerank service"
    )


def rerank_hits(
    query: str, hits: Sequence[SearchHit], reranker: Reranker, config: RerankerConfig
) -> RerankedHits:
    """Orders the first `candidates` hits by how well they answer the query; the others follow as they came.

    The order is the reranker's or the one that came in, never a mixture of both: when it fails, answers
    nonsense or is not done in time, the hits are returned untouched and the result says why.

    Args:
        query: The question.
        hits: Best first.
        reranker: From `build_reranker`.
        config: How many, and how long.

    Returns:
        The same hits. Scores are the reranker's own, on its own scale, except of hits past `candidates`.
    """
    began = time.monotonic()
    head = list(hits[: config.candidates])
    try:
        scores = _within(
            config.budget_s,
            lambda deadline: reranker.scores(query, [_shown(hit) for hit in head], deadline) if head else [],
        )
        if len(scores) != len(head) or not all(map(math.isfinite, scores)):
            raise RerankError(f"{reranker.name} did not give each passage a finite score")
    except (RerankError, TimeoutError) as error:
        late = f"{reranker.name} was not done in {config.budget_s:g} s (budget_s)"
        reason = str(error) if isinstance(error, RerankError) else late
        return RerankedHits(list(hits), None, reason, time.monotonic() - began)
    order = sorted(range(len(head)), key=lambda i: (-scores[i], i))
    ordered = [replace(head[i], rank=rank, score=scores[i]) for rank, i in enumerate(order, 1)]
    return RerankedHits(ordered + list(hits[len(head) :]), reranker.name, None, time.monotonic() - began)


def search_and_rerank(
    search: Callable[[int], list[SearchHit]], query: str, k: int, reranker: Reranker, config: RerankerConfig
) -> RerankedHits:
    """The best `k` hits of a search after `rerank`: more are asked for, since the best may lie deeper.

    Args:
        search: Takes how many hits to find.
        query: The question.
        k: How many hits.
        reranker: From `build_reranker`.
        config: How many are looked at, and how long.
    """
    looked = rerank_hits(query, search(max(k, config.candidates)), reranker, config)
    return replace(looked, hits=looked.hits[:k])


def _shown(hit: SearchHit) -> str:
    """A hit as a person would be shown it: a chunk alone often doesn't name what it is about."""
    source = " > ".join(part for part in (hit.title, hit.heading) if part)
    return f"{source}\n{hit.text}" if source else hit.text


def _within(budget_s: float, work: Callable[[float], T]) -> T:
    """What `work` returns or raises, if it does so in time.

    It runs in a thread that is left behind when the time is over: name look-up and a library's own loops
    know no deadline, and a search must not wait for them, nor the process when it ends.

    Raises:
        TimeoutError: When it is not done in time.
    """
    outcome: list[tuple[bool, Any]] = []
    deadline = time.monotonic() + budget_s

    def run() -> None:
        try:
            outcome.append((True, work(deadline)))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=run, name="rerank", daemon=True)
    thread.start()
    thread.join(budget_s)
    if not outcome:
        raise TimeoutError
    done, value = outcome[0]
    if done:
        return value
    raise value
