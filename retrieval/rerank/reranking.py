"""Orders the best hits of a search by a cross-encoder, within a time budget."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from retrieval.rerank.reranker import Reranker, RerankerConfig, RerankError
from retrieval.search.searcher import SearchHit

_BATCH = 8
"""Pairs per run of the model: few, so that little work is lost when the time is over."""

T = TypeVar("T")


@dataclass(frozen=True)
class RerankedHits:
    """Hits after reranking.

    Attributes:
        hits: The hits in the reranker's order with its scores, or in their original order.
        by: The reranker that ordered them; None if they keep their original order.
        fallback_reason: Why they keep their original order; None if they were reranked.
        seconds: How long the reranking took.
    """

    hits: list[SearchHit]
    by: str | None
    fallback_reason: str | None
    seconds: float

    def summary(self) -> dict[str, str | float | None]:
        """Returns all attributes except the hits, as a JSON object."""
        return {"by": self.by, "fallback_reason": self.fallback_reason, "seconds": round(self.seconds, 3)}

    def explanation(self) -> str:
        """Returns a sentence that says what ordered the hits, or why nothing did."""
        ordered = f"ordered by {self.by}" if self.by else f"the fused order stands: {self.fallback_reason}"
        return f"{ordered}, {self.seconds:.2f} s"


def build_reranker(config: RerankerConfig) -> Reranker:
    """Loads and returns the reranker that a configuration names.

    Raises:
        RerankError: No reranker is configured, or the folder is not a cross-encoder.
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
    """Returns hits with the first `candidates` of them reranked; the others follow in their original order.

    If the reranker fails, returns invalid scores or is late, all hits are returned unchanged, and the result
    says why.

    Args:
        query: The question.
        hits: Best first.
        reranker: From `build_reranker`.
        config: How many hits are reranked, and the time limit.

    Returns:
        The same hits. The first `candidates` have the reranker's scores, on its own scale.
    """
    began = time.monotonic()
    head = list(hits[: config.candidates])
    shown = [passage_shown(hit.title, hit.heading, hit.text) for hit in head]
    try:
        scores = _within(
            config.budget_s,
            lambda deadline: reranker.scores(query, shown, deadline) if head else [],
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
    """Searches for more than `k` hits, reranks them, and returns the best `k`.

    Args:
        search: Returns as many hits as its argument says.
        query: The question.
        k: How many hits to return.
        reranker: From `build_reranker`.
        config: How many hits are reranked, and the time limit.
    """
    looked = rerank_hits(query, search(max(k, config.candidates)), reranker, config)
    return replace(looked, hits=looked.hits[:k])


def passage_shown(title: str | None, heading: str | None, text: str) -> str:
    """Returns a passage under its title and headings: a chunk alone often doesn't name its subject."""
    source = " > ".join(part for part in (title, heading) if part)
    return f"{source}\n{text}" if source else text


def _within(budget_s: float, work: Callable[[float], T]) -> T:
    """Returns or raises what `work` does, if it does so in time.

    It runs in a thread that is abandoned when the time is over: name resolution and a library's loops know no
    deadline, and neither a search nor the end of the process may wait for them.

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
