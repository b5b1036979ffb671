"""An answer, with verbatim quotes that support it and the position of each quote in its document."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Protocol

from pydantic import AliasChoices, BeforeValidator, Field

from inference.engines.protocol import AdapterChoice, Engine, EngineError, EnginePrompt, EngineReply
from inference.prompting.types import Draft, Outcome, Passage, TokenUsage
from retrieval.search.query import is_encodable

MAX_QUESTION_CHARS = 4000
"""A longer text is a document and not a question."""


_NEAREST_DOCUMENTS = 3
_TITLE_CHARS = 80


class InvalidQuestion(ValueError):
    """A question is not valid; the message says why."""


class CitablePassage(Passage, Protocol):
    """A passage with the ids that a citation needs, such as `retrieval.search.searcher.SearchHit`."""

    @property
    def chunk_id(self) -> str:
        """The id of the chunk."""
        ...

    @property
    def uri(self) -> str:
        """The URI of the document."""
        ...

    @property
    def content_sha256(self) -> str:
        """The SHA-256 of the document's bytes."""
        ...


@dataclass(frozen=True)
class AnsweredRelease:
    """The release that an answer is given from.

    Attributes:
        release_id: The live release.
        model_digest: The embedding model that its index is made with.
        documents_version: The version of `silver.documents` that it pins.
    """

    release_id: str
    model_digest: str
    documents_version: int


@dataclass(frozen=True)
class Citation:
    """A quote and where it is, checkable without Headwater.

    Attributes:
        doc_id: The document.
        uri: Its URI.
        content_sha256: The SHA-256 of its bytes.
        table_version: The version of `silver.documents` that holds the document's text.
        chunk_id: The chunk that was retrieved.
        char_start: The position in the document's text at which the quote begins, in code points.
        char_end: The position after the quote's last character.
        quote: The quoted text.
    """

    doc_id: str
    uri: str
    content_sha256: str
    table_version: int
    chunk_id: str
    char_start: int
    char_end: int
    quote: str


def _outcome_of(recorded: object) -> object:
    """Returns an outcome, also of a journal of a Headwater that knew only `refused`."""
    if isinstance(recorded, bool):
        return "refused" if recorded else "answered"
    return recorded


