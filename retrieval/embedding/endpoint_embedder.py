"""Turns texts into unit vectors by asking a service with OpenAI's embeddings API."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt

from common.http_retry import HTTP_ATTEMPTS, HttpUnanswered, http_attempts, raise_if_unanswered
from retrieval.embedding.config import EmbedderConfig, EmbeddingFault
from retrieval.embedding.endpoint_identity import (
    PROBES,
    TokenBudget,
    read_identity,
    store_identity,
)

_FIRST_WAIT_S = 0.5
_LARGEST_REPLY_BYTES = 64 << 20
_LEAST_PROBE_COSINE = 0.999
"""Of a probe's vector to the stored one; below it the service has another model."""

Vectors = npt.NDArray[np.float32]


class EndpointEmbedder:
    """An embedding model behind `POST {url}/v1/embeddings`, such as vLLM, TEI, Ollama or a managed service.

    Each request carries a probe text as well. Its vector must be the one that the service gave when it was
    first asked, so that vectors of two models are never mixed, whenever the service is given another one.

    Attributes:
        digest: Hex SHA-256 over the model's name, its dimension, the stored probe vectors, and the prompts
            and the truncation of the configuration.
        dimension: The length of a vector.
    """

    def __init__(self, config: EmbedderConfig, cache: Path, first_wait_s: float = _FIRST_WAIT_S) -> None:
        """Reads the identity of the model, or asks the service for it if it was never asked.

        Args:
            config: The service, the prompts and the dimension.
            cache: The folder that keeps the identity.
            first_wait_s: The wait before the second attempt; doubled before each further one.

        Raises:
            EmbeddingFault: The service does not answer as it should.
        """
        self._endpoint = config.endpoint
        root = (config.endpoint.url or "").rstrip("/").removesuffix("/v1")
        self._url = f"{root}/v1/embeddings"
        self._name = f"{config.endpoint.model} at {self._url}"
        self._first_wait_s = first_wait_s
        self._budget = TokenBudget.of(config, cache)
        self._document_prompt, self._query_prompt = config.document_prompt or "", config.query_prompt or ""
        stored = read_identity(config.endpoint.model, cache)
        self._identity = stored or store_identity(config.endpoint.model, self._ask(list(PROBES)), cache)
        self.digest = self._identity.digest(config)
        self.dimension = config.dimension or self._identity.dimension
        if self.dimension > self._identity.dimension:
            raise EmbeddingFault(
                f"{self._name} makes vectors of {self._identity.dimension} values, and {self.dimension} are "
                "wanted: set HEADWATER_RECIPE__EMBEDDER__DIMENSION to at most that"
            )

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Returns the unit vectors of documents' texts: float32 of shape (texts, dimension), in their order.

        Raises:
            EmbeddingFault: The service does not answer, answers in another form or with the vectors of
                another model, or the day's budget of tokens is spent.
        """
        return self._encode(texts, self._document_prompt)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Returns the unit vectors of questions, as `encode` does; some models read these another way."""
        return self._encode(texts, self._query_prompt)

    def has_words_of(self, text: str) -> bool:
        """Returns true: what vocabulary a service's model has is not known."""
        return True

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for first in range(0, len(texts), self._endpoint.batch_texts):
            some = [prompt + text for text in texts[first : first + self._endpoint.batch_texts]]
            found = self._ask([*some, PROBES[0]])
            self._require_same_model(found[-1])
            vectors[first : first + len(some)] = _unit(found[:-1, : self.dimension])
        return vectors

    def _require_same_model(self, probe: Vectors) -> None:
        if probe.shape[0] != self._identity.dimension:
            raise EmbeddingFault(
                f"{self._name} changed its dimension: it answers with vectors of {probe.shape[0]} values, "
                f"and those before had {self._identity.dimension}. {self._cure()}"
            )
        cosine = float(probe @ self._identity.probes[0])
        if not cosine >= _LEAST_PROBE_COSINE:
            raise EmbeddingFault(
                f"{self._name} is another model than when it was first asked: its vector of a probe text has "
                f"cosine {cosine:.4f} to the stored one. {self._cure()}"
            )

    def _cure(self) -> str:
        return (
            "Serve the former model again; or, to embed everything anew with this one, give it another name "
            "at the service and in HEADWATER_RECIPE__EMBEDDER__ENDPOINT__MODEL, or remove "
            f"{self._identity.path}"
        )

    def _ask(self, texts: list[str]) -> Vectors:
        """Returns the service's vectors, of length 1; attempts that may succeed later are repeated."""
        headers = self._headers()
        attempts = http_attempts(self._first_wait_s)
        try:
            with httpx.Client(timeout=self._endpoint.timeout_s) as client:
                reply: bytes = attempts(self._post, client, texts, headers)
        except HttpUnanswered as error:
            raise EmbeddingFault(
                f"{self._url} failed {HTTP_ATTEMPTS} times, last with {error}: "
                "check that the service runs there"
            ) from error
        return self._vectors(reply, len(texts))

    def _post(self, client: httpx.Client, texts: list[str], headers: dict[str, str]) -> bytes:
        self._budget.spend(texts)
        body = {"model": self._endpoint.model, "input": texts, "encoding_format": "float"}
        deadline = time.monotonic() + self._endpoint.timeout_s
        reply = bytearray()
        try:
            with client.stream("POST", self._url, json=body, headers=headers) as response:
                for part in response.iter_bytes():
                    reply += part
                    if len(reply) > _LARGEST_REPLY_BYTES:
                        raise EmbeddingFault(
                            f"{self._url} answered with more than {_LARGEST_REPLY_BYTES >> 20} MiB: check "
                            "the URL"
                        )
                    if time.monotonic() > deadline:
                        raise HttpUnanswered(f"no whole answer within {self._endpoint.timeout_s:g} s")
        except httpx.TransportError as error:
            raise HttpUnanswered(f"{type(error).__name__}: {error}") from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise EmbeddingFault(f"{self._url} can not be asked: {error}") from error
        if response.is_success:
            return bytes(reply)
        fault = f"HTTP {response.status_code}"
        raise_if_unanswered(response, fault)
        # Without the reply's text: some services repeat the key that they refuse, or the texts.
        raise EmbeddingFault(f"{self._url} refused: {fault}{_status_cure(response.status_code)}")

    def _vectors(self, reply: bytes, count: int) -> Vectors:
        try:
            rows: dict[int, Vectors] = {
                item["index"]: np.asarray(item["embedding"], dtype=np.float32)
                for item in json.loads(reply)["data"]
            }
            if sorted(rows) != list(range(count)):
                raise ValueError(f"{len(rows)} vectors for {count} texts")
            vectors = np.stack([rows[place] for place in range(count)])
            if vectors.ndim != 2:
                raise ValueError("a vector is no list of numbers")
        except (ValueError, LookupError, TypeError, RecursionError, OverflowError) as error:
            raise EmbeddingFault(
                f"{self._url} did not answer in OpenAI's embeddings form, a vector of one length with its "
                f"index for each text ({error}): check the URL"
            ) from error
        if not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
            raise EmbeddingFault(
                f"{self._name} answered with a vector that is NaN, infinite or zero: check the model that is "
                "served there"
            )
        return _unit(vectors)

    def _headers(self) -> dict[str, str]:
        variable = self._endpoint.api_key_env
        if variable is None:
            return {}
        key = os.environ.get(variable, "")
        if not key or not (key.isascii() and key.isprintable()):
            raise EmbeddingFault(
                f"the environment variable {variable} holds no key for {self._url}: set it, or unset "
                "HEADWATER_RECIPE__EMBEDDER__ENDPOINT__API_KEY_ENV"
            )
        return {"Authorization": f"Bearer {key}"}


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))


def _status_cure(status: int) -> str:
    fewer = "set HEADWATER_RECIPE__EMBEDDER__ENDPOINT__BATCH_TEXTS lower"
    cures = {401: "check the key", 403: "check the key's rights", 404: "check the URL and the model's name"}
    cures |= {400: f"check the model's name, or {fewer}", 413: fewer, 422: fewer}
    return f"; {cures[status]}" if status in cures else ""
