"""What a reranker is: its configuration, what each one promises, and how it fails."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, Field, SecretStr, model_validator


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


class RerankError(RuntimeError):
    """The reranker can not be used or did not answer; says which one, why, and what to do."""


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
