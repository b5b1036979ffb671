"""A reranker that asks a service over HTTP."""

import json
import time
from collections.abc import Sequence

import httpx
from pydantic import SecretStr

from retrieval.rerank.reranker import RerankError

_LARGEST_REPLY_BYTES = 16 << 20


class EndpointReranker:
    """Scores texts through `POST {query, documents, top_n}`, which Cohere, Jina, vLLM and llama.cpp support.

    The reply is `{"results": [{"index": 0, "relevance_score": 0.9}, …]}`, one result per document.
    """

    def __init__(self, url: str, model: str | None = None, api_key: SecretStr | None = None) -> None:
        """Checks the address and the key; nothing is sent yet.

        Raises:
            RerankError: When the URL is not valid, or the key can not be sent.
        """
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError):
            # Without the error, which quotes a part of the address, and that may be a key's.
            raise RerankError("the rerank endpoint is not a URL: is a character of it not escaped?") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise RerankError("the rerank endpoint is not an http:// or https:// URL: give the whole address")
        if api_key and not (
            api_key.get_secret_value().isascii() and api_key.get_secret_value().isprintable()
        ):
            raise RerankError("the rerank endpoint's key holds characters that no key has: set it anew")
        self._url, self._model, self._api_key = url, model, api_key
        # The address may hold a key, too.
        self.name = str(parsed.copy_with(username=None, password=None, query=None))

    def scores(self, query: str, texts: Sequence[str], deadline: float) -> list[float]:
        """Returns the service's score for each text, by one request; a second one would rarely be in time."""
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
            # Without the reply's text: some services repeat the key that they refuse, or the query.
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
