"""Answers questions by a service with OpenAI's chat API, such as vLLM, llama.cpp or a managed service."""

import os
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, cast

import httpx2
import openai
from circuitbreaker import CircuitBreaker
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from common.redaction import redact_urls
from inference.engines.digest import engine_digest
from inference.engines.price import TokenPrice
from inference.engines.protocol import EngineError, EnginePrompt, EngineReply, answer_each
from inference.prompting.generated_reply import generated_draft
from inference.prompting.prompt_assembly import (
    PROMPT_INSTRUCTIONS,
    PromptConfig,
    prompt_forms,
)
from inference.prompting.types import Draft, Passage, TokenUsage

ATTEMPTS = 4
"""How often a request is sent where the service is busy, broken or away; the client waits, with jitter."""

MAX_REPLY_BYTES = 16 << 20
"""A longer reply is no answer."""

_FAULTS_IN_A_ROW = 3
_MAX_PROMPT_TOKENS = 10_000_000  # no service reads as many: it would be a lie, and make a price
_PAUSE_S = 30.0
_CURES = {
    401: "; check the key",
    403: "; check the key's rights",
    404: "; check the base URL and the model's name",
    413: "; ask for fewer passages",
}
_FILTERED = "content_filter"

_NOT_FROM_ENVIRONMENT = dict.fromkeys(("OpenAI-Organization", "OpenAI-Project"), openai.Omit())
"""The client takes these from OpenAI's variables, and they are no other service's business."""
_NO_KEY = {"Authorization": openai.Omit()}


