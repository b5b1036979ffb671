"""The interface of engines, which turn questions and passages into drafts with quotes, and their error."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inference.prompting.types import Draft, Passage, TokenUsage


class EngineError(RuntimeError):
    """An engine could not answer; the message names the engine, the cause and the remedy.

    Attributes:
        usage: The tokens that it took all the same; None where it took none, or does not count them.
    """

    def __init__(self, message: str, usage: TokenUsage | None = None) -> None:
        super().__init__(message)
        self.usage = usage


class EngineChanged(EngineError):
    """An engine is not the one that was approved, or not the one that was loaded: it does not answer."""


@dataclass(frozen=True)
class Adapter:
    """A low-rank adapter of a local model.

    Attributes:
        address: Its name, such as `generator-acme@2`.
        digest: The digest of its files (`inference.engines.digest.adapter_digest`).
        folder: Where it is, in PEFT's form.
    """

    address: str
    digest: str
    folder: Path


@dataclass(frozen=True)
class AdapterChoice:
    """Which adapter answers a tenant's questions.

    Attributes:
        tenant: The tenant.
        adapter: Its adapter, or the one of all tenants; None where it has none, and the base answers.
    """

    tenant: str
    adapter: Adapter | None

    @property
    def said(self) -> str:
        """Which adapter it is, for the record of an answer."""
        if self.adapter is None:
            return f"by the base: the tenant {self.tenant} has no adapter"
        return f"with {self.adapter.address}"


class TenantAdapters(Protocol):
    """What knows the adapters of tenants."""

    def of(self, tenant: str) -> AdapterChoice | None:
        """Returns which adapter answers a tenant's questions; None where no tenant has any.

        Raises:
            EngineError: Its files are not those that were signed.
        """
        ...


@dataclass(frozen=True)
class EnginePrompt:
    """A question and the passages that it is answered from.

    Attributes:
        question: The question.
        passages: The passages, best first and not empty.
        sharing_key: Names who may read the passages and which release they are from. An engine may compute
            once what prompts with equal keys have in common; one without a key shares nothing.
        adapted: Which adapter a local model answers it with; None for the base alone.
    """

    question: str
    passages: Sequence[Passage]
    sharing_key: str | None = None
    adapted: AdapterChoice | None = None


@dataclass(frozen=True)
class EngineReply:
    """An engine's reply to one of several prompts.

    Attributes:
        index: Which prompt, from 0.
        draft: What the engine made of it.
        engine: The name of the engine that replied.
        digest: Its digest.
        because: What each engine that was asked did, where there were several.
        adapted: Which adapter it had; None for an engine that has none.
    """

    index: int
    draft: Draft
    engine: str
    digest: str
    because: str | None = None
    adapted: AdapterChoice | None = None

    @property
    def failure(self) -> str | None:
        """Why the engine failed; None if it did not."""
        return self.draft.text if self.draft.outcome == "failed" else None

    @property
    def said(self) -> str:
        """What the engine did, in one line, such as `extractive refused`."""
        said = f"{self.engine} {self.draft.outcome}"
        if self.failure is not None:
            return f"{said}: {' '.join(self.failure.split())}"
        return f"{said} {self.adapted.said}" if self.adapted else said

    @classmethod
    def failed(
        cls, index: int, engine: "Engine", reason: str, usage: TokenUsage | None = None
    ) -> "EngineReply":
        """Returns the reply of an engine that failed at a prompt."""
        return cls(index, Draft(reason, outcome="failed", usage=usage), engine.name, engine.digest)


class Engine(Protocol):
    """An object that answers questions from passages."""

    @property
    def name(self) -> str:
        """The engine's name, as it is stored with each answer."""
        ...

    @property
    def digest(self) -> str:
        """A digest of what decides its answers: its models, its prompt, its parameters and the code."""
        ...

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        """Returns what it makes of the passages, which are best first and not empty.

        Raises:
            EngineError: The engine fails.
        """
        ...

    def answer_many(self, prompts: Sequence[EnginePrompt]) -> Iterator[EngineReply]:
        """Yields a reply to each prompt as soon as it is ready, in any order; a failed one fails alone.

        Raises:
            EngineChanged: The files of its model were replaced since it was loaded.
        """
        ...


def answer_one(engine: Engine, question: str, passages: Sequence[Passage]) -> Draft:
    """Returns what an engine that answers many prompts at once makes of one.

    Raises:
        EngineError: The engine fails.
    """
    [reply] = engine.answer_many([EnginePrompt(question, passages)])
    if reply.failure is not None:
        raise EngineError(reply.failure, reply.draft.usage)
    return reply.draft


def answer_each(engine: Engine, prompts: Sequence[EnginePrompt], at_once: int = 1) -> Iterator[EngineReply]:
    """Yields the replies of an engine that answers one prompt per call.

    Args:
        engine: The engine.
        prompts: The prompts.
        at_once: How many calls run at the same time.
    """

    def reply(index: int) -> EngineReply:
        prompt = prompts[index]
        try:
            draft = engine.answer(prompt.question, prompt.passages)
        except EngineError as error:
            return EngineReply.failed(index, engine, str(error), error.usage)
        return EngineReply(index, draft, engine.name, engine.digest)

    if at_once == 1:
        yield from map(reply, range(len(prompts)))
        return
    with ThreadPoolExecutor(at_once) as threads:
        calls = [threads.submit(reply, index) for index in range(len(prompts))]
        try:
            for call in as_completed(calls):
                yield call.result()
        finally:  # whoever stops listening does not wait for calls that have not begun
            threads.shutdown(wait=False, cancel_futures=True)
