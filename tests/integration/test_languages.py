"""From files in ten languages to a release that passed its gate, and to cited answers in those languages."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from assets.lake.lake import Lake
from assets.release_evaluation import candidate_questions, canonical_candidate_documents
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from inference.answering.answer import Answer
from orchestration.operations.ask import open_ask_service
from orchestration.operations.ingest import RunSummary, ingest_and_release
from orchestration.settings import Settings, open_configured_lake
from quality.evaluation.retrieval_metrics import evaluate_search
from retrieval.language.identification import detect_language
from retrieval.search.query import SearchQuery
from retrieval.search.searcher import RETRIEVAL_MODES, RetrievalMode, SearchHit
from retrieval.store.postgres import Postgres

TEXTS = Path(__file__).parents[1] / "languages"
LANGUAGES = sorted(path.stem for path in TEXTS.glob("*.json"))
NO_WORDS_OF = {"zh", "ja", "ko", "th", "ar", "he", "hi"}
"""The languages whose scripts the default embedder's vocabulary lacks."""


@dataclass(frozen=True)
class Declaration:
    """The Universal Declaration of Human Rights in one language, with questions.

    Attributes:
        articles: The text of each article, with its heading, by number.
        questions: Questions with the number of the article that answers them.
        unanswerable: Questions that no article answers.
    """

    articles: dict[int, str]
    questions: dict[str, int]
    unanswerable: list[str]


@cache
def declaration(language: str) -> Declaration:
    read = json.loads((TEXTS / f"{language}.json").read_text(encoding="utf-8"))
    return Declaration(
        {
            each["article"]: "\n\n".join((f"# {each['heading']}", *each["paragraphs"])) + "\n"
            for each in read["articles"]
        },
        {each["question"]: each["article"] for each in read["questions"]},
        read["unanswerable"],
    )


@pytest.fixture(scope="module")
def settings(module_folder: Path) -> Settings:
    """A tenant for each language, a file for each article; the tenant `all` has those that are asked for."""
    made = Settings(home=module_folder / "state")
    made.home.mkdir()
    registry = SourceRegistry(made.sources_file)
    for language in LANGUAGES:
        folder = module_folder / "corpus" / language
        folder.mkdir(parents=True)
        for number, text in declaration(language).articles.items():
            (folder / f"{number}.md").write_text(text, encoding="utf-8")
            if number in declaration(language).questions.values():
                together = module_folder / "together" / language
                together.mkdir(parents=True, exist_ok=True)
                (together / f"{number}.md").write_text(text, encoding="utf-8")
        registry.add(Source(name=language, tenant=language, location=str(folder)))
    registry.add(Source(name="all", tenant="all", location=str(module_folder / "together")))
    return made


@pytest.fixture(scope="module")
def released(settings: Settings) -> Iterator[RunSummary]:
    """The release; its gate asked known-item questions, for nobody wrote any for these sources."""
    result = ingest_and_release(settings, print)
    yield result
    Postgres(settings.home, settings.postgres).stop()


def document_text(lake: Lake, doc_id: str, version: int) -> str:
    found = lake.query(
        "select text from t where doc_id = ?", [doc_id], t=lake.delta("silver.documents", version)
    )
    return str(found["text"][0].as_py())


def article_of(answer: Answer) -> int:
    return int(Path(answer.citations[0].uri).stem)


def test_every_article_is_read_and_the_gate_lets_the_release_pass(
    settings: Settings, released: RunSummary
) -> None:
    assert released.funnel["quarantined"] == 0
    assert released.funnel["documents"] == 30 * len(LANGUAGES) + 8 * len(LANGUAGES)
    assert released.metrics["questions"] == 50 + sum(len(declaration(each).articles) for each in LANGUAGES)
    assert released.metrics["ndcg@10"] > 0.7


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_gate_asks_in_the_language_and_finds(
    settings: Settings, released: RunSummary, language: str
) -> None:
    lake = open_configured_lake(settings)
    service = open_ask_service(settings)
    pins = service.live_release().details.versions
    sources = SourceRegistry(settings.sources_file)
    asked = candidate_questions(lake, sources, pins, lambda each: np.zeros(len(each), bool))[language]
    canonical = canonical_candidate_documents(lake, pins)[language]
    assert len(asked) == 30
    assert detect_language(" ".join(each.question for each in asked)) == language
    found = {}
    for mode in RETRIEVAL_MODES:

        def search(question: str, k: int, mode: RetrievalMode = mode) -> list[SearchHit]:
            return service.search(SearchQuery.plain(question), k, mode, language)

        metrics = evaluate_search(asked, search, canonical).metrics
        found[mode] = metrics["ndcg@10"], metrics["recall@10"]
    print(language, {mode: f"{ndcg:.3f} ({recall:.3f})" for mode, (ndcg, recall) in found.items()})
    assert found["hybrid"][0] > 0.6


@pytest.mark.parametrize("language", LANGUAGES)
def test_questions_are_answered_with_verbatim_citations_of_the_right_article(
    settings: Settings, released: RunSummary, language: str
) -> None:
    asked = declaration(language)
    lake, right = open_configured_lake(settings), 0
    with open_ask_service(settings) as service:
        for question, article in asked.questions.items():
            answer = service.ask(question, language)
            for citation in answer.citations:
                text = document_text(lake, citation.doc_id, citation.table_version)
                assert text[citation.char_start : citation.char_end] == citation.quote
            right += not answer.refused and article_of(answer) == article
        refused = [service.ask(question, language).refused for question in asked.unanswerable]
    print(language, f"{right} of {len(asked.questions)} right, {sum(refused)} of {len(refused)} refused")
    assert right >= 5
    if language in NO_WORDS_OF:
        assert all(refused)


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_are_in_the_language_of_the_question(
    settings: Settings, released: RunSummary, language: str
) -> None:
    with open_ask_service(settings) as service:
        answers = [service.ask(question, "all") for question in declaration(language).questions]
    given = [citation.uri for answer in answers for citation in answer.citations]
    assert len(given) >= 4
    assert [uri for uri in given if Path(uri).parent.name != language] == []