@dataclass(frozen=True)
class Answer:
    """An answer with its citations.

    Attributes:
        answer_id: The id of the answer: 32 hex digits, new for each answer that a person asks for.
        answer: The text, with `[n]` for the n-th citation; the reason where there is no answer.
        outcome: What the engine made of the question; never `failed`. Only what was answered or truncated has
            citations.
        citations: The citations, in the order of their numbers.
        release: The release that was searched.
        model_digest: The digest of the embedding model that was used for retrieval.
        engine: The engine that wrote the answer.
        generator_digest: The digest of the engine: its models, its prompt, its parameters and its code.
        because: What each engine that was asked did, such as `extractive refused; endpoint answered`.
        usage: The tokens that it took; None where the engine does not count them.
        passages_left_out: How many of the retrieved passages the engine did not read, for lack of room.
        generator_adapter: The digest of the adapter that the engine had; None where it had none.
    """

    answer_id: str
    answer: str
    outcome: Annotated[
        Outcome, BeforeValidator(_outcome_of), Field(validation_alias=AliasChoices("outcome", "refused"))
    ]
    citations: tuple[Citation, ...]
    release: str
    model_digest: str
    engine: str
    generator_digest: str | None = None
    because: str | None = None
    usage: TokenUsage | None = None
    passages_left_out: int = 0
    generator_adapter: str | None = None

    @property
    def refused(self) -> bool:
        """Whether the engine said that the documents do not answer the question."""
        return self.outcome == "refused"

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `headwater ask --json`.

        It has `outcome` where a reply was cut off or withheld, and `passages_left_out` where there are any.
        """
        unfinished = {} if self.outcome in ("answered", "refused") else {"outcome": self.outcome}
        left_out = {"passages_left_out": self.passages_left_out} if self.passages_left_out else {}
        return {
            "answer_id": self.answer_id,
            "answer": self.answer,
            "refused": self.refused,
            "citations": [asdict(citation) for citation in self.citations],
            "release": self.release,
            "model_digest": self.model_digest,
            **unfinished,
            **left_out,
        }


@dataclass(frozen=True)
class BatchPlace:
    """The place of a question in a batch.

    Attributes:
        batch: The name of the batch.
        question_id: The question's id in it.
        answer_id: The id that its answer gets: the same for the same question, release, engine
            and settings of retrieval.
    """

    batch: str
    question_id: str
    answer_id: str


@dataclass(frozen=True)
class AnswerRecord:
    """An answer with everything that is recorded about it.

    Attributes:
        answer: The answer.
        question: The question, as it was asked.
        tenant: The tenant whose documents were searched.
        groups: The user's groups.
        retrieved: The ids of the retrieved chunks, best first.
        search_mode: The search mode: `hybrid` or `reranked`.
        versions: The version of every table that the release was made from.
        answered_at: The time, in UTC.
        place: The question's place in a batch; None for a question by itself.
        retrieval_digest: The digest of the settings that they were retrieved by; None in the journal of an
            older version.
    """

    answer: Answer
    question: str
    tenant: str
    groups: tuple[str, ...]
    retrieved: tuple[str, ...]
    search_mode: str
    versions: dict[str, int]
    answered_at: datetime
    place: BatchPlace | None = None
    retrieval_digest: str | None = None


def validate_question(question: str) -> str:
    """Returns the question without surrounding whitespace, if it is valid.

    Raises:
        InvalidQuestion: The question is empty, has no letter or digit, is longer than 4,000 characters, or
            can not be written as UTF-8.
    """
    question = question.strip()
    if not is_encodable(question):
        raise InvalidQuestion(
            "the question holds bytes or half characters that are no text: write it in UTF-8"
        )
    if not any(character.isalnum() for character in question):
        raise InvalidQuestion('the question is empty: write one, such as "How long is the warranty?"')
    if len(question) > MAX_QUESTION_CHARS:
        raise InvalidQuestion(
            f"the question has {len(question)} characters; the most is {MAX_QUESTION_CHARS}"
        )
    return question


_NO_EVIDENCE = Draft("Nothing found in the documents speaks to this question.", outcome="refused")


def answer_prompts(engine: Engine, prompts: Sequence[EnginePrompt]) -> Iterator[EngineReply]:
    """Yields the reply to each prompt as it comes. One without passages is refused; no engine is asked."""
    asked = [index for index, prompt in enumerate(prompts) if prompt.passages]
    yield from (
        EngineReply(index, _NO_EVIDENCE, engine.name, engine.digest)
        for index, prompt in enumerate(prompts)
        if not prompt.passages
    )
    for reply in engine.answer_many([prompts[index] for index in asked]):
        yield replace(reply, index=asked[reply.index])


def answer_question(
    question: str,
    hits: Sequence[CitablePassage],
    engine: Engine,
    release: AnsweredRelease,
    adapted: AdapterChoice | None = None,
) -> Answer:
    """Returns an engine's answer to a question from retrieved chunks, with citations.

    Args:
        question: The question as the user asked it.
        hits: The retrieved chunks of one tenant, best first.
        engine: The engine that quotes or writes the answer.
        release: The release that was searched.
        adapted: Which adapter a local model answers with.

    Raises:
        InvalidQuestion: The question is not valid.
        EngineError: The engine fails.
    """
    [reply] = answer_prompts(engine, [EnginePrompt(validate_question(question), hits, adapted=adapted)])
    return cited_answer(reply, hits, release)


def cited_answer(
    reply: EngineReply,
    hits: Sequence[CitablePassage],
    release: AnsweredRelease,
    answer_id: str | None = None,
) -> Answer:
    """Returns an engine's reply as an answer: each quote of its draft is a citation.

    Args:
        reply: What the engine made of the chunks.
        hits: The retrieved chunks of one tenant, best first.
        release: The release that was searched.
        answer_id: The answer's id; a new one if None.

    Raises:
        EngineError: The engine failed.
    """
    draft = reply.draft
    if reply.failure is not None:
        raise EngineError(reply.failure)
    return Answer(
        answer_id=answer_id or uuid.uuid4().hex,
        answer=_refusal(draft.text, hits) if draft.refused else draft.text,
        outcome=draft.outcome,
        citations=tuple(_citations(draft, hits, release)),
        release=release.release_id,
        model_digest=release.model_digest,
        engine=reply.engine,
        generator_digest=reply.digest,
        because=reply.because or reply.said,
        usage=draft.usage,
        passages_left_out=draft.passages_left_out,
        generator_adapter=reply.adapted.adapter.digest if reply.adapted and reply.adapted.adapter else None,
    )


def _refusal(reason: str, hits: Sequence[CitablePassage]) -> str:
    """Returns why there is no answer, and which documents were found instead."""
    titles = {hit.uri: _short_title(hit) for hit in reversed(hits)}
    nearest = list(dict.fromkeys(hit.uri for hit in hits))[:_NEAREST_DOCUMENTS]
    if not nearest:
        return reason
    named = [f"{titles[uri]} ({uri})" if titles[uri] else uri for uri in nearest]
    return f"{reason} Nearest to it, of what was found: {'; '.join(named)}."


def _short_title(hit: CitablePassage) -> str:
    """Returns a document's title in one line."""
    title = " ".join((hit.title or "").split())
    return title if len(title) <= _TITLE_CHARS else f"{title[: _TITLE_CHARS - 1]}…"


def _citations(draft: Draft, hits: Sequence[CitablePassage], release: AnsweredRelease) -> list[Citation]:
    citations = []
    for quote in draft.quotes:
        hit = hits[quote.passage]
        citations.append(
            Citation(
                doc_id=hit.doc_id,
                uri=hit.uri,
                content_sha256=hit.content_sha256,
                table_version=release.documents_version,
                chunk_id=hit.chunk_id,
                char_start=hit.char_start + quote.start,
                char_end=hit.char_start + quote.end,
                quote=hit.text[quote.start : quote.end],
            )
        )
    return citations
