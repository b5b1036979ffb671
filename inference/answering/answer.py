"""An answer, with verbatim quotes that support it and the position of each quote in its document."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Protocol

from inference.engines.protocol import Engine
from inference.prompting.types import Draft, Passage

MAX_QUESTION_CHARS = 4000
"""A longer text is a document and not a question."""

_NO_EVIDENCE = "Nothing found in the documents speaks to this question."


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


@dataclass(frozen=True)
class Answer:
    """An answer with its citations.

    Attributes:
        answer_id: The id of the answer: 32 hex digits, new for each answer.
        answer: The text, with `[n]` for the n-th citation; if refused, the reason why there is no answer.
        refused: True if the evidence was too weak; then there are no citations.
        citations: The citations, in the order of their numbers.
        release: The release that was searched.
        model_digest: The digest of the embedding model that was used for retrieval.
        engine: The engine that wrote the answer.
    """

    answer_id: str
    answer: str
    refused: bool
    citations: tuple[Citation, ...]
    release: str
    model_digest: str
    engine: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `headwater ask --json`."""
        return {
            "answer_id": self.answer_id,
            "answer": self.answer,
            "citations": [asdict(citation) for citation in self.citations],
            "release": self.release,
            "model_digest": self.model_digest,
        }


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
    """

    answer: Answer
    question: str
    tenant: str
    groups: tuple[str, ...]
    retrieved: tuple[str, ...]
    search_mode: str
    versions: dict[str, int]
    answered_at: datetime


def validate_question(question: str) -> str:
    """Returns the question without surrounding whitespace, if it is valid.

    Raises:
        InvalidQuestion: The question is empty, has no letter or digit, or is longer than 4,000 characters.
    """
    question = question.strip()
    if not any(character.isalnum() for character in question):
        raise InvalidQuestion('the question is empty: write one, such as `headwater ask "What is …?"`')
    if len(question) > MAX_QUESTION_CHARS:
        raise InvalidQuestion(
            f"the question has {len(question)} characters; the most is {MAX_QUESTION_CHARS}"
        )
    return question


def answer_question(
    question: str, hits: Sequence[CitablePassage], engine: Engine, release: AnsweredRelease
) -> Answer:
    """Returns an engine's answer to a question from retrieved chunks, with citations.

    Args:
        question: The question as the user asked it.
        hits: The retrieved chunks of one tenant, best first.
        engine: The engine that quotes or writes the answer.
        release: The release that was searched.

    Raises:
        InvalidQuestion: The question is not valid.
        EngineError: The engine fails.
    """
    question = validate_question(question)
    draft = engine.answer(question, hits) if hits else Draft(_NO_EVIDENCE, refused=True)
    return Answer(
        answer_id=uuid.uuid4().hex,
        answer=draft.text,
        refused=draft.refused,
        citations=tuple(_citations(draft, hits, release)),
        release=release.release_id,
        model_digest=release.model_digest,
        engine=engine.name,
    )


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
