"""The passages that a collection's questions are answered from: each question's, the lake's, or searched."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from assets.release_evaluation import canonical_candidate_documents
from common.progress import Progress
from inference.answering.answer import AnsweredRelease, CitablePassage, validate_question
from inference.answering.query_service import answered_release
from inference.answering.retrieval_settings import PASSAGES_PER_QUESTION
from orchestration.operations.ask import open_ask_service
from orchestration.operations.scratch_index import ScratchIndex, open_scratch_index
from orchestration.settings import Settings, open_configured_lake
from quality.evaluation.answer_collection import AnswerCollection, AnswerQuestion


@dataclass(frozen=True)
class FoundPassages:
    """A collection's questions, each with the passages that every engine answers it from.

    Attributes:
        questions: The questions; those to the lake with canonical documents as gold.
        passages: The passages of each, best first.
        seconds: How long the search for them took.
        release: The release that answers are given from.
        sharing_key: Names what prompts of these questions may share (`EnginePrompt.sharing_key`).
    """

    questions: tuple[AnswerQuestion, ...]
    passages: list[Sequence[CitablePassage]]
    seconds: list[float]
    release: AnsweredRelease
    sharing_key: str


@dataclass(frozen=True)
class _GivenPassage:
    """A passage that a question brings, in the form of a search hit."""

    text: str
    doc_id: str
    title: None = None
    heading: None = None
    char_start: int = 0
    content_sha256: str = ""

    @property
    def char_end(self) -> int:
        return len(self.text)

    @property
    def chunk_id(self) -> str:
        return self.doc_id

    @property
    def uri(self) -> str:
        return self.doc_id


def find_passages(
    settings: Settings,
    model_digest: str,
    collection: AnswerCollection,
    tenant: str,
    progress: Callable[[str], None],
) -> FoundPassages:
    """Returns the passages of all questions of a collection.

    Args:
        settings: The settings.
        model_digest: The digest of the embedder.
        collection: The questions. Passages of its own are indexed in a scratch server that is removed.
        tenant: Whose documents are asked, where the questions are to the lake.
        progress: Called with lines about progress.

    Raises:
        InvalidQuestion: A question is empty or too long.
        NoLiveSnapshot: The questions are to the lake, and nothing is released.
    """
    if collection.kind == "questions":
        return _of_the_lake(settings, collection, tenant)
    if collection.searched is None:
        release = AnsweredRelease("evaluation", model_digest, 0)
        return _found(collection.questions, _given_passages, release, "evaluation")
    with open_scratch_index(settings, collection.searched, "default", progress) as index:
        return find_in_scratch_index(settings, index, collection.questions)


def find_in_scratch_index(
    settings: Settings, index: ScratchIndex, questions: tuple[AnswerQuestion, ...]
) -> FoundPassages:
    """Returns the passages that a search finds for questions, each a query of the index's collection.

    Raises:
        InvalidQuestion: A question is empty or too long.
    """

    def search(question: AnswerQuestion) -> Sequence[CitablePassage]:
        if settings.reranker.configured:
            return index.rerank(question.text, PASSAGES_PER_QUESTION)
        return index.search("hybrid", question.text, PASSAGES_PER_QUESTION)

    return _found(questions, search, AnsweredRelease("evaluation", index.model_digest, 0), "evaluation")


def _of_the_lake(settings: Settings, collection: AnswerCollection, tenant: str) -> FoundPassages:
    """The questions with canonical documents as gold, and passages of the live release."""
    with open_ask_service(settings) as service:
        live = service.live_release()
        canonical: Mapping[str, str] = {}
        if any(each.gold for each in collection.questions):
            lake, versions = open_configured_lake(settings), live.details.versions
            canonical = canonical_candidate_documents(lake, versions).get(tenant, {})
        questions = tuple(
            replace(each, gold=tuple(canonical.get(name, name) for name in each.gold))
            for each in collection.questions
        )
        return _found(
            questions,
            lambda question: service.retrieve_passages(question.text, tenant, live).hits,
            answered_release(live),
            json.dumps([tenant, live.release_id]),
        )


def _found(
    questions: tuple[AnswerQuestion, ...],
    retrieve: Callable[[AnswerQuestion], Sequence[CitablePassage]],
    release: AnsweredRelease,
    sharing_key: str,
) -> FoundPassages:
    passages: list[Sequence[CitablePassage]] = []
    seconds = []
    progress = Progress("questions searched for", len(questions))
    for question in questions:
        validate_question(question.text)
        began = time.perf_counter()
        passages.append([] if question.candidates else retrieve(question))
        seconds.append(time.perf_counter() - began)
        progress.advance()
    return FoundPassages(questions, passages, seconds, release, sharing_key)


def _given_passages(question: AnswerQuestion) -> Sequence[CitablePassage]:
    return [_GivenPassage(text, f"passage-{n}") for n, text in enumerate(question.passages or (), 1)]
