"""A second look at the best hits: a cross-encoder, here or at an endpoint, within a budget of time."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, SecretStr, model_validator

from retrieval.rerank.reranker import EndpointReranker, Reranker, RerankError
from retrieval.search.search import Hit

_BATCH = 8
"""Pairs scored at a time: few, so that little is done in vain when the time is over."""

T = TypeVar("T")


class RerankerConfig(BaseModel):
    """What looks again at the best of the fused order. Without a model or an endpoint nothing does."""

    model: Path | None = None
    """A sentence-transformers CrossEncoder folder: a sequence classifier of one label, and its tokenizer."""
    endpoint: str | None = None
    """The whole URL of a rerank service, such as `http://127.0.0.1:8000/v1/rerank`."""
    endpoint_model: str | None = None
    """The model's name at the endpoint; some serve only one and need none."""
    api_key: SecretStr | None = None
    """The endpoint's key, sent as a bearer token; None when it needs none."""
    candidates: int = Field(default=50, ge=1, le=1000)
    """How many of the fused order are looked at; what comes after them stays behind them."""
    budget_s: float = Field(default=1.0, gt=0)
    """After this time the fused order stands. Loading a model's folder, once a process, is not counted."""

    @model_validator(mode="after")
    def _one_reranker(self) -> "RerankerConfig":
        if self.model and self.endpoint:
            raise ValueError("both a model and an endpoint are given: choose one reranker")
        if (self.endpoint_model or self.api_key) and not self.endpoint:
            raise ValueError("endpoint_model or api_key is given and no endpoint")
        return self

    @property
    def configured(self) -> bool:
        """Whether there is anything that reranks."""
        return self.model is not None or self.endpoint is not None


@dataclass(frozen=True)
class Reranked:
    """Hits after the second look.

    Attributes:
        hits: In the reranker's order with its scores, or as they came.
        by: What ordered them; None when they stand as they came.
        kept_because: Why they stand as they came; None when they were reordered.
        seconds: What the second look took.
    """

    hits: list[Hit]
    by: str | None
    kept_because: str | None
    seconds: float

    def told(self) -> dict[str, str | float | None]:
        """All but the hits."""
        return {"by": self.by, "kept_because": self.kept_because, "seconds": round(self.seconds, 3)}

    def in_words(self) -> str:
        """What ordered the hits, or why nothing did."""
        ordered = f"ordered by {self.by}" if self.by else f"the fused order stands: {self.kept_because}"
        return f"{ordered}, {self.seconds:.2f} s"


def build_reranker(config: RerankerConfig) -> Reranker:
    """The reranker that a configuration names, loaded.

    Raises:
        RerankError: When nothing is configured, or the folder is not a cross-encoder.
    """
    if config.endpoint:
        return EndpointReranker(config.endpoint, config.endpoint_model, config.api_key)
    if config.model:
        from retrieval.rerank.cross_encoder import CrossEncoder  # imports torch, which takes seconds

        return CrossEncoder(config.model, _BATCH)
    raise RerankError(
        "no reranker is configured: set HEADWATER_RERANKER__MODEL to a CrossEncoder's folder, or "
        "HEADWATER_RERANKER__ENDPOINT to the URL of a rerank service"
    )


def rerank(query: str, hits: Sequence[Hit], reranker: Reranker, config: RerankerConfig) -> Reranked:
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
        return Reranked(list(hits), None, reason, time.monotonic() - began)
    order = sorted(range(len(head)), key=lambda i: (-scores[i], i))
    ordered = [replace(head[i], rank=rank, score=scores[i]) for rank, i in enumerate(order, 1)]
    return Reranked(ordered + list(hits[len(head) :]), reranker.name, None, time.monotonic() - began)


def second_look(
    search: Callable[[int], list[Hit]], query: str, k: int, reranker: Reranker, config: RerankerConfig
) -> Reranked:
    """The best `k` hits of a search after `rerank`: more are asked for, since the best may lie deeper.

    Args:
        search: Takes how many hits to find.
        query: The question.
        k: How many hits.
        reranker: From `build_reranker`.
        config: How many are looked at, and how long.
    """
    looked = rerank(query, search(max(k, config.candidates)), reranker, config)
    return replace(looked, hits=looked.hits[:k])


def _shown(hit: Hit) -> str:
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
