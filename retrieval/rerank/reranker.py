"""The interface of rerankers, their configuration and their error."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, Field, SecretStr, model_validator


class RerankerConfig(BaseModel):
    """The reranker that orders the best hits of a hybrid search; none without a model or an endpoint."""

    model: Path | None = None
    """A sentence-transformers CrossEncoder folder: a sequence classifier of one label, and its tokenizer."""
    endpoint: str | None = None
    """The full URL of a rerank service, such as `http://127.0.0.1:8000/v1/rerank`."""
    endpoint_model: str | None = None
    """The model's name at the endpoint; a service of only one model needs none."""
    api_key: SecretStr | None = None
    """The endpoint's key, sent as a bearer token; None when it needs none."""
    candidates: int = Field(default=50, ge=1, le=1000)
    """How many hits, from the best, are reranked; the others stay behind them."""
    budget_s: float = Field(default=1.0, gt=0)
    """After this time the fused order stands. Loading the model, once per process, is not counted."""

    @model_validator(mode="after")
    def _one_reranker(self) -> "RerankerConfig":
        if self.model and self.endpoint:
            raise ValueError("both a model and an endpoint are given: choose one reranker")
        if (self.endpoint_model or self.api_key) and not self.endpoint:
            raise ValueError("endpoint_model or api_key is given and no endpoint")
        return self

    @property
    def configured(self) -> bool:
        """True if a reranker is configured."""
        return self.model is not None or self.endpoint is not None


class RerankError(RuntimeError):
    """A reranker can not be used or did not answer; the message says which one, why, and what to do."""


class Reranker(Protocol):
    """A model or service that scores how well texts answer a query."""

    @property
    def name(self) -> str:
        """Its name for messages, without secrets."""
        ...

    def scores(self, query: str, texts: Sequence[str], deadline: float) -> list[float]:
        """Returns one score per text; larger is better.

        Args:
            query: The question.
            texts: The texts to score.
            deadline: The time on `time.monotonic`'s clock after which nobody waits for the scores.

        Raises:
            RerankError: The reranker fails.
            TimeoutError: The deadline has passed.
        """
        ...
