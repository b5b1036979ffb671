"""A second look at the best hits: a cross-encoder, here or at an endpoint, within a budget of time."""

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx
from pydantic import BaseModel, Field, SecretStr, model_validator

from retrieval.search import Hit

_BATCH = 8
"""Pairs scored at a time: few, so that little is done in vain when the time is over."""

_LARGEST_REPLY_BYTES = 16 << 20

T = TypeVar("T")


class RerankError(RuntimeError):
    """The reranker can not be used or did not answer; says which one, why, and what to do."""


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


class Reranker(Protocol):
    """Anything that says how well texts answer a query."""

    @property
    def name(self) -> str:
        """What it is, for messages; holds no secret."""
        ...

    def scores(self, query: str, texts: Sequence[str], deadline: float) -> list[float]:
        """One score a text, larger is better.

        Args:
            query: The question.
            texts: What is scored.
            deadline: On `time.monotonic`'s clock; there is no use in going on after it.

        Raises:
            RerankError: When it fails.
            TimeoutError: When the deadline has passed.
        """
        ...


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
        from retrieval.cross_encoder import CrossEncoder  # imports torch, which takes seconds

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


class EndpointReranker:
    """Scores through `POST {query, documents, top_n}` as Cohere, Jina, vLLM and llama.cpp understand it.

    The reply is `{"results": [{"index": 0, "relevance_score": 0.9}, …]}`, one result a document.
    """

    def __init__(self, url: str, model: str | None = None, api_key: SecretStr | None = None) -> None:
        """Names the service; nothing is sent yet.

        Raises:
            RerankError: When the URL is none, or the key can not be sent.
        """
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError) as error:
            raise RerankError(f"the rerank endpoint is not a URL: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise RerankError("the rerank endpoint is not an http:// or https:// URL: give the whole address")
        if api_key and not (
            api_key.get_secret_value().isascii() and api_key.get_secret_value().isprintable()
        ):
            raise RerankError("the rerank endpoint's key holds characters that no key has: set it anew")
        self._url, self._model, self._api_key = url, model, api_key
        # A key may also stand in the address.
        self.name = str(parsed.copy_with(username=None, password=None, query=None))

    def scores(self, query: str, texts: Sequence[str], deadline: float) -> list[float]:
        """Asks the service once; a second attempt would rarely be in time."""
        body: dict[str, object] = {"query": query, "documents": list(texts), "top_n": len(texts)}
        if self._model:
            body["model"] = self._model
        headers = {"Authorization": f"Bearer {self._api_key.get_secret_value()}"} if self._api_key else {}
        left_s = max(deadline - time.monotonic(), 0.001)
        try:
            with (
                httpx.Client(timeout=left_s) as client,
                client.stream("POST", self._url, json=body, headers=headers) as response,
            ):
                reply = self._read(response, deadline)
        except httpx.TimeoutException as error:
            raise TimeoutError from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise RerankError(
                f"{self.name} can not be asked ({type(error).__name__}): check that the service runs there"
            ) from error
        if not response.is_success:
            # Not what it says: some services repeat the key that they refuse, or the query.
            raise RerankError(
                f"{self.name} refused: HTTP {response.status_code}{_cure(response.status_code)}"
            )
        return self._scores(reply, len(texts))

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        reply = bytearray()
        for part in response.iter_bytes():
            reply += part
            if len(reply) > _LARGEST_REPLY_BYTES:
                raise RerankError(f"{self.name} answered with more than {_LARGEST_REPLY_BYTES >> 20} MiB")
            if time.monotonic() > deadline:
                raise TimeoutError
        return bytes(reply)

    def _scores(self, reply: bytes, count: int) -> list[float]:
        scores: dict[int, float] = {}
        try:
            for result in json.loads(reply)["results"]:
                index, score = result["index"], float(result["relevance_score"])
                if type(index) is not int or not 0 <= index < count or index in scores:
                    raise ValueError(index)
                scores[index] = score
            return [scores[i] for i in range(count)]
        except (ValueError, LookupError, TypeError, RecursionError, OverflowError) as error:
            raise RerankError(
                f"{self.name} did not answer in the rerank form, a result with index and relevance_score for "
                "each document: check the URL"
            ) from error


def _cure(status: int) -> str:
    cures = {401: "check the key", 403: "check the key's rights", 404: "check the URL and the model's name"}
    cures |= {413: "set fewer candidates", 422: "set fewer candidates, or check the URL and the model's name"}
    return f"; {cures[status]}" if status in cures else ""