class OpenAIEngine:
    """An engine that generates answers through `POST {base_url}/chat/completions`, by OpenAI's client.

    A service that fails several times in a row is not asked for half a minute (a circuit breaker; Nygard,
    "Release It!", 2007): the questions of a batch then fail at once, each with that reason.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str | None = None,
        timeout_s: float = 60.0,
        max_new_tokens: int = 300,
        context: PromptConfig | None = None,
        requests_at_once: int = 8,
        price: TokenPrice | None = None,
    ) -> None:
        """Describes the service; nothing is sent yet.

        Args:
            base_url: The service's URL, with or without `/v1` at the end.
            model: Its name at the service.
            api_key_env: The environment variable that holds the key, read at each call and never kept.
            timeout_s: How long one attempt may take.
            max_new_tokens: The length limit of an answer.
            context: Which passages are shown to the model, and in which order.
            requests_at_once: How many prompts are sent at the same time where there are many.
            price: The price of its tokens.
        """
        self._base_url = f"{base_url.rstrip('/').removesuffix('/v1')}/v1"
        self._shown_url = redact_urls(f"{self._base_url}/chat/completions")
        self._model = model
        self._api_key_env = api_key_env
        self._timeout_s = timeout_s
        self._max_new_tokens = max_new_tokens
        self._context = context or PromptConfig()
        self._requests_at_once = requests_at_once
        self._price = price or TokenPrice()
        self._breaker = CircuitBreaker(_FAULTS_IN_A_ROW, _PAUSE_S, _is_fault_of_service)

    @property
    def name(self) -> str:
        """The engine's name: the protocol and the model."""
        return f"openai:{self._model}"

    @property
    def digest(self) -> str:
        """A digest of the address, the model's name, the prompt, the parameters and the code.

        What a service runs under that name can change without a word; no digest tells.
        """
        return engine_digest(
            self.name, self._shown_url, PROMPT_INSTRUCTIONS, self._context, self._max_new_tokens
        )

    def answer_many(self, prompts: Sequence[EnginePrompt]) -> Iterator[EngineReply]:
        """Yields a reply to each prompt as it comes; several are asked at the same time."""
        return answer_each(self, prompts, self._requests_at_once)

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        """Generates an answer, and keeps only citations that the passages support.

        Raises:
            EngineError: The service can't be reached, refuses, or replies in another form, or not even one
                passage fits into the token budget.
        """
        form = next(prompt_forms(question, passages, self._context), None)
        if form is None:
            raise EngineError(
                f"no passage fits into {self._context.max_tokens} tokens: set "
                "HEADWATER_GENERATOR__CONTEXT__MAX_TOKENS higher"
            )
        try:
            completion = self._complete(form.messages)
        except _FilteredPrompt:
            return generated_draft("", _FILTERED, form, passages, None)
        try:
            choice = completion.choices[0]
            reply, refusal = choice.message.content, getattr(choice.message, "refusal", None)
            if not isinstance(reply, str | None):
                raise TypeError
        except (LookupError, TypeError, AttributeError) as error:
            raise EngineError(
                f"{self._shown_url} did not answer in OpenAI's chat form: check the base URL"
            ) from error
        finish_reason = _FILTERED if refusal else getattr(choice, "finish_reason", None)
        usage = self._usage(completion)
        draft = generated_draft(reply or "", finish_reason, form, passages, usage)
        if draft.outcome == "failed":
            raise EngineError(f"{self.name} at {self._shown_url}: {draft.text}", usage)
        return draft

    def _complete(self, messages: list[dict[str, str]]) -> ChatCompletion:
        key = self._key()
        if self._breaker.opened:
            raise EngineError(
                f"{self._shown_url} failed {_FAULTS_IN_A_ROW} times in a row and is not asked for "
                f"{_PAUSE_S:.0f} s: check that the service runs there, then ask again"
            )
        try:
            client = self._client
        except (httpx2.InvalidURL, ValueError):  # it quotes a part of the address, and that may be a key's
            raise EngineError(f"{self._shown_url} is not a URL") from None
        try:
            with self._breaker:
                return client.chat.completions.create(
                    model=self._model,
                    messages=cast("list[ChatCompletionMessageParam]", messages),
                    temperature=0,
                    max_tokens=self._max_new_tokens,
                    extra_headers=_NOT_FROM_ENVIRONMENT
                    | ({"Authorization": f"Bearer {key}"} if key else _NO_KEY),
                )
        except openai.APIStatusError as error:
            status = error.status_code
            if error.code == _FILTERED:
                raise _FilteredPrompt from None
            fault = f"HTTP {status} {_without(key, error.response.text).strip()[:200]!r}"
            if _may_answer_later(status):
                raise self._unanswered(fault) from None
            raise EngineError(f"{self._shown_url} refused: {fault}{_CURES.get(status, '')}") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            if isinstance(cause, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
                raise EngineError(f"{self._shown_url} is not a URL") from None
            raise self._unanswered(f"{type(cause).__name__}: {_without(key, str(cause))}") from None
        except (openai.OpenAIError, ValueError) as error:  # a body that is no JSON is a ValueError
            raise EngineError(
                f"{self._shown_url} did not answer in OpenAI's chat form: check the base URL"
            ) from error

    @cached_property
    def _client(self) -> openai.OpenAI:
        """The client, whose connections stay open from one question to the next; it holds no key."""
        return openai.OpenAI(
            api_key="none",
            base_url=self._base_url,
            timeout=self._timeout_s,
            max_retries=ATTEMPTS - 1,
            http_client=_BoundedClient(self._timeout_s),
        )

    def _unanswered(self, fault: str) -> EngineError:
        return EngineError(
            f"{self._shown_url} failed {ATTEMPTS} times, last with {fault}: check that the service runs there"
        )

    def _key(self) -> str | None:
        if self._api_key_env is None:
            return None
        key = os.environ.get(self._api_key_env)
        if not key:
            raise EngineError(
                f"the environment variable {self._api_key_env} holds no key for {self._shown_url}: "
                "set it, or unset the setting that names it"
            )
        return key

    def _usage(self, completion: ChatCompletion) -> TokenUsage | None:
        """Returns what the service says that it took; None where it says nothing that can be so."""
        usage = completion.usage
        read, written = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
        if not (isinstance(read, int) and isinstance(written, int)):
            return None
        if not 0 <= read <= _MAX_PROMPT_TOKENS or not 0 <= written <= self._max_new_tokens:
            return None
        return TokenUsage(read, written, self._price.cost_usd(read, written))


class _FilteredPrompt(Exception):
    """The service's filter withheld the prompt from its model, as Azure's does with HTTP 400."""


class _BoundedClient(openai.DefaultHttpxClient):
    """A client whose replies end in time and size, also where they come drop by drop.

    The client's own limit is for each read by itself.
    """

    def __init__(self, reply_s: float) -> None:
        super().__init__()
        self._reply_s = reply_s

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        until = time.monotonic() + self._reply_s
        response = super().send(request, stream=True, **options)
        response.stream = _BoundedStream(cast("httpx2.SyncByteStream", response.stream), until)
        if not stream:
            try:
                response.read()
            except BaseException:
                response.close()
                raise
        return response


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._stream:
            size += len(part)
            if time.monotonic() > self._until:
                raise httpx2.ReadTimeout("the reply does not end")
            if size > MAX_REPLY_BYTES:
                raise httpx2.ReadError(f"the reply is longer than {MAX_REPLY_BYTES} bytes")
            yield part

    def close(self) -> None:
        self._stream.close()


def _is_fault_of_service(_: type[BaseException], error: BaseException) -> bool:
    """Returns whether a service is busy, broken or away; what it refuses is the request's fault."""
    if isinstance(error, openai.APIStatusError):
        return _may_answer_later(error.status_code)
    return isinstance(error, openai.APIConnectionError)


def _may_answer_later(status: int) -> bool:
    return status == 429 or status >= 500


def _without(key: str | None, text: str) -> str:
    """Some services repeat the key that they refuse, and errors end in logs."""
    return text.replace(key, "…") if key else text
