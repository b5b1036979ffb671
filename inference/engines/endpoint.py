"""Answers questions by a service with OpenAI's chat API, such as vLLM, llama.cpp or a managed service."""

import os
from collections.abc import Sequence

import httpx

from inference.engines.protocol import EngineError
from inference.prompting.cited_reply import parse_cited_reply
from inference.prompting.prompt_assembly import PromptConfig, assemble_prompt_passages, build_prompt_messages
from inference.prompting.types import Draft, Passage
from retrieval.http_retry import HTTP_ATTEMPTS, HttpUnanswered, http_attempts, raise_if_unanswered
from retrieval.redaction import redact_urls


class OpenAIEngine:
    """An engine that generates answers through `POST {base_url}/chat/completions`."""

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str | None = None,
        timeout_s: float = 60.0,
        max_new_tokens: int = 300,
        backoff_s: float = 0.5,
        context: PromptConfig | None = None,
    ) -> None:
        """Describes the service; nothing is sent yet.

        Args:
            base_url: The service's URL, with or without `/v1` at the end.
            model: Its name at the service.
            api_key_env: The environment variable that holds the key, read at each call and never kept.
            timeout_s: How long one attempt may take.
            max_new_tokens: The length limit of an answer.
            backoff_s: The wait before the second attempt; doubled before each further one.
            context: Which passages are shown to the model, and in which order.
        """
        root = base_url.rstrip("/").removesuffix("/v1")
        self._url = f"{root}/v1/chat/completions"
        self._shown_url = redact_urls(self._url)
        self._model = model
        self._api_key_env = api_key_env
        self._timeout_s = timeout_s
        self._max_new_tokens = max_new_tokens
        self._backoff_s = backoff_s
        self._context = context or PromptConfig()

    @property
    def name(self) -> str:
        """The engine's name: the protocol and the model."""
        return f"openai:{self._model}"

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        """Generates an answer, and keeps only citations that the passages support.

        Raises:
            EngineError: The service can't be reached, refuses, or replies in another form, or not even one
                passage fits into the token budget.
        """
        context = assemble_prompt_passages(passages, self._context)
        if not context:
            raise EngineError(
                f"no passage fits into {self._context.max_tokens} tokens: set "
                "HEADWATER_GENERATOR__CONTEXT__MAX_TOKENS higher"
            )
        body = {
            "model": self._model,
            "messages": build_prompt_messages(question, context),
            "temperature": 0,
            "max_tokens": self._max_new_tokens,
        }
        response = self._post(body)
        try:
            reply = response.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise EngineError(
                f"{self._shown_url} did not answer in OpenAI's chat form: check the base URL"
            ) from error
        return parse_cited_reply(reply or "", context, passages)

    def _post(self, body: dict[str, object]) -> httpx.Response:
        """Returns the service's reply; attempts that may succeed later are repeated."""
        headers = self._headers()
        attempts = http_attempts(self._backoff_s)
        try:
            with httpx.Client(timeout=self._timeout_s) as client:
                response: httpx.Response = attempts(self._post_once, client, body, headers)
                return response
        except HttpUnanswered as error:
            raise EngineError(
                f"{self._shown_url} failed {HTTP_ATTEMPTS} times, last with {error}: "
                "check that the service runs there"
            ) from error

    def _post_once(
        self, client: httpx.Client, body: dict[str, object], headers: dict[str, str]
    ) -> httpx.Response:
        try:
            response = client.post(self._url, json=body, headers=headers)
        except httpx.TransportError as error:
            raise HttpUnanswered(f"{type(error).__name__}: {error}") from error
        except httpx.InvalidURL:  # it quotes a part of the address, and that may be a key's
            raise EngineError(f"{self._shown_url} is not a URL") from None
        if response.is_success:
            return response
        fault = _fault(response, headers)
        raise_if_unanswered(response, fault)
        raise EngineError(f"{self._shown_url} refused: {fault}")

    def _headers(self) -> dict[str, str]:
        if self._api_key_env is None:
            return {}
        key = os.environ.get(self._api_key_env)
        if not key:
            raise EngineError(
                f"the environment variable {self._api_key_env} holds no key for {self._shown_url}: "
                "set it, or unset the setting that names it"
            )
        return {"Authorization": f"Bearer {key}"}


def _fault(response: httpx.Response, headers: dict[str, str]) -> str:
    cure = {
        401: "; check the key",
        403: "; check the key's rights",
        404: "; check the base URL and the model's name",
        413: "; ask for fewer passages",
    }.get(response.status_code, "")
    # Some services repeat the key that they refuse, and errors end in logs.
    key = headers.get("Authorization", "").removeprefix("Bearer ")
    message = response.text.replace(key, "…") if key else response.text
    return f"HTTP {response.status_code} {message.strip()[:200]!r}{cure}"
